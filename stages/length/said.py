"""The messages of a shard side by side, each with the row it is of."""

from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.arrow import string_buffers
from stages.length.scripts import classes

I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

EVERYBODY: Final = "*"


class Said:
    """What is said in the rows of a frame. Nothing is measured before it is asked for."""

    def __init__(self, frame: pl.DataFrame) -> None:
        sizes = frame["messages"].list.len().fill_null(0).to_numpy()
        flat = frame["messages"].explode(empty_as_null=False, keep_nulls=False).struct
        self.n_rows = frame.height
        self.n_messages = int(sizes.sum())
        self._bounds: I64 = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        self.role, self._content, self._calls = flat.field("role"), flat.field("content"), flat.field("tool_calls")

    @cached_property
    def row(self) -> I64:
        """The row of each message."""
        return np.repeat(np.arange(self.n_rows), np.diff(self._bounds))

    @cached_property
    def index(self) -> I64:
        """The place of each message in its conversation."""
        return np.arange(self.n_messages) - np.repeat(self._bounds[:-1], np.diff(self._bounds))

    @cached_property
    def n_turns(self) -> I64:
        """Messages of the assistant in each row."""
        return self.per_row(self.by("assistant"))

    @cached_property
    def has_text(self) -> Bools:
        """Which messages say something in words, be it nothing: all but those of tool calls alone."""
        is_empty = (self._content == "").fill_null(value=True)
        return ~(is_empty & self._calls.is_not_null()).to_numpy()

    @cached_property
    def n_chars(self) -> I64:
        """Characters of each message's content."""
        return self._content.str.len_chars().fill_null(0).to_numpy().astype(np.int64)

    @cached_property
    def n_bytes(self) -> I64:
        """Bytes of each message's content."""
        return self._content.str.len_bytes().fill_null(0).to_numpy().astype(np.int64)

    def by(self, role: str) -> Bools:
        """Return which messages are of a role."""
        if role == EVERYBODY:
            return np.ones(self.n_messages, np.bool_)
        return (self.role == role).to_numpy()

    def per_row(self, values: NDArray[np.integer] | Bools) -> I64:
        """Return the sum, of each row, of a number that each message has."""
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
        return np.diff(ends[self._bounds])

    def contains(self, pattern: str, of: Bools) -> Bools:
        """Return which of the messages `of` have what a regular expression matches."""
        found = np.zeros(self.n_messages, np.bool_)
        found[of] = self._content.filter(pl.Series(of)).str.contains(pattern).fill_null(value=False).to_numpy()
        return found

    def matches(self, pattern: str, at: I64) -> list[str]:
        """Return what a regular expression first matches in the messages at these places."""
        return self._content.gather(at).str.extract(f"({pattern})", 1).fill_null("").to_list()

    def watch(self, of: Bools) -> None:
        """Ask for what the messages `of` are made of, all at once."""
        from stages.length.text_kernel import count_classes

        kinds = classes()
        ends, data = self._texts
        self.counts, self.longest = count_classes(ends, data, of, kinds.of, kinds.blank)

    def lines(self, of: Bools) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return (lines, lines that repeat one before) of the messages `of`."""
        from stages.length.text_kernel import count_lines

        n_lines, n_repeated = count_lines(*self._texts, of)
        return n_lines, n_repeated

    @cached_property
    def _texts(self) -> tuple[I64, NDArray[np.uint8]]:
        return string_buffers(self._content.fill_null(""))
