"""The texts of a frame's messages, whole and stripped, as Python strings and as bytes."""

from functools import cached_property
from typing import Final, NamedTuple

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


class Values(NamedTuple):
    """Texts: value v is data[starts[v]:ends[v]], UTF-8 of chars[v] characters."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    chars: NDArray[np.int64]
    data: NDArray[np.uint8]


_NO_INTS: Final = np.empty(0, np.int64)
_NONE: Final = Values(_NO_INTS, _NO_INTS, _NO_INTS, np.empty(0, np.uint8))


class Views:
    """Columns of one frame's messages, each made when first asked for. View v of message m is value v * n_messages + m."""

    def __init__(self, messages: pl.DataFrame) -> None:
        self.messages = messages
        self.texts = _Texts(messages)
        """A view of every message, empty where a message lacks the field."""
        self._values = _ValuesOf(messages)
        self._numbers: dict[View, int] = {}

    def number(self, view: View) -> int:
        """Return the number by which the values of a view are known."""
        return self._numbers.setdefault(view, len(self._numbers))

    def values(self) -> Values:
        """Return all values of the views numbered so far."""
        views = [self._values[view] for view in self._numbers] or [_NONE]
        data: list[NDArray[np.uint8]] = []
        bases: dict[int, int] = {}
        for values in views:
            if id(values.data) not in bases:  # views of one field share its bytes
                bases[id(values.data)] = sum(map(len, data))
                data.append(values.data)
        return Values(
            np.concatenate([values.starts + bases[id(values.data)] for values in views]),
            np.concatenate([values.ends + bases[id(values.data)] for values in views]),
            np.concatenate([values.chars for values in views]),
            np.concatenate(data),
        )

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
    """Views as Python strings, for the questions of templates."""

    def __init__(self, messages: pl.DataFrame) -> None:
        super().__init__()
        self.messages = messages

    def __missing__(self, view: View) -> list[str]:
        if view.strips:
            self[view] = [view.of(text) for text in self[View(view.field)]]
        else:
            self[view] = self.messages[view.field].fill_null("").to_list()
        return self[view]


class _ValuesOf(dict[View, Values]):
    """Views as places in the field's own buffer: stripping moves edges and copies nothing."""

    def __init__(self, messages: pl.DataFrame) -> None:
        super().__init__()
        self.messages = messages

    def __missing__(self, view: View) -> Values:
        if view.strips:
            from stages.render.strip_kernel import strip  # compiled code, loaded only where it runs

            method, characters = view.strips[-1]
            spaces = np.array(sorted(map(ord, SPACES if characters is None else characters)), np.int32)
            values = self[View(view.field, view.strips[:-1])]
            starts, ends, chars = strip(*values, spaces, method != "rstrip", method != "lstrip")
            self[view] = Values(starts, ends, chars, values.data)
        else:
            column = self.messages[view.field]
            offsets, data = arrow.string_buffers(column)
            chars = column.str.len_chars().fill_null(0).to_numpy().astype(np.int64)
            self[view] = Values(offsets[:-1], offsets[1:], chars, data)
        return self[view]
