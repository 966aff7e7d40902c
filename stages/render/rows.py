"""The columns that rendering adds, gathered row by row."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from schemas import fields as f
from schemas.reasons import DropReason
from stages.render.regions import CLASSES, Boundaries, partition
from stages.render.traced import Span


class Rows:
    """Rows so far: four integers per span, from which whole Arrow columns are made at the end."""

    def __init__(self, boundaries: Boundaries, roles: Sequence[str], weights: Sequence[float | None]) -> None:
        self.boundaries = boundaries
        self.roles = roles
        self.weights = weights
        self.texts: list[str | None] = []
        self.details: list[str | None] = []
        self.notes: list[list[str]] = []
        self.reasons: list[str | None] = []
        self.n_spans: list[int] = []
        self.firsts: list[int] = []
        self.spans: list[tuple[int, int, int, int]] = []

    def refuse(self, reason: DropReason, detail: str) -> None:
        """Add a row without text."""
        self.texts.append(None)
        self.details.append(detail)
        self.notes.append([])
        self.reasons.append(str(reason))
        self.n_spans.append(0)
        self.firsts.append(0)

    def add(self, text: str, written: Sequence[Span], first: int, last: int) -> None:
        """Add a rendered row, whose messages are `first` to `last` (exclusive) of the frame's."""
        roles = self.roles[first:last]
        spans = partition(text, written, roles, self.boundaries)
        self.spans += spans
        self.texts.append(text)
        self.details.append(None)
        self.notes.append(_silent(roles, spans))
        self.reasons.append(None)
        self.n_spans.append(len(spans))
        self.firsts.append(first)

    def columns(self) -> list[pl.Series]:
        """Return text, spans, detail and drop_reason."""
        starts, ends, classes, messages = np.array(self.spans, np.int64).reshape(-1, 4).T
        firsts = np.repeat(np.array(self.firsts, np.int64), self.n_spans)
        speakers = pa.array(np.where(messages < 0, len(self.roles), firsts + messages))
        spans = pa.StructArray.from_arrays(
            [
                pa.array(starts.astype(np.int32)),
                pa.array(ends.astype(np.int32)),
                pa.array(CLASSES).take(pa.array(classes)),
                pa.array([*self.roles, ""], pa.string()).take(speakers),
                pa.array(messages.astype(np.int32)),
                pa.array([*self.weights, None], pa.float32()).take(speakers),
            ],
            fields=list(f.TEXT_SPAN),
        )
        offsets = np.concatenate(([0], np.cumsum(self.n_spans, dtype=np.int64))).astype(np.int32)
        texts = pa.array(self.texts, pa.string())
        columns = {
            "text": texts,
            "spans": pa.ListArray.from_arrays(pa.array(offsets), spans, mask=texts.is_null()),
            "notes": pa.array(self.notes, pa.list_(pa.string())),
            "detail": pa.array(self.details, pa.string()),
            "drop_reason": pa.array(self.reasons, pa.string()),
        }
        return [pl.Series(name, pl.from_arrow(column)) for name, column in columns.items()]


def _silent(roles: Sequence[str], spans: Sequence[tuple[int, int, int, int]]) -> list[str]:
    """Name the assistant's messages of which the template wrote nothing."""
    heard = {span[3] for span in spans}
    if len(heard) > len(roles):  # every message and the template itself
        return []
    return [f"message:{i} not written" for i, role in enumerate(roles) if role == "assistant" and i not in heard]
