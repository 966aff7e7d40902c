"""metrics.jsonl and samples.jsonl: append-only while a run lives, cut back to the checkpoint when it resumes."""

from pathlib import Path
from typing import Any

import msgspec

from schemas.files import write_whole


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """One line of metrics.jsonl: a step that was logged or evaluated; step 0 is the model before training."""

    step: int
    epoch: int
    loss: float | None
    """Weighted mean cross-entropy over the trained tokens since the line before."""
    lr: float | None
    grad_norm: float | None
    """Norm of the step's gradient before clipping."""
    tokens: int
    """Tokens read since the beginning, over all ranks."""
    supervised: int
    """Those among them that were trained."""
    tokens_per_s: float | None
    val_loss: float | None
    seconds: float
    """Training time since the beginning, without sampling and export."""


def append(path: Path, record: msgspec.Struct | dict[str, Any]) -> None:
    """Add one JSON line, in a single write."""
    with path.open("ab", buffering=0) as stream:
        stream.write(msgspec.json.encode(record) + b"\n")


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
