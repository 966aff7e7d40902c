"""The columns that rendering adds, gathered row by row."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from schemas import fields as f
from schemas.reasons import DropReason
from stages.render.inputs import Message
from stages.render.regions import Boundaries, partition
from stages.render.traced import spans_of


class Rows:
    """Flat lists, which become Arrow arrays without a Python object per span."""

    def __init__(self, boundaries: Boundaries) -> None:
        self.boundaries = boundaries
        self.texts: list[str | None] = []
        self.details: list[str | None] = []
        self.reasons: list[str | None] = []
        self.offsets: list[int | None] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.classes: list[str] = []
        self.roles: list[str] = []
        self.messages: list[int] = []
        self.weights: list[float | None] = []

    def refuse(self, reason: DropReason, detail: str) -> None:
        """Add a row without text."""
        self.offsets.append(None)
        self.texts.append(None)
        self.details.append(detail)
        self.reasons.append(str(reason))

    def add(self, text: str, messages: Sequence[Message], weights: Sequence[float | None]) -> None:
        """Add a rendered row; `text` is traced."""
        roles = [message.role for message in messages]
        self.offsets.append(len(self.starts))
        for start, end, kind, message in partition(text, spans_of(text), roles, self.boundaries):
            self.starts.append(start)
            self.ends.append(end)
            self.classes.append(kind)
            self.messages.append(message)
            self.roles.append(roles[message] if message >= 0 else "")
            self.weights.append(weights[message] if message >= 0 else None)
        self.texts.append(text)
        self.details.append(_silent(text, roles))
        self.reasons.append(None)

    def columns(self) -> list[pl.Series]:
        """Return text, spans, detail and drop_reason."""
        spans = pa.StructArray.from_arrays(
            [
                pa.array(values, field.type)
                for values, field in zip(
                    (self.starts, self.ends, self.classes, self.roles, self.messages, self.weights),
                    f.TEXT_SPAN,
                    strict=True,
                )
            ],
            fields=list(f.TEXT_SPAN),
        )
        # a null offset marks a null list; the list before it then ends where the next one begins
        lists = pa.ListArray.from_arrays(pa.array([*self.offsets, len(self.starts)], pa.int32()), spans)
        columns = {
            "text": pa.array(self.texts, pa.string()),
            "spans": lists,
            "detail": pa.array(self.details, pa.string()),
            "drop_reason": pa.array(self.reasons, pa.string()),
        }
        return [pl.Series(name, pl.from_arrow(column)) for name, column in columns.items()]


def _silent(text: str, roles: list[str]) -> str | None:
    """Name the assistant's messages of which the template wrote nothing."""
    heard = {who >> 2 for _, _, who in spans_of(text)}
    silent = [str(index) for index, role in enumerate(roles) if role == "assistant" and index not in heard]
    return f"the template wrote nothing of assistant message {', '.join(silent)}" if silent else None
