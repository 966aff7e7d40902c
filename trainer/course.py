"""RUN/train/plan.json: which packs a training takes in which step, for those who look back at it.

Written at the start, read by `chatloom explain`. World size is not in it, for it decides nothing but who did the work.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from schemas.files import write_if_changed
from schemas.manifest import FileRecord
from schemas.models import Lora, Model
from schemas.settings import ConfigError
from schemas.training import Trainable
from trainer.data.packs import Packs, read_manifest, split_files
from trainer.data.stream import Integers, Order, epoch_order, step_packs
from trainer.errors import DataError, storing
from trainer.job import Job
from trainer.plan import Schedule

NAME: Final = "plan.json"
FORMAT: Final = 1


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a training's sequence of steps follows from."""

    format: int = FORMAT
    data: str | None = None
    """Finished run whose packs are trained; null: the one that this file lies in."""
    files: dict[str, str]
    """Shards of the training packs, in order, to their sha256."""
    n_packs: int
    seed: int
    order: Order
    batch: int
    per_epoch: int
    """Steps of an epoch."""
    n_steps: int
    """Steps in all."""
    hidden_size: int
    """By which the work of packs is weighed when they are dealt to ranks."""
    dtype: str
    """Arithmetic of matrix products."""
    model: Model
    lora: Lora
    trainable: Trainable | None
    """Settings, from which the model can be built again; which weights learn says which are in a checkpoint."""

    def epoch_of(self, step: int) -> tuple[int, int]:
        """Return (epoch, step in it), both from 0, of a step that is counted from 1 over the whole training.

        Raises ConfigError for a step that there is not.
        """
        if not 1 <= step <= self.n_steps:
            raise ConfigError(f"--step {step}: this training has steps 1 to {self.n_steps}")
        return divmod(step - 1, self.per_epoch)

    def order_of(self, packs: Packs, epoch: int) -> Integers:
        """Return the order in which `epoch` takes all packs."""
        return epoch_order(self.order, longest_of=packs.longest_of, seed=self.seed, epoch=epoch)

    def packs_of(self, packs: Packs, step: int) -> list[int]:
        """Return the packs of a step, counted from 1, in global order."""
        epoch, at = self.epoch_of(step)
        return step_packs(self.order_of(packs, epoch), at, self.batch)

    def steps_of(self, packs: Packs, pack: int) -> list[int]:
        """Return the steps, counted from 1, that take `pack`: one in each epoch that gets so far and does not leave it out."""
        found = []
        for epoch in range(-(-self.n_steps // self.per_epoch)):
            (at,) = (self.order_of(packs, epoch) == pack).nonzero()[0].tolist()
            if at // self.batch < self.per_epoch:
                found.append(epoch * self.per_epoch + at // self.batch + 1)
        return [step for step in found if step <= self.n_steps]


def write_plan(job: Job, schedule: Schedule, files: Sequence[FileRecord], *, hidden_size: int, dtype: str) -> Path:
    """Write what the steps of `job` follow from to its home; `files` are those of the training split.

    Its model must lie on this machine. Paths are written so that they are found from any working directory. To be called
    once it is known that training goes on from what lies there. Raises StorageError.
    """
    path = None if job.model.path is None else str(Path(job.model.path).absolute())
    course = Course(
        data=None if job.source is None else str(job.source.absolute()),
        files={file.path: file.sha256 for file in files},
        n_packs=schedule.n_packs,
        seed=job.seed,
        order=job.train.order,
        batch=job.train.batch,
        per_epoch=schedule.per_epoch,
        n_steps=schedule.total,
        hidden_size=hidden_size,
        dtype=dtype,
        model=msgspec.structs.replace(job.model, path=path),
        lora=job.lora,
        trainable=job.train.trainable,
    )
    target = job.home / NAME
    with storing(target):
        write_if_changed(target, msgspec.json.format(msgspec.json.encode(course)) + b"\n")
    return target


def read_plan(run: Path, phase: str | None) -> Course:
    """Return what a training of `run`, or that of its `phase`, wrote. Raises ConfigError when there is none."""
    home = run / "train"
    phases = sorted(path.parent.name for path in home.glob(f"phases/*/{NAME}"))
    if phases and phase is None:
        raise ConfigError(f"{run}: this training has phases; add --phase with one of {', '.join(phases)}")
    if phase is not None and phase not in phases:
        raise ConfigError(f"{run}: --phase {phase}: expected one of {', '.join(phases) or 'none: it has no phases'}")
    path = home / NAME if phase is None else home / "phases" / phase / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Course)
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found, so nothing was trained here yet; `chatloom train` writes it") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: not a plan of this version: {error}; train again, or restore it") from None


def open_packs(run: Path, course: Course) -> tuple[list[FileRecord], Packs]:
    """Return the shards and packs that `course` was made for. Raises DataError when they have changed since."""
    data = Path(course.data) if course.data else run
    files = split_files(read_manifest(data), "train")
    if changed := _differences(course.files, {file.path: file.sha256 for file in files}):
        raise DataError(
            f"{data / 'pack'}: the packs have changed since they were trained, so steps cannot be traced to them: "
            f"{'; '.join(changed)}. Build them again as they were (`chatloom data`), or train again"
        )
    return files, Packs(data / "pack", files)


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    lost, new = [path for path in expected if path not in found], [path for path in found if path not in expected]
    other = [path for path in expected if path in found and found[path] != expected[path]]
    kinds = (("other bytes in", other), ("gone", lost), ("new", new))
    return [f"{kind} {', '.join(paths[:3])}{' …' if len(paths) > 3 else ''}" for kind, paths in kinds if paths]
