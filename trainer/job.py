"""What a person asked for: the config file and its overrides, decoded strictly. Imports no torch."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.generation import Generation
from schemas.models import Lora, Model
from schemas.settings import SECTION_NAMES, ConfigError, apply_overrides, check_names, decode_section, read_toml
from schemas.training import Train

SHUTDOWN: Final = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds that torchrun waits for ranks it has asked to end; a torchrun that is too old to know it does not mind."""

SECTIONS: Final = {"model": Model, "lora": Lora, "train": Train, "generation": Generation}
"""The sections that the trainer reads."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run, resolved."""

    run: Path
    seed: int
    model: Model
    lora: Lora = field(default_factory=Lora)
    train: Train
    generation: Generation = field(default_factory=Generation)
    resume: str
    """The shell command that continues it."""
    phase: str | None = None
    """Name of the phase that this is, of several; see trainer.phases."""
    is_last: bool = True
    """Whether no phase follows."""
    source: Path | None = None
    """Finished run whose packs are trained, where that is not `run`."""
    before: str | None = None
    """Digest of the phase before, from whose weights this one starts."""

    @property
    def data(self) -> Path:
        """Return the finished run whose packs are trained."""
        return self.source or self.run

    @property
    def train_home(self) -> Path:
        """Return the directory that holds everything the trainer writes, in all phases."""
        return self.run / "train"

    @property
    def home(self) -> Path:
        """Return the directory of this training's checkpoints and records."""
        return self.train_home if self.phase is None else self.train_home / "phases" / self.phase

    @property
    def results(self) -> Path:
        """Return the directory in which the trained model goes: that of the whole run, for the last phase."""
        return self.train_home if self.is_last else self.home


def read_job(config: Path, *, run: Path | None, overrides: Sequence[str], world_size: int) -> Job:
    """Return the job that `config` describes after `overrides`; `run` replaces the config's own run directory.

    Raises ConfigError for anything unknown, mistyped or contradictory, and for a model inside RUN/train. Of other rooms'
    sections only the names are looked at.
    """
    where = str(config)
    document = apply_overrides(read_toml(config), overrides)
    check_names(document, ["run", "seed", *SECTION_NAMES], where=where, sections=SECTIONS)
    named: str = _top(document, "run", str, where=where, default=f"runs/{config.stem}")
    directory = run or _directory(named, "run", where=where)
    seed = _top(document, "seed", int, where=where, default=0)
    if not 0 <= seed < 2**63:
        raise ConfigError(f"{where}: seed = {seed}: expected 0 to 2^63 - 1")
    _refuse_float16(document, where)
    model = decode_section(document, "model", Model, where=where)
    train = decode_section(document, "train", Train, where=where)
    for phase in train.phases:
        if phase.run is not None:
            _directory(phase.run, f"[[train.phases]] {phase.name!r}, run", where=where)
    # realpath, for resolve raises where links go round
    home = os.path.realpath(directory / "train")
    if model.path is not None and Path(
        os.path.realpath(_directory(model.path, "[model] path", where=where))
    ).is_relative_to(home):
        raise ConfigError(
            f"{where}: [model] path = {model.path!r} is inside {directory / 'train'}, which this very run writes and "
            "--fresh removes; copy the model elsewhere, or train in another run (--run)"
        )
    return Job(
        run=directory,
        seed=seed,
        model=model,
        lora=decode_section(document, "lora", Lora, where=where),
        train=train,
        generation=decode_section(document, "generation", Generation, where=where),
        resume=_command(config, run, overrides, world_size),
    )


def _top(document: dict[str, Any], key: str, kind: type, *, where: str, default: Any = None) -> Any:
    value = document.get(key, default)
    if value is None:
        raise ConfigError(f"{where}: {key} is missing; add `{key} = ...` at the top, or give --{key}")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{where}: {key} = {value!r}: expected {kind.__name__}")
    return value


def _directory(text: str, key: str, *, where: str) -> Path:
    """Return `text` as a path. Raises ConfigError for what is none: Path("") would be the directory one stands in."""
    if not text or "\0" in text:
        raise ConfigError(f"{where}: {key} = {text!r}: expected the path of a directory")
    return Path(text)


def _refuse_float16(document: dict[str, Any], where: str) -> None:
    train = document.get("train")
    if isinstance(train, dict) and train.get("dtype") in ("float16", "fp16", "half", "16-mixed"):
        raise ConfigError(
            f"{where}: [train] dtype = {train['dtype']!r}: gradients below 6e-8 become 0 and losses above 65,504 infinite in "
            "float16, so that they would have to be scaled by trial and error; bfloat16 has float32's range. Write bfloat16, or "
            "auto, which takes it where the hardware has it"
        )


def _command(config: Path, run: Path | None, overrides: Sequence[str], world_size: int) -> str:
    if typed := os.environ.get("CHATLOOM_RESUME"):  # by `chatloom train`, which knows what the person typed
        return typed
    words = [sys.executable]
    if world_size > 1:
        # ranks finish their step and save before they end; torchrun would kill them after 30 s
        words = ["env", f"{SHUTDOWN}=600", *words, "-m", "torch.distributed.run", *_placement(world_size)]
    words += ["-m", "trainer", str(config)]
    if run is not None:
        words += ["--run-dir", str(run)]
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)


def _placement(world_size: int) -> list[str]:
    """Return what tells torchrun where the ranks run, as far as a rank can know."""
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    if n_here == world_size:  # a port of its own, for there may be other trainers on this machine
        return ["--standalone", "--nproc-per-node", str(n_here)]
    n_nodes = os.environ.get("GROUP_WORLD_SIZE", "N")
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{os.environ.get('MASTER_ADDR', 'HOST')}:29400"]
    return ["--nnodes", n_nodes, "--nproc-per-node", str(n_here), *meeting]
