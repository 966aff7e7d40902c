"""The records of a text table (CSV, TSV), cut and read by one walk, so that both agree on where each begins and ends.

A record ends with its line, but for line ends in quotes (RFC 4180). Where a quote is not closed, or something follows a closing
one, the line on which the record began is broken, and the walk goes on with the line after it.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from pipeline.source.cutting import BLOCK
from pipeline.source.dialect import Dialect
from schemas.reasons import DropReason

_MISQUOTED: Final = (
    "something follows a closing quote: expected the delimiter or the end of the line; double a quote inside quotes"
)
_UNCLOSED: Final = "a quote that is opened on this line is not closed where a field ends"


class Record(NamedTuple):
    """A record, or what follows of one too long to be held."""

    raw: bytes
    """With its line end."""
    fault: str | None
    """What is wrong with it, as schemas.fields.SKIP has it."""
    is_border: bool
    """Whether the file may be cut after it: nothing beyond was looked at to find where it ends."""
    is_rest: bool = False
    """`raw` belongs to the record before."""


class Walk:
    """The records of a table whose bytes `read` gives, in order; all of them together are all bytes that were read.

    `cap` bounds what one record may hold. A record that goes beyond is given up to the cap, and the rest of it in pieces.
    """

    def __init__(self, read: Callable[[int], bytes], dialect: Dialect, cap: int) -> None:
        self._read, self._dialect, self._cap = read, dialect, cap
        self._buffer = b""
        self._at = 0
        self._examined = 0
        self._is_end = False

    def __iter__(self) -> Iterator[Record]:
        """Yield the records; a record in doubt is held back until it is settled."""
        doubted: list[Record] = []
        size = 0
        for record in self._records():
            if record.is_rest:
                yield record
                continue
            if not doubted:
                if record.fault is None or not self._dialect.quote or record.fault.startswith(DropReason.LINE_TOO_LONG):
                    yield record
                else:
                    doubted, size = [record], len(record.raw)
                continue
            size += len(record.raw)
            if record.fault is None and self._closes(record.raw):
                # the line closes what was opened on the broken one: all between are lines of one cell
                raw = b"".join(each.raw for each in (*doubted, record))
                yield Record(raw, doubted[0].fault, record.is_border)
                doubted = []
            elif record.fault is not None or size > self._cap or self._opens(record.raw):
                yield from self._released(doubted)
                doubted, size = ([record], len(record.raw)) if self._is_broken(record) else ([], 0)
                if not doubted:
                    yield record
            else:
                doubted.append(record)
        yield from self._released(doubted)

    def _is_broken(self, record: Record) -> bool:
        return record.fault is not None and not record.fault.startswith(DropReason.LINE_TOO_LONG)

    def _released(self, doubted: list[Record]) -> Iterator[Record]:
        for record in doubted:
            yield record._replace(is_border=False)

    def _closes(self, raw: bytes) -> bool:
        return self._dialect.closing.search(raw) is not None and not self._opens(raw)

    def _opens(self, raw: bytes) -> bool:
        return self._dialect.opening.search(raw) is not None

    def _records(self) -> Iterator[Record]:
        while True:
            if self._at == len(self._buffer) and not self._more():
                return
            yield from self._next()

    def _more(self) -> bool:
        """Read on, twice as much as is held of the record, and drop what is behind; tell whether there was more."""
        held = self._buffer[self._at :]
        block = b"" if self._is_end else self._read(max(BLOCK, min(len(held), self._cap)))
        self._is_end = self._is_end or not block
        self._buffer = held + block
        self._examined -= self._at
        self._at = 0
        return bool(block)

    def _next(self) -> Iterator[Record]:
        if not self._dialect.quote:
            yield from self._line()
            return
        while True:
            start, length = self._at, len(self._buffer)
            limit = min(length, start + self._cap + 2)  # the end of a line does not count
            match = self._dialect.record.match(self._buffer, start, limit)
            if match is not None and (
                match.end() < limit or self._buffer[limit - 1] == 0x0A or (limit == length and self._is_end)
            ):
                yield self._taken(match.end(), None)
                return
            is_open = match is None and self._dialect.opened.match(self._buffer, start, limit) is not None
            if (match is not None or is_open) and limit == length and not self._is_end:
                self._more()
                continue
            if match is not None or (is_open and limit < length):
                yield from self._beyond(start, limit, is_open=is_open)
                return
            end = self._buffer.find(b"\n", start, limit) + 1
            if not end and limit == length and not self._is_end:
                self._more()
                continue
            if not end and limit < length:
                yield from self._beyond(start, limit, is_open=False)
                return
            reach = limit if is_open else self._misquoted(start, limit)
            self._examined = max(self._examined, reach)
            found = _MISQUOTED if reach <= (end or length) else _UNCLOSED
            yield self._taken(end or length, f"{DropReason.BAD_SHAPE}: {found}")
            return

    def _misquoted(self, start: int, limit: int) -> int:
        """Return how far one has to read to see that the record is misquoted."""
        match = self._dialect.prefix.match(self._buffer, start, limit)
        return start if match is None else min(limit, match.end() + 2)

    def _line(self) -> Iterator[Record]:
        """Yield the next record of a table without quotes: a line."""
        while True:
            start, length = self._at, len(self._buffer)
            limit = min(length, start + self._cap + 2)
            end = self._buffer.find(b"\n", start, limit) + 1
            if end or (limit == length and self._is_end):
                yield self._taken(end or length, None)
                return
            if limit < length:
                yield from self._beyond(start, limit, is_open=False)
                return
            self._more()

    def _taken(self, end: int, fault: str | None) -> Record:
        raw = self._buffer[self._at : end]
        self._at = end
        return Record(raw, fault, end >= self._examined)

    def _beyond(self, start: int, limit: int, *, is_open: bool) -> Iterator[Record]:
        """Yield a record that goes beyond the cap, in pieces; or, where a quote seems to be forgotten, its first line alone."""
        lines = self._buffer[start:limit].split(b"\n")
        if is_open and len(lines) > 2:
            whole = lines[1:-1]
            width = len(self._dialect.columns)
            n_fit = sum(len(self._dialect.split(line.decode("latin-1"))) == width for line in whole)
            if 2 * n_fit >= len(whole):
                self._examined = max(self._examined, limit)
                yield self._taken(start + len(lines[0]) + 1, f"{DropReason.BAD_SHAPE}: {_UNCLOSED}")
                return
        quote = self._dialect.quote.encode() if is_open else b""
        is_inside = False
        fault: str | None = str(DropReason.LINE_TOO_LONG)
        is_rest = False
        while True:
            end, is_inside = _line_end(self._buffer, self._at, quote, is_inside=is_inside)
            raw = self._buffer[self._at : end or len(self._buffer)]
            self._at += len(raw)
            is_last = bool(end) or not self._more()
            yield Record(raw, fault, is_last, is_rest)
            if is_last:
                self._examined = 0
                return
            fault, is_rest = None, True


def _line_end(data: bytes, start: int, quote: bytes, *, is_inside: bool) -> tuple[int, bool]:
    """Return (where the first line ends that does not end inside quotes, or 0; whether the end of `data` is inside)."""
    if not quote:
        return data.find(b"\n", start) + 1, False
    while True:
        end = data.find(quote, start)
        if not is_inside:
            line_end = data.find(b"\n", start, end if end >= 0 else len(data))
            if line_end >= 0:
                return line_end + 1, False
        if end < 0:
            return 0, is_inside
        is_inside = not is_inside
        start = end + 1
