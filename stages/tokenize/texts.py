"""What is to be encoded: texts and their spans as flat buffers, whole or cut where turns begin."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.spans import FROM_DATA, SpanClass
from stages import arrow

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts to encode, each on its own; spans of text i are [span_offsets[i], span_offsets[i + 1]) of the flat ones.

    `starts` and `ends` are characters of the text, `is_written` says that a message wrote the span, `starts_turn` that an
    assistant's turn begins with it: all before it is given, and from there on the model writes.
    """

    texts: list[str]
    offsets: Ints
    data: NDArray[np.uint8]
    span_offsets: Ints
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    is_written: Flags
    starts_turn: Flags

    def spans_of(self, i: int) -> slice:
        """Return where the spans of text i are."""
        return slice(int(self.span_offsets[i]), int(self.span_offsets[i + 1]))

    def take(self, rows: list[int]) -> "Texts":
        """Return some of the texts."""
        spans = np.concatenate([np.arange(self.span_offsets[i], self.span_offsets[i + 1]) for i in rows])
        lengths = [int(self.span_offsets[i + 1] - self.span_offsets[i]) for i in rows]
        return _texts(
            [self.texts[i] for i in rows],
            ends_of(lengths),
            self.starts[spans],
            self.ends[spans],
            self.is_written[spans],
            self.starts_turn[spans],
        )

    def cut(self) -> tuple["Texts", Ints]:
        """Return the texts cut at the beginning of each turn, and for each of them its first piece; at the end their number.

        The spans are the same and in the same order, but count characters from the beginning of their piece.
        """
        n_spans = np.diff(self.span_offsets)
        row_of_span = np.repeat(np.arange(len(self.texts)), n_spans)
        is_first = np.zeros(len(self.starts), np.bool_)
        is_first[self.span_offsets[:-1][n_spans > 0]] = True
        begins = is_first | (self.starts_turn & (self.starts > 0))
        first_spans = np.flatnonzero(begins)
        rows = row_of_span[first_spans]
        edges = self.starts[first_spans]
        pieces: list[str] = []
        n_pieces = np.maximum(np.bincount(rows, minlength=len(self.texts)), 1)  # a text without spans is one piece
        piece_spans: list[int] = []
        at = 0
        for row, n in enumerate(n_pieces.tolist()):
            text = self.texts[row]
            if n_spans[row] == 0:
                pieces.append(text)
                piece_spans.append(0)
                continue
            ends = [*edges[at + 1 : at + n], len(text)]
            pieces += [text[edge:end] for edge, end in zip(edges[at : at + n], ends, strict=True)]
            piece_spans += np.diff([*first_spans[at : at + n], self.span_offsets[row + 1]]).tolist()
            at += n
        shift = np.repeat(edges, np.diff([*first_spans, len(self.starts)])) if len(edges) else edges
        cut = _texts(
            pieces,
            ends_of(piece_spans),
            self.starts - shift,
            self.ends - shift,
            self.is_written,
            self.starts_turn,
        )
        return cut, np.concatenate(([0], np.cumsum(n_pieces)))


def texts_of(frame: pl.DataFrame) -> Texts:
    """Return what is to be encoded of a RENDERED frame."""
    spans = frame["spans"].explode(empty_as_null=False).struct.unnest()
    span_offsets = ends_of(frame["spans"].list.len().to_list())
    classes = spans["class"]
    is_written = classes.is_in([str(name) for name in FROM_DATA]).to_numpy()
    is_turn = ((spans["role"] == "assistant") & (classes != SpanClass.GENERATION_PROMPT.value)).to_numpy()
    messages = spans["message"].to_numpy()
    goes_on = np.zeros(len(is_turn), np.bool_)
    goes_on[1:] = is_turn[:-1] & (messages[1:] == messages[:-1])
    is_first = np.zeros(len(is_turn) + 1, np.bool_)
    is_first[span_offsets[:-1]] = True
    text_offsets, data = arrow.string_buffers(frame["text"])
    return Texts(
        texts=frame["text"].to_list(),
        offsets=text_offsets,
        data=data,
        span_offsets=span_offsets,
        starts=spans["start"].to_numpy(),
        ends=spans["end"].to_numpy(),
        is_written=is_written,
        starts_turn=is_turn & (~goes_on | is_first[:-1]),
    )


def _texts(
    texts: list[str],
    span_offsets: Ints,
    starts: NDArray[np.int32],
    ends: NDArray[np.int32],
    is_written: Flags,
    starts_turn: Flags,
) -> Texts:
    encoded = [text.encode() for text in texts]
    return Texts(
        texts=texts,
        offsets=ends_of([len(text) for text in encoded]),
        data=np.frombuffer(b"".join(encoded), np.uint8),
        span_offsets=span_offsets,
        starts=starts,
        ends=ends,
        is_written=is_written,
        starts_turn=starts_turn,
    )


def ends_of(lengths: list[int]) -> Ints:
    """Return the offsets of adjacent stretches of these lengths: 0, and where each one ends."""
    return np.cumsum([0, *lengths], dtype=np.int64)
