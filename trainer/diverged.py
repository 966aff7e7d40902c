"""When a loss or gradient is no number: which conversations it came from, on disk and in one sentence."""

import contextlib
import math
import shlex
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
import torch

from schemas.files import write_whole
from trainer.data.means import documents_of
from trainer.data.packs import Packs
from trainer.errors import Diverged
from trainer.job import Job
from trainer.model.decoder import Batch, Decoder
from trainer.step import Precision, Read
from trainer.world import World

NAMED_IDS: Final = 20
"""Conversations that the error names; the rest are counted, and are in the file."""


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A pack of the step, alone in a pass of its own. null in place of a number: it is not finite."""

    pack: int
    ids: list[str]
    losses: list[float | None]
    """Summed weighted cross-entropy of each conversation."""
    grad_norm: float | None
    """Norm of what this pack adds to the gradient."""

    @property
    def culprits(self) -> list[str]:
        """Return the ids of the conversations whose loss is not finite."""
        return [name for name, loss in zip(self.ids, self.losses, strict=True) if loss is None]


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """RUN/train/diverged.json: the step that was not made, found with the weights before it."""

    step: int
    """As `chatloom explain RUN --step` counts: the first is 1."""
    epoch: int
    lr: float
    grad_norm: float | None
    """Norm of the whole step's gradient; null: not finite."""
    what: str
    """loss, gradient (of packs whose losses are finite), or sum (each pack's gradient is finite)."""
    culprits: list[str]
    """Ids of the conversations that it came from; all those of a pack where no smaller part is known."""
    packs: list[Suspect]
    """All of the step, in global order."""


def diverged(
    job: Job,
    world: World,
    packs: Packs,
    model: Decoder,
    read: Read,
    precision: Precision,
    *,
    chosen: Sequence[int],
    hand: Sequence[int],
    step: int,
    epoch: int,
    lr: float,
    grad_norm: float,
    scale: float,
    z_loss: float = 0.0,
) -> Diverged:
    """Return the error that ends a training whose step `step`, counted from 1, has a gradient that is not finite.

    Every rank must call it, with the packs of its own `hand` among those `chosen` for the step: each is passed through
    the unwrapped `model` alone, forward and backward, so that micro-batches and ranks do not blur whose fault it is.
    RUN/train/diverged.json then has all of it. `read` is called for one pack at a time, once more than training has read
    it. Gradients are freed.
    """
    model.zero_grad(set_to_none=True)
    own = world.together(
        lambda: [_suspect(packs, model, read, precision, pack, scale=scale, z_loss=z_loss) for pack in hand]
    )
    place = {pack: i for i, pack in enumerate(chosen)}
    found = sorted((one for of_rank in world.gather(own) for one in of_rank), key=lambda one: place[one.pack])
    what, culprits = _verdict(found)
    record = Divergence(
        step=step,
        epoch=epoch,
        lr=lr,
        grad_norm=_finite(grad_norm),
        what=what,
        culprits=culprits,
        packs=found,
    )
    path = job.home / "diverged.json"
    if world.is_first:
        with contextlib.suppress(OSError):  # a full disk must not take the place of what is said here
            write_whole(path, msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    rest = f" and {len(culprits) - NAMED_IDS} more" if len(culprits) > NAMED_IDS else ""
    said = {
        "loss": "the loss is not finite on",
        "gradient": "the losses are finite, but the gradient is not, on",
        "sum": "losses and gradients are finite, but the norm of all of them is not; the largest gradient is that of",
    }[what]
    return Diverged(
        f"step {step} (epoch {epoch}, lr {lr:.3g}): {said} {', '.join(culprits[:NAMED_IDS])}{rest}. The weights were not "
        f"changed by this step. Lower [train] lr, lengthen the warm-up, or look at these conversations: "
        f"`{explain_command(job, step)}` shows all of the step, {path} has the numbers"
    )


def explain_command(job: Job, step: int) -> str:
    """Return the command that shows a step's conversations and their losses."""
    phase = [] if job.phase is None else ["--phase", job.phase]
    return shlex.join(["chatloom", "explain", str(job.run), "--step", str(step), *phase, "--loss"])


def _suspect(
    packs: Packs, model: Decoder, read: Read, precision: Precision, pack: int, *, scale: float, z_loss: float
) -> Suspect:
    batch, ids = read([pack]), packs.ids([pack])  # a batch may have padding behind its conversations
    return Suspect(
        pack=pack,
        ids=ids,
        losses=[_finite(loss) for loss in _losses(model, batch, precision)[: len(ids)]],
        grad_norm=_finite(_gradient_norm(model, batch, precision, scale=scale, z_loss=z_loss)),
    )


def _losses(model: Decoder, batch: Batch, precision: Precision) -> list[float]:
    # as the step had it, what dropout leaves out included
    with precision.autocast():
        losses_S = model.row_losses(batch.to(precision.device)).double().cpu().numpy()
    weighted_S = batch.weights_S.double().numpy() * losses_S
    sums: list[float] = np.bincount(documents_of(batch).numpy(), weighted_S, minlength=len(batch.lengths)).tolist()
    return sums


def _gradient_norm(model: Decoder, batch: Batch, precision: Precision, *, scale: float, z_loss: float) -> float:
    """Return the norm of a batch's gradient, in float64. Nothing is added to `grad`, and no rank is waited for."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with precision.autocast():
        objective = model(batch.to(precision.device), z_loss).objective * scale
    gradients = torch.autograd.grad(objective, learning, allow_unused=True)
    squares = [gradient.double().square().sum() for gradient in gradients if gradient is not None]
    return math.sqrt(float(torch.stack(squares).sum())) if squares else 0.0


def _verdict(found: Iterable[Suspect]) -> tuple[str, list[str]]:
    """Return what is not finite, and the conversations it came from."""
    suspects = list(found)
    if of_losses := [name for one in suspects for name in one.culprits]:
        return "loss", of_losses
    if of_gradients := [name for one in suspects if one.grad_norm is None for name in one.ids]:
        return "gradient", of_gradients
    return "sum", max(suspects, key=lambda one: one.grad_norm or 0.0).ids


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
