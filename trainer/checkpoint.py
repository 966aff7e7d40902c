"""Checkpoints: one directory per step, visible only when complete, believed only when its hashes are right.

step-00000012/{model.safetensors, optimizer.safetensors, state.json}: the weights that learn, their moments, and the rest. What
does not learn is in none: the plan has its fingerprint. Where each rank keeps the moments of its own share of the weights, there
is an optimizer-00000.safetensors of each; any number of ranks reads them back. No pickle. The newest whole checkpoint counts;
those found broken are moved aside, so that they are neither tried again nor counted among those to keep.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor

from schemas.files import TEMPORARY, sha256_of
from trainer.data.stream import Cursor
from trainer.errors import CheckpointsUnusable, ModelError, PlanMismatch, storing
from trainer.files import remove_directory, replacing_directory, sweep
from trainer.model.decoder import Decoder
from trainer.report.meter import Window
from trainer.stored import moments_of, put_moments, put_weights, weights_of
from trainer.world import World

REJECTED: Final = "rejected-"
"""Prefix of a checkpoint that was found torn or corrupt."""
_NAME: Final = re.compile(r"step-(\d{8,})")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the tensors. Training draws no random numbers, so there is no random state to keep."""

    cursor: Cursor
    n_steps: int
    """Steps done since the beginning."""
    plan: dict[str, Any]
    """What must be equal for the same steps to follow: see trainer.plan."""
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    """Loss since the last line of metrics.jsonl, summed over its tokens and all ranks."""
    weight_sum: float = 0.0
    """Weight of those tokens."""
    window: Window = Window()
    """What was done since that line."""
    owes_evaluation: bool = False
    """Whether the step's evaluation was put off, because a stop was asked for."""
    val_loss: float | None = None
    """Last validation loss."""
    first_val_loss: float | None = None
    """Validation loss before the first step."""
    best_val_loss: float | None = None
    """Lowest validation loss so far, and the steps that were done when it was measured."""
    best_step: int | None = None
    files: dict[str, str] = {}
    """sha256 of the files beside this one."""
    sizes: dict[str, int] = {}
    """Bytes of those files."""


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A state and the hash of its own bytes."""

    sha256: str
    state: msgspec.Raw


def save(
    directory: Path,
    state: State,
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    *,
    keep: int,
    also: Collection[int] = (),
) -> Path:
    """Write a checkpoint, then remove all but it, the `keep` - 1 before it and those of the steps `also`; return its path.

    Torn checkpoints are not counted: one that is counted could be all that is left.
    """
    return _publish(directory, state, model, moments_of(model, optimizer), keep=keep, also=also)


def save_shares(
    directory: Path,
    state: State,
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    world: World,
    *,
    keep: int,
    also: Collection[int] = (),
) -> Path:
    """Do what `save` does where `optimizer` holds the moments of this rank's share only. Every rank must come.

    The directory must be one that all ranks see. Raises StorageError, on all ranks, if one cannot write.
    """
    path = at_step(directory, state.n_steps)
    # not yet in the checkpoint's own temporary directory, whose name only the first rank knows
    staging = directory / f"{TEMPORARY}{path.name}-shares"

    def write(do: Callable[[], None]) -> None:
        with storing(path):
            do()

    def clear() -> None:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)

    def write_share() -> None:
        file = staging / f"optimizer-{world.rank:05d}.safetensors"
        save_file(moments_of(model, optimizer), file, metadata={"format": "pt"})

    def publish() -> None:
        _publish(directory, state, model, staging, keep=keep, also=also)

    world.together(lambda: write(clear) if world.is_first else None)
    world.together(lambda: write(write_share))
    world.together(lambda: write(publish) if world.is_first else None)
    return path


def _publish(
    directory: Path,
    state: State,
    model: Decoder,
    moments: Path | Mapping[str, Tensor],
    *,
    keep: int,
    also: Collection[int],
) -> Path:
    """Write a checkpoint with `moments`, or with the files of them in a directory, which is removed."""
    path = at_step(directory, state.n_steps)
    with replacing_directory(path) as temporary:
        save_file(weights_of(model), temporary / "model.safetensors", metadata={"format": "pt"})
        if isinstance(moments, Path):
            for file in moments.iterdir():
                file.rename(temporary / file.name)
            moments.rmdir()
        else:
            save_file(dict(moments), temporary / "optimizer.safetensors", metadata={"format": "pt"})
        files = sorted(temporary.iterdir())
        hashes, sizes = (
            {file.name: sha256_of(file) for file in files},
            {file.name: file.stat().st_size for file in files},
        )
        body = msgspec.json.encode(msgspec.structs.replace(state, files=hashes, sizes=sizes))
        sealed = _Sealed(sha256=hashlib.sha256(body).hexdigest(), state=msgspec.Raw(body))
        (temporary / "state.json").write_bytes(msgspec.json.encode(sealed))
    whole = [old for old in _newest_first(directory) if old != path and not _is_torn(old)]
    for old in whole[keep - 1 :]:
        if step_of(old) not in also:
            remove_directory(old)
    return path


def find(directory: Path, say: Callable[[str], None]) -> Path | None:
    """Return the newest checkpoint that is whole, or None where there has never been one.

    Every newer one, which is then broken, is told to `say` and moved aside. Raises CheckpointsUnusable, and moves
    nothing, when there are checkpoints and none is whole.
    """
    if directory.is_dir():
        sweep(directory)
    found, problems = newest_whole(directory)
    if found is None and problems:
        raise CheckpointsUnusable(
            f"{directory}: no checkpoint is whole, and starting over would lose what was trained:\n"
            + "\n".join(f"  {path}: {problem}" for path, problem in problems.items())
            + "\nRestore one from a backup, or start over with --fresh."
        )
    for path, problem in problems.items():
        aside = path.with_name(f"{REJECTED}{path.name}")
        if aside.exists():
            remove_directory(aside)
        path.rename(aside)
        say(f"{path}: {problem}; kept as {aside.name}; trying the checkpoint before it")
    return found


def newest_whole(directory: Path) -> tuple[Path | None, dict[Path, str]]:
    """Return the newest whole checkpoint and what is wrong with those that are newer; nothing is changed."""
    problems: dict[Path, str] = {}
    if not directory.is_dir():
        return None, problems
    for path in _newest_first(directory):
        problem = problem_of(path)
        if problem is None:
            return path, problems
        problems[path] = problem
    if not problems:
        rejected = sorted(directory.glob(f"{REJECTED}*"))
        problems = dict.fromkeys(rejected, "moved aside by an earlier start, because it was not whole")
    return None, problems


def at_step(directory: Path, n_steps: int) -> Path:
    """Return where the checkpoint after `n_steps` steps lies."""
    return directory / f"step-{n_steps:08d}"


def step_of(path: Path) -> int:
    """Return the number of steps in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is no checkpoint")
    return int(match[1])


