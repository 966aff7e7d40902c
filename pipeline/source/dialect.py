"""How the columns of a text file are told apart, and what they are called."""

import re
from functools import cached_property
from typing import Final, Literal

import msgspec

from pipeline.source.cells import JSON_COLUMNS
from pipeline.source.cutting import BOM
from schemas.errors import UserError

HEAD: Final = 1 << 20
"""Bytes at the beginning of a file by which what the config leaves open is settled."""
DELIMITERS: Final = (",", ";", "\t")
NAMES: Final = re.compile(
    "id|system|instruction|input|output|prompt|completion|response|question|answer|query|reply|inputs|targets|source|target|text|"
    "context|title|category|rationale|explanation|problem|solution|chosen|rejected|messages|conversations|conversation|history|"
    "tools|user|assistant|human|bot|gpt|q|a|label|score|tags|column_1",
    re.IGNORECASE,
)
"""Names of columns, one of which makes the first line of a small TSV file its header."""
_SMALL: Final = 3
_MAX_NAME: Final = 64

Header = bool | Literal["auto"]


class TableError(UserError):
    """A table cannot be read as one; the text says why, without the file's name."""


class TableSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the config says of text tables."""

    header: Header = "auto"
    delimiter: str | None = None
    quote: str | None = None


class Dialect(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """How a text table is written. Part of what its chunks are known by."""

    columns: tuple[str, ...]
    delimiter: str
    quote: str
    """Empty where quotes are text like any other."""

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """Return what matches one well-formed record with the end of its line, or what looks like one up to the end."""
        field = f"(?:{self._quoted}|{self._bare})"
        return re.compile(f"{field}(?:{self._delimiter}{field})*+(?:\\r?\\n|\\r?\\Z)".encode())

    @cached_property
    def opened(self) -> re.Pattern[bytes]:
        """Return what matches a record whose last field has an opening quote and no closing one."""
        field = f"(?:{self._quoted}|{self._bare})"
        q = self._quote
        return re.compile(f"(?:{field}{self._delimiter})*+{q}[^{q}]*+(?:{q}{q}[^{q}]*+)*+\\Z".encode())

    @cached_property
    def json_columns(self) -> tuple[tuple[int, str], ...]:
        """Return (place, name) of the columns that may hold JSON."""
        return tuple((i, name) for i, name in enumerate(self.columns) if name in JSON_COLUMNS)

    @cached_property
    def prefix(self) -> re.Pattern[bytes]:
        """Return what matches a record up to the last quote that is closed, for one in which something follows it."""
        field = f"(?:{self._quoted}|{self._bare})"
        return re.compile(f"(?:{field}{self._delimiter})*+{self._quoted}".encode())

    @cached_property
    def _fields(self) -> re.Pattern[str]:
        """Return what finds the fields of a record that has a delimiter put before it: (quoted, bare), one of them empty."""
        q, d = self._quote, self._delimiter
        return re.compile(f"{d}(?:{q}([^{q}]*+(?:{q}{q}[^{q}]*+)*+){q}|([^{d}]*+))")

    @cached_property
    def closing(self) -> re.Pattern[bytes]:
        """Return what matches a quote that closes a field."""
        return re.compile(f"{self._quote}(?:{self._delimiter}|\\r?\\n|\\r?\\Z)".encode())

    @cached_property
    def opening(self) -> re.Pattern[bytes]:
        """Return what matches a quote that opens a field."""
        return re.compile(f"(?:\\A|{self._delimiter}){self._quote}".encode())

    @property
    def _delimiter(self) -> str:
        return re.escape(self.delimiter)

    @property
    def _quote(self) -> str:
        return re.escape(self.quote)

    @property
    def _quoted(self) -> str:
        q = self._quote
        return f"{q}[^{q}]*+(?:{q}{q}[^{q}]*+)*+{q}"

    @property
    def _bare(self) -> str:
        return f"(?!{self._quote})[^{self._delimiter}\\n]*+"

    def split(self, record: str) -> list[str]:
        """Return the fields of a well-formed record, without their quotes."""
        body = record.removesuffix("\n").removesuffix("\r")
        delimiter, quote = self.delimiter, self.quote
        if not quote or quote not in body:
            return body.split(delimiter)
        twice = quote * 2
        found = self._fields.findall(delimiter + body)
        if twice not in body:
            return [quoted or bare for quoted, bare in found]
        return [quoted.replace(twice, quote) if twice in quoted else quoted or bare for quoted, bare in found]


def blank_end(head: bytes, *, is_tsv: bool, is_start: bool) -> int:
    """Return where the blank lines end that stand before a table, behind a byte order mark at the start of the file."""
    mark = len(BOM) if is_start and head.startswith(BOM) else 0
    blank = re.compile(rb"(?:\r?\n)*+" if is_tsv else rb"(?:[ \t]*+\r?\n)*+").match(head, mark)
    assert blank is not None
    return blank.end()


def dialect_of(
    head: bytes, *, is_tsv: bool, settings: TableSettings, is_start: bool = True
) -> tuple[Dialect, int] | None:
    """Return (how the file that begins with `head` is written, where its first record begins).

    `head` is all that is left of the file if it is shorter than HEAD; `is_start` says that nothing stood before it. None for
    a file without a record. Raises TableError for a header that is none.
    """
    start = blank_end(head, is_tsv=is_tsv, is_start=is_start)
    rest = head[start:]
    if not rest.strip(b"\r\n"):
        return None
    delimiter = settings.delimiter or ("\t" if is_tsv else _delimiter(rest))
    quote = settings.quote if settings.quote is not None else '"'
    if settings.quote is None and is_tsv:
        quote = _quote(rest, delimiter, is_whole=len(head) < HEAD)
    plain = Dialect(columns=(), delimiter=delimiter, quote=quote)
    first = plain.record.match(rest) if quote else re.match(rb"[^\n]*\n?", rest)
    if first is None:
        raise TableError(
            f"line 1, {_shown(rest)}, cannot be read: a quote in it is not closed, or something follows a closing quote; "
            "mend it, or set delimiter or quote for its set"
        )
    names = plain.split(first[0].decode("utf-8", "surrogateescape"))
    header = settings.header
    if header == "auto":
        header = not is_tsv or len(names) > _SMALL or _are_names(names)
    if len(first[0]) == HEAD:
        raise TableError(
            f"no line ends in the first {HEAD:,} bytes; is this a table, with the delimiter {delimiter!r}?"
        )
    if any("\r" in name for name in names):
        raise TableError("its lines end with CR alone, as on old Macs; convert it, e.g. tr '\\r' '\\n'")
    if not header:
        return Dialect(columns=_numbered([""] * len(names)), delimiter=delimiter, quote=quote), start
    if not all(map(_is_utf8, names)):
        raise TableError(f"the header, {_shown(rest)}, is not UTF-8; convert the file, e.g. iconv -f LATIN1 -t UTF-8")
    columns = _numbered([name.strip() for name in names])
    return Dialect(columns=columns, delimiter=delimiter, quote=quote), start + first.end()


def _numbered(names: list[str]) -> tuple[str, ...]:
    return tuple(name or f"column_{i}" for i, name in enumerate(names, 1))


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _are_names(names: list[str]) -> bool:
    """Tell whether the cells of a first line are names: UnifiedQA's and FLAN's tables of two or three columns have none."""
    cells = [name.strip() for name in names]
    return all(0 < len(cell) <= _MAX_NAME for cell in cells) and any(map(NAMES.fullmatch, cells))


def _delimiter(rest: bytes) -> str:
    """Return the first of DELIMITERS that the first line has outside of quotes."""
    line = re.sub(rb'"[^"\n]*"', b"", rest.partition(b"\n")[0])
    return next((each for each in DELIMITERS if each.encode() in line), DELIMITERS[0])


def _quote(rest: bytes, delimiter: str, *, is_whole: bool) -> str:
    """Return the quote of a TSV file: none, unless fields begin with one and all of them then end with one too.

    A file without quoting may hold texts that begin with a quote; read as quoted, some of them do not end with one, or
    records differ in their number of fields.
    """
    quoted = Dialect(columns=(), delimiter=delimiter, quote='"')
    if not re.search(f'(?:^|{re.escape(delimiter)})"'.encode(), rest, re.MULTILINE):
        return ""
    widths: set[int] = set()
    position = 0
    while position < len(rest):
        match = quoted.record.match(rest, position)
        if (match is None or match.end() == len(rest)) and not is_whole and widths:
            if match is None and quoted.opened.match(rest, position) is None:
                return ""
            break  # cut off, it may be
        if match is None:
            return ""
        if match[0].strip(b"\r\n"):
            widths.add(len(quoted.split(match[0].decode("latin-1"))))
        position = match.end()
    return '"' if len(widths) == 1 else ""


def _shown(rest: bytes) -> str:
    line = rest.partition(b"\n")[0].decode("utf-8", "replace")
    return repr(line if len(line) <= 80 else f"{line[:80]}...")
