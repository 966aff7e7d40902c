"""How many steps there are, and what identifies the sequence of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from schemas.manifest import FileRecord
from schemas.settings import ConfigError
from schemas.training import Train
from trainer.data.stream import steps_per_epoch
from trainer.job import Job
from trainer.model.architecture import Architecture
from trainer.optim import warmup_steps

DECISIVE: Final = (
    "batch",
    "order",
    "drop_last",
    "trainable",
    "groups",
    "loss_mean",
    "z_loss",
    "dropout",
    "lr",
    "schedule",
    "weight_decay",
    "beta1",
    "beta2",
    "eps",
    "clip",
)
"""Keys of [train] that change the weights, taken as they stand; the others that do are resolved first."""

FROZEN: Final = "weights that do not learn"
"""Key of their fingerprint, which only those know who have read them."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length of a run in steps."""

    n_packs: int
    batch: int
    per_epoch: int
    """Steps of an epoch; the last may be short."""
    total: int

    @property
    def left_out(self) -> int:
        """Return how many packs each epoch leaves out, because they do not fill a step."""
        return max(0, self.n_packs - self.per_epoch * self.batch)

    @property
    def epochs(self) -> float:
        """Return the passes over the data that all steps make."""
        return self.total / self.per_epoch


def make_schedule(n_packs: int, train: Train) -> Schedule:
    """Return the schedule of `train` over `n_packs` packs, which must be more than 0.

    Raises ConfigError when the warm-up would leave no step at full learning rate, and when no step would be full.
    """
    per_epoch = steps_per_epoch(n_packs, train.batch, drop_last=train.drop_last)
    if per_epoch == 0:
        raise ConfigError(
            f"[train] drop_last = true leaves out everything: {n_packs} packs do not fill a step of batch = {train.batch}; "
            "lower batch, or drop drop_last"
        )
    total = train.steps if train.steps is not None else (train.epochs or 1) * per_epoch
    if (n_warmup := warmup_steps(total, train)) >= total:
        given = (
            f"warmup_ratio = {train.warmup_ratio}" if train.warmup_ratio is not None else f"warmup_steps = {n_warmup}"
        )
        raise ConfigError(
            f"[train] {given}: the warm-up would last {n_warmup} of {total} steps, expected fewer than all; lower it "
            "or train more steps"
        )
    return Schedule(n_packs=n_packs, batch=train.batch, per_epoch=per_epoch, total=total)


def identity(
    job: Job,
    schedule: Schedule,
    files: Mapping[str, Sequence[FileRecord]],
    architecture: Architecture,
    dtype: str,
    *,
    frozen: str = "",
) -> dict[str, Any]:
    """Return everything that determines which steps follow each other and what they do to the weights.

    `files` are those of each split; `dtype` is the resolved one, `frozen` the fingerprint of weights that do not learn.
    World size and micro-batch are absent: they change rounding only. So is the number of steps where no learning rate
    depends on it: such a run may be made longer.
    """
    train = msgspec.to_builtins(job.train)
    found: dict[str, Any] = {"seed": job.seed, "train.dtype": dtype} | {
        f"train.{name}": train[name] for name in DECISIVE
    }
    if job.lora.rank:
        lora = msgspec.to_builtins(job.lora)
        found |= {f"lora.{name}": value for name, value in lora.items() if name != "merge"}
    if job.before is not None:
        found["phase before"] = job.before
    found["warm-up steps"] = warmup_steps(schedule.total, job.train)
    if job.train.schedule != "constant":
        found |= {"steps": schedule.total, "train.min_lr_ratio": job.train.min_lr_ratio}
    for split, records in files.items():
        text = "\n".join(file.sha256 for file in records)
        found[f"{split} shards (sha256)"] = hashlib.sha256(text.encode()).hexdigest()
    if frozen:
        found[FROZEN] = frozen
    found |= {f"model.{name}": value for name, value in msgspec.to_builtins(architecture).items()}
    # through JSON, so that what is compared is what a checkpoint can hold (inf, for one, becomes null there)
    plan: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plan