def read_state(path: Path) -> State:
    """Return the state in a checkpoint. Raises ModelError when its bytes are not those that were written."""
    file = path / "state.json"
    try:
        sealed = msgspec.json.decode(file.read_bytes(), type=_Sealed)
        if hashlib.sha256(bytes(sealed.state)).hexdigest() != sealed.sha256:
            raise ModelError(f"{file}: does not match its own hash")
        return msgspec.json.decode(sealed.state, type=State)
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: {error}") from None


def check_plan(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise PlanMismatch naming every value that differs between a checkpoint's plan and the current one."""
    different = [
        f"  {name}: {found.get(name)!r} in the checkpoint, {expected.get(name)!r} now"
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    ]
    if different:
        raise PlanMismatch(
            f"{path} was trained with another plan, so continuing it would be neither run:\n"
            + "\n".join(different)
            + "\nRestore the old values to continue, or start over with --fresh (it removes the old checkpoints)."
        )


def restore(path: Path, state: State, model: Decoder, optimizer: torch.optim.Optimizer) -> None:
    """Put the weights and moments of a checkpoint into `model` and `optimizer`, bit for bit.

    Moments are read for those weights only that `optimizer` holds, which may be a rank's share.
    """
    put_weights(model, path / "model.safetensors")
    moments = [path / file for file in sorted(state.files) if file.startswith("optimizer")]
    put_moments(model, optimizer, moments, n_steps=state.n_steps)


def _newest_first(directory: Path) -> list[Path]:
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def _is_torn(path: Path) -> bool:
    """Tell, without reading all of it, whether a checkpoint cannot be whole."""
    try:
        sizes = read_state(path).sizes
        return any((path / name).stat().st_size != size for name, size in sizes.items())
    except (ModelError, OSError):
        return True


def problem_of(path: Path) -> str | None:
    """Return what is wrong with the bytes of a checkpoint, or None when they are those that were written."""
    try:
        state = read_state(path)
    except ModelError as error:
        return f"torn or corrupt checkpoint ({error})"
    for name, expected in state.files.items():
        try:
            got = sha256_of(path / name)
        except OSError as error:
            return f"torn checkpoint ({name}: {error.strerror or error})"
        if got != expected:
            return f"corrupt checkpoint ({name}: sha256 is {got}, state.json says {expected})"
    return None
