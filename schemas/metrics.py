"""A line of RUN/train/metrics.jsonl: what the trainer writes, and docs/metrics.md explains."""

import msgspec


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """One line of metrics.jsonl: a step that was logged or evaluated; step 0 is the model before training."""

    step: int
    """Steps done."""
    epoch: int
    """Epoch of the step, from 0."""
    loss: float | None
    """Weighted mean cross-entropy over the trained tokens since the line before."""
    lr: float | None
    """Learning rate of the step."""
    grad_norm: float | None
    """Norm of the step's gradient before clipping."""
    tokens: int
    """Tokens read since the beginning, over all ranks."""
    supervised: int
    """Those among them that were trained."""
    tokens_per_s: float | None
    """Tokens per second of training since the line before, over all ranks."""
    val_loss: float | None
    """Weighted mean cross-entropy over all trained tokens of the validation split, where it was measured."""
    seconds: float
    """Training time since the beginning, without evaluation, sampling and export."""
    phase: str | None = None
    """Name of the phase, in a run that has phases."""
    perplexity: float | None = None
    """exp(val_loss)."""
    val_loss_by_source: dict[str, float] | None = None
    """Validation loss of each source's conversations; the smallest of many sources are together under "other"."""
    val_loss_by_tag: dict[str, float] | None = None
    """Validation loss of the conversations with each tag of the kind [train] eval_tag; of those without one under "other"."""
    supervised_share: float | None = None
    """Share of the tokens since the line before that were trained."""
    mfu: float | None = None
    """Useful floating-point operations since the line before, over what the devices' peak in matrix products would have done
    in the same time. A GPU's peak in bfloat16 is that of its data sheet; any other is measured at the first line, in 0.05 s."""
    data_share: float | None = None
    """Share of the time since the line before in which rank 0 waited for packs to be read."""
    memory_bytes: int | None = None
    """Most memory in use at once so far: that of rank 0's GPU by tensors, or of rank 0's whole process on a CPU."""
