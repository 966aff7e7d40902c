"""How many steps there are, and what identifies the sequence of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from schemas.manifest import FileRecord
from schemas.training import Train
from trainer.job import Job
from trainer.stream import steps_per_epoch

DECISIVE: Final = (
    "batch",
    "lr",
    "min_lr_ratio",
    "schedule",
    "warmup_steps",
    "warmup_ratio",
    "weight_decay",
    "beta1",
    "beta2",
    "eps",
    "clip",
    "dtype",
)
"""Keys of [train] that change the weights; the others change only memory, speed or what is shown."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length of a run in steps."""

    n_packs: int
    per_epoch: int
    """Steps of an epoch; the last may be short."""
    total: int

    @property
    def epochs(self) -> float:
        """Return the passes over the data that all steps make."""
        return self.total / self.per_epoch


def make_schedule(n_packs: int, train: Train) -> Schedule:
    """Return the schedule of `train` over `n_packs` packs, which must be more than 0."""
    per_epoch = steps_per_epoch(n_packs, train.batch)
    total = train.steps if train.steps is not None else (train.epochs or 1) * per_epoch
    return Schedule(n_packs=n_packs, per_epoch=per_epoch, total=total)


def identity(job: Job, schedule: Schedule, files: Sequence[FileRecord]) -> dict[str, Any]:
    """Return everything that determines which steps follow each other and what they do to the weights.

    World size and micro-batch are absent: they change rounding only.
    """
    data = hashlib.sha256("\n".join(file.sha256 for file in files).encode()).hexdigest()
    model = {f"model.{name}": value for name, value in msgspec.to_builtins(job.model).items()}
    train = msgspec.to_builtins(job.train)
    decisive = {f"train.{name}": train[name] for name in DECISIVE}
    found = {"training shards (sha256)": data, "seed": job.seed, "steps": schedule.total} | model | decisive
    # through JSON, so that what is compared is what a checkpoint can hold (inf, for one, becomes null there)
    plan: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plan
