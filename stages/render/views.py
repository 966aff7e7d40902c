"""The texts of a frame's messages, whole and stripped, as Python strings and as bytes."""

from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages import arrow
from stages.render.symbol import Field, View

ROLES: Final = ("system", "user", "assistant", "tool")
"""Roles with a code; a message with reasoning has the code of its role plus their number."""
ODD: Final = 255
"""Code of a message that needs its real text: calls, names, another role, or nothing but white space."""
SPACES: Final = "".join(character for character in map(chr, range(0x110000)) if character.isspace())
"""What `str.strip` strips."""


def role_of(code: int) -> str:
    """Return the role of a message with this code."""
    return ROLES[code % len(ROLES)]


def fields_of(code: int) -> tuple[Field, ...]:
    """Return the fields of a message with this code."""
    return ("content", "reasoning") if code >= len(ROLES) else ("content",)


class Views:
    """Columns of one frame's messages, each made when first asked for. View v of message m is value v * n_messages + m."""

    def __init__(self, messages: pl.DataFrame) -> None:
        self.messages = messages
        self.texts = _Texts(messages)
        """A view of every message, empty where a message lacks the field."""
        self._numbers: dict[View, int] = {}

    def number(self, view: View) -> int:
        """Return the number by which the values of a view are known."""
        return self._numbers.setdefault(view, len(self._numbers))

    def values(self) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
        """Return (offsets, bytes, characters) of all values of the views numbered so far."""
        offsets, data, chars = [np.zeros(1, np.int64)], [], []
        end = 0
        for view in self._numbers:
            is_whole = not view.strips
            column = self.messages[view.field] if is_whole else pl.Series(self.texts[view], dtype=pl.String)
            ends, text = arrow.string_buffers(column)
            offsets.append(ends[1:] - ends[0] + end)
            data.append(text[ends[0] : ends[-1]])
            chars.append(column.str.len_chars().fill_null(0).to_numpy().astype(np.int64))
            end += int(ends[-1] - ends[0])
        if not data:
            return offsets[0], np.empty(0, np.uint8), np.empty(0, np.int64)
        return np.concatenate(offsets), np.concatenate(data), np.concatenate(chars)

    @cached_property
    def forms(self) -> NDArray[np.uint8]:
        """Return what of each message decides how it is rendered, in one byte (see `role_of`, `fields_of`), or ODD."""
        role, content, reasoning = (pl.col(name) for name in ("role", "content", "reasoning"))
        is_odd = content.fill_null("").str.strip_chars(SPACES) == ""
        is_odd |= reasoning.is_not_null() & (reasoning.fill_null("").str.strip_chars(SPACES) == "")
        for name in ("tool_calls", "tool_call_id", "name"):
            is_odd |= pl.col(name).is_not_null()
        code = pl.lit(ODD)
        for number, name in enumerate(ROLES):
            code = pl.when(role == name).then(number + len(ROLES) * reasoning.is_not_null()).otherwise(code)
        return self.messages.select(pl.when(is_odd).then(ODD).otherwise(code).cast(pl.UInt8)).to_series().to_numpy()


class _Texts(dict[View, list[str]]):
    def __init__(self, messages: pl.DataFrame) -> None:
        super().__init__()
        self.messages = messages

    def __missing__(self, view: View) -> list[str]:
        if view.strips:
            self[view] = [view.of(text) for text in self[View(view.field)]]
        else:
            self[view] = self.messages[view.field].fill_null("").to_list()
        return self[view]
