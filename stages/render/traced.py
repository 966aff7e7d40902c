"""Strings that remember who wrote each of their characters, through the operations of a template."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final, SupportsIndex, TypeAlias

Span: TypeAlias = tuple[int, int, int]
"""First character, one past the last, and origin (see `origin`)."""

CONTENT: Final = 0
REASONING: Final = 1
TOOL_CALL: Final = 2
TOOL_RESULT: Final = 3
NO_MESSAGE: Final = -1
"""In the place of a message's index: text of the data that is no message's turn."""
TOOLS: Final = -2 << 2
"""Origin of the tool schemas."""


def origin(message: int, kind: int) -> int:
    """Return the one integer that names a message and the kind of its field: `message * 4 + kind`."""
    return message << 2 | kind


class Traced(str):
    """Carry spans through whatever keeps or moves characters; the text is always what plain `str` gives.

    Spans are ascending, disjoint and never empty; characters outside them are the template's. Operations that rewrite
    characters (upper, title, encode ...) are inherited from `str` and return plain text, which nobody trains on by
    accident. The attribute begins with an underscore, so a sandboxed template cannot see it.
    """

    __slots__ = ("_spans",)
    _spans: tuple[Span, ...]

    def __str__(self) -> str:
        # `str(x)` returns this very object, which is how a string passes through a template's output unharmed.
        return self

    def __add__(self, other: str) -> str:
        return NotImplemented if hasattr(other, "__html__") or not isinstance(other, str) else concat((self, other))

    def __radd__(self, other: str) -> str:
        return NotImplemented if hasattr(other, "__html__") or not isinstance(other, str) else concat((other, self))

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._cut(start, stop)
            return concat([self[at] for at in range(start, stop, step)])
        if not hasattr(key, "__index__") or not -len(self) <= key.__index__() < len(self):
            return str.__getitem__(self, key)  # raises what str raises
        at = key.__index__()
        at += len(self) if at < 0 else 0
        return self._cut(at, at + 1)

    def __iter__(self) -> Iterator[str]:
        return (self._cut(at, at + 1) for at in range(len(self)))

    def _cut(self, start: int, stop: int) -> str:
        """Return characters `start` to `stop`, both within the text."""
        if start <= 0 and stop >= len(self):
            return self
        if stop <= start:
            return ""
        spans = self._spans
        if len(spans) > 8:  # else every cut of a text of many pieces would look at all of them
            low = bisect_right(spans, start, key=itemgetter(1))
            spans = spans[low : bisect_left(spans, stop, low, key=itemgetter(0))]
        return traced(
            str.__getitem__(self, slice(start, stop)),
            tuple(
                (max(first, start) - start, min(last, stop) - start, who)
                for first, last, who in spans
                if first < stop and last > start
            ),
        )

    def strip(self, chars: str | None = None, /) -> str:
        """Strip as `str` does."""
        start = len(self) - len(str.lstrip(self, chars))
        return self._cut(start, max(start, len(str.rstrip(self, chars))))

    def lstrip(self, chars: str | None = None, /) -> str:
        """Strip the left side as `str` does."""
        return self._cut(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> str:
        """Strip the right side as `str` does."""
        return self._cut(0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str, /) -> str:
        """Remove a prefix as `str` does."""
        return self._cut(len(prefix), len(self)) if prefix and self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> str:
        """Remove a suffix as `str` does."""
        return self._cut(0, len(self) - len(suffix)) if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """Split as `str` does."""
        parts = str.split(self, sep, maxsplit)
        if sep is not None:
            return self._spaced(parts, len(sep))
        cuts, at = [], 0
        for part in parts:  # a part begins with a character that is no space, so the first find is the right one
            at = self.index(part, at)
            cuts.append(self._cut(at, at + len(part)))
            at += len(part)
        return cuts

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """Split from the right as `str` does."""
        parts = str.rsplit(self, sep, maxsplit)
        if sep is not None:
            return self._spaced(parts, len(sep))
        cuts, end = [], len(self)
        for part in reversed(parts):
            end = self.rindex(part, 0, end)
            cuts.append(self._cut(end, end + len(part)))
        return cuts[::-1]

    def splitlines(self, keepends: bool = False) -> list[str]:
        """Split at line ends as `str` does."""
        cuts, at = [], 0
        for whole, bare in zip(str.splitlines(self, True), str.splitlines(self), strict=True):
            cuts.append(self._cut(at, at + len(whole if keepends else bare)))
            at += len(whole)
        return cuts

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        """Cut in three at the first separator as `str` does."""
        return self._three(str.partition(self, sep))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        """Cut in three at the last separator as `str` does."""
        return self._three(str.rpartition(self, sep))

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        """Replace as `str` does: what stays keeps its origin, what comes brings its own."""
        return replace(self, old, new, count)

    def join(self, parts: Iterable[str], /) -> str:
        """Join as `str` does."""
        return join(self, parts)

    def ljust(self, width: SupportsIndex, fill: str = " ", /) -> str:
        """Pad on the right as `str` does."""
        return traced(str.ljust(self, width, fill), self._spans)

    def rjust(self, width: SupportsIndex, fill: str = " ", /) -> str:
        """Pad on the left as `str` does."""
        return concat((str.rjust(self, width, fill)[: max(0, width.__index__() - len(self))], self))

    def center(self, width: SupportsIndex, fill: str = " ", /) -> str:
        """Pad on both sides as `str` does."""
        padded = str.center(self, width, fill)
        extra = len(padded) - len(self)
        left = extra // 2 + (extra & width.__index__() & 1)
        return concat((padded[:left], self, padded[left + len(self) :])) if extra else self

    def _spaced(self, parts: list[str], gap: int) -> list[str]:
        """Return `parts`, which lie `gap` characters apart from the first character on, as cuts."""
        cuts, at = [], 0
        for part in parts:
            cuts.append(self._cut(at, at + len(part)))
            at += len(part) + gap
        return cuts

    def _three(self, parts: tuple[str, str, str]) -> tuple[str, str, str]:
        """Return three adjacent parts as cuts."""
        first, second = len(parts[0]), len(parts[0]) + len(parts[1])
        return self._cut(0, first), self._cut(first, second), self._cut(second, len(self))


def traced(text: str, spans: tuple[Span, ...]) -> str:
    """Return `text` with `spans`, or plain `text` where there are none."""
    if not spans:
        return text
    self = str.__new__(Traced, text)
    self._spans = spans
    return self


def whole(text: str, who: int) -> str:
    """Return `text` as written by one origin from first to last character."""
    return traced(text, ((0, len(text), who),)) if text else text


def spans_of(text: str) -> tuple[Span, ...]:
    """Return the spans of any string."""
    return text._spans if isinstance(text, Traced) else ()


def gather(pieces: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """Join pieces end to end; return the plain text and the shifted spans."""
    text = "".join(pieces)
    spans: list[Span] = []
    at = 0
    for piece in pieces:
        if type(piece) is Traced:
            if at:
                for first, last, who in piece._spans:
                    spans.append((first + at, last + at, who))  # mostly one: a list costs more
            else:
                spans += piece._spans
        at += len(piece)
    return text, tuple(spans)


def concat(pieces: Sequence[str]) -> str:
    """Join pieces end to end, shifting their spans."""
    return traced(*gather(pieces))


def join(separator: str, parts: Iterable[str], /) -> str:
    """Join `parts` with `separator`, either of which may be traced."""
    pieces: list[str] = []
    for part in parts:
        pieces += (separator, part)
    return concat(pieces[1:])


def replace(text: str, old: str, new: str, count: SupportsIndex = -1, /) -> str:
    """Replace in a text; `text`, `new`, both or none may be traced."""
    limit = count.__index__()
    if (type(text) is not Traced and type(new) is not Traced) or old not in text:
        return str.replace(text, old, new, limit) if old in text else text
    if old:
        parts: list[str] = text.split(old, limit)
    elif limit == 0:
        return text
    else:  # `new` goes before every character and after the last one
        parts = ["", *text, ""] if limit < 0 or limit > len(text) else ["", *text[: limit - 1], text[limit - 1 :]]
    return join(new, parts)
