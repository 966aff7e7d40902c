"""metrics.jsonl and samples.jsonl: append-only while a run lives, cut back to the checkpoint when it resumes."""

from pathlib import Path
from typing import Any

import msgspec

from schemas.files import write_whole


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
    supervised_share: float | None = None
    """Share of the tokens since the line before that were trained."""
    mfu: float | None = None
    """Useful floating-point operations since the line before, over what the devices' peak in matrix products would have done
    in the same time. A GPU's peak in bfloat16 is that of its data sheet; any other is measured at the first line, in 0.05 s."""
    data_share: float | None = None
    """Share of the time since the line before in which rank 0 waited for packs to be read."""
    memory_bytes: int | None = None
    """Most memory in use at once so far: that of rank 0's GPU by tensors, or of rank 0's whole process on a CPU."""


def append(path: Path, record: msgspec.Struct | dict[str, Any]) -> None:
    """Add one JSON line, in a single write."""
    with path.open("ab", buffering=0) as stream:
        stream.write(msgspec.json.encode(record) + b"\n")


def read_metrics(path: Path) -> list[Metrics]:
    """Return the lines of `path` in order; none if it is not there. What a crash or a hand has spoilt is passed over."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    decoder = msgspec.json.Decoder(Metrics)
    try:
        return decoder.decode_lines(data)
    except msgspec.DecodeError:
        pass
    lines = []
    for line in data.splitlines():
        try:
            lines.append(decoder.decode(line))
        except msgspec.DecodeError:
            continue
    return lines


def cut_after(path: Path, step: int) -> None:
    """Remove every line whose step is later than `step`, and a line that a crash left unfinished."""
    if not path.exists():
        return
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            at = msgspec.json.decode(line)["step"]
        except (msgspec.DecodeError, KeyError, TypeError):
            continue
        if line.endswith(b"\n") and at <= step:
            kept.append(line)
    write_whole(path, b"".join(kept))
