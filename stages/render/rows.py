"""The columns that rendering adds: from skeletons all at once, or row by row where a row has none."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas import fields as f
from schemas.reasons import DropReason
from stages import arrow
from stages.render.regions import CLASSES
from stages.render.skeleton import Skeleton
from stages.render.symbol import Slot
from stages.render.views import Views

Ints = NDArray[np.int64]


class Rows:
    """What is known of each row so far. `firsts` holds the number of each row's first message, in the frame's order."""

    def __init__(self, views: Views, firsts: Ints) -> None:
        self.views, self.firsts = views, firsts
        n_rows = len(firsts)
        self.skeleton_of = np.full(n_rows, -1, np.int64)
        self.skeletons: list[Skeleton] = []
        self._numbers: dict[int, int] = {}
        self.texts: dict[int, tuple[bytes, Sequence[tuple[int, int, int, int]]]] = {}
        self.notes: dict[int, Sequence[str]] = {}
        self.refusals: dict[int, tuple[DropReason, str]] = {}

    def follow(self, row: int, skeleton: Skeleton) -> None:
        """Let a row be written from a skeleton."""
        number = self._numbers.get(id(skeleton))
        if number is None:
            number = self._numbers[id(skeleton)] = len(self.skeletons)
            self.skeletons.append(skeleton)
        self.skeleton_of[row] = number
        self.refusals.pop(row, None)

    def add(self, row: int, text: bytes, spans: Sequence[tuple[int, int, int, int]], notes: Sequence[str]) -> None:
        """Give a row its text as UTF-8, spans (start, end, class, message) and notes."""
        self.skeleton_of[row] = -1
        self.texts[row] = text, spans
        if notes:
            self.notes[row] = notes

    def refuse(self, row: int, reason: DropReason, detail: str) -> None:
        """Leave a row without text."""
        self.skeleton_of[row] = -1
        self.refusals[row] = reason, detail

    def larger_than(self, sizes: NDArray[np.float64]) -> list[int]:
        """Return the rows of which a skeleton makes more characters than `sizes` allows."""
        if not self.skeletons:
            return []
        from stages.render.assemble_kernel import measure  # compiled code, loaded only where it runs

        table = _Table(self.skeletons, self.views)
        values = self.views.values()
        _, n_chars, _ = measure(self.skeleton_of, self.firsts, *table.shape, values.starts, values.ends, values.chars)
        return [int(row) for row in np.flatnonzero(n_chars > sizes)]

    def columns(self) -> list[pl.Series]:
        """Return text, spans, notes, detail and drop_reason."""
        from stages.render.assemble_kernel import measure, write

        table = _Table(self.skeletons, self.views)
        values = self.views.values()
        n_bytes, _, n_spans = measure(
            self.skeleton_of, self.firsts, *table.shape, values.starts, values.ends, values.chars
        )
        for row, (encoded, spans) in self.texts.items():
            n_bytes[row], n_spans[row] = len(encoded), len(spans)
        text_offsets, span_offsets = _offsets(n_bytes), _offsets(n_spans)
        text = np.empty(text_offsets[-1], np.uint8)
        starts, ends = np.empty(span_offsets[-1], np.int32), np.empty(span_offsets[-1], np.int32)
        part_of = np.zeros(span_offsets[-1], np.int64)
        write(
            self.skeleton_of, self.firsts, *table.shape, table.literals, *values,
            text_offsets, span_offsets, text, starts, ends, part_of,
        )  # fmt: skip
        classes, messages = table.classes[part_of], table.messages[part_of]
        for row, (encoded, spans) in self.texts.items():
            text[text_offsets[row] : text_offsets[row + 1]] = np.frombuffer(encoded, np.uint8)
            cut = slice(span_offsets[row], span_offsets[row + 1])
            starts[cut], ends[cut], classes[cut], messages[cut] = np.array(spans, np.int64).reshape(-1, 4).T
        is_null = np.zeros(len(self.firsts), np.bool_)
        is_null[list(self.refusals)] = True
        columns = {
            "text": _strings(text_offsets, text, is_null),
            "spans": self._spans(span_offsets, starts, ends, classes, messages, is_null),
            "notes": self._notes(),
            "detail": arrow.sparse_strings({row: detail for row, (_, detail) in self.refusals.items()}, len(is_null)),
            "drop_reason": arrow.sparse_strings(
                {row: reason.value for row, (reason, _) in self.refusals.items()}, len(is_null)
            ),
        }
        return [pl.Series(name, pl.from_arrow(column)) for name, column in columns.items()]

    def _spans(
        self,
        offsets: Ints,
        starts: NDArray[np.int32],
        ends: NDArray[np.int32],
        classes: Ints,
        messages: Ints,
        is_null: NDArray[np.bool_],
    ) -> pa.ListArray:
        roles, weights = self.views.messages["role"].to_arrow(), self.views.messages["weight"].to_arrow()
        firsts = np.repeat(self.firsts, np.diff(offsets))
        speakers = pa.array(np.where(messages < 0, len(roles), firsts + messages))
        spans = pa.StructArray.from_arrays(
            [
                pa.array(starts),
                pa.array(ends),
                pa.array(CLASSES).take(pa.array(classes)),
                pa.concat_arrays([roles.cast(pa.string()), pa.array([""])]).take(speakers),
                pa.array(messages.astype(np.int32)),
                pa.concat_arrays([weights, pa.nulls(1, pa.float32())]).take(speakers),
            ],
            fields=list(f.TEXT_SPAN),
        )
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), spans, mask=pa.array(is_null))

    def _notes(self) -> pa.ListArray:
        said = [skeleton.notes for skeleton in self.skeletons]
        if not self.notes and not any(said):
            return pa.ListArray.from_arrays(
                pa.array(np.zeros(len(self.firsts) + 1, np.int32)), pa.array([], pa.string())
            )
        said.append(())
        return pa.array(
            [self.notes.get(row, said[number]) for row, number in enumerate(self.skeleton_of.tolist())],
            pa.list_(pa.string()),
        )


class _Table:
    """Skeletons as flat arrays, for the kernels: see stages.render.assemble_kernel.measure."""

    def __init__(self, skeletons: Sequence[Skeleton], views: Views) -> None:
        n_messages = views.messages.height
        parts = [part for skeleton in skeletons for part in skeleton.parts]
        literals: dict[str, tuple[int, int, int]] = {}
        pieces: list[tuple[int, int, int, int]] = []
        at = 0
        for part in parts:
            for piece in part.pieces:
                if type(piece) is Slot:
                    pieces.append((views.number(piece.view) * n_messages + piece.message, 0, 0, 0))
                    continue
                assert isinstance(piece, str)
                if piece not in literals:
                    size = len(piece.encode())
                    literals[piece] = at, size, len(piece)
                    at += size
                pieces.append((-1, *literals[piece]))
        self.literals = np.frombuffer("".join(literals).encode(), np.uint8)
        self.classes = np.array([part.class_ for part in parts] or [0], np.int64)
        self.messages = np.array([part.message for part in parts] or [0], np.int64)
        self.shape = (
            _offsets([len(skeleton.parts) for skeleton in skeletons]),
            _offsets([len(part.pieces) for part in parts]),
            np.array(pieces, np.int64).reshape(-1, 4),
        )


def _offsets(lengths: Sequence[int] | Ints) -> Ints:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)


def _strings(offsets: Ints, data: NDArray[np.uint8], is_null: NDArray[np.bool_]) -> pa.StringArray:
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{offsets[-1]} bytes of text in one shard; lower [source] shard_bytes")
    is_valid = pa.array(~is_null).buffers()[1] if is_null.any() else None
    return pa.StringArray.from_buffers(
        len(is_null), pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data), is_valid
    )
