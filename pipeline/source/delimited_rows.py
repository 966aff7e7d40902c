"""The records of a text table as JSON, so that every adapter reads them: an object of texts, keyed by column."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from pipeline.source.cells import JSON_COLUMNS, json_of
from pipeline.source.delimited import Record, Walk
from pipeline.source.dialect import Dialect
from schemas.reasons import DropReason

_encode: Final = msgspec.json.Encoder().encode


class Row(NamedTuple):
    """A record as ingest takes it; see schemas.tables.LINES."""

    line: int
    offset: int
    raw: bytes | None
    skip: str | None


def rows_of(walk: Walk, dialect: Dialect, *, line: int, offset: int, cap: int) -> Iterator[Row]:
    """Yield the rows of a table whose first record stands at `line` and `offset`; blank lines are none, but they count."""
    twice = next((name for name in dialect.columns if dialect.columns.count(name) > 1), None)
    fault = f"{DropReason.DUPLICATE_KEY}: the header names the column {twice!r} twice; rename one" if twice else None
    for record in walk:
        if not record.is_rest:
            row = _row(record, dialect, fault, line, offset, cap)
            if row is not None:
                yield row
        line += record.raw.count(b"\n")
        offset += len(record.raw)


def _row(record: Record, dialect: Dialect, fault: str | None, line: int, offset: int, cap: int) -> Row | None:
    raw = record.raw
    if not raw.strip(b"\r\n"):
        return None
    if len(raw) - 2 > cap or record.fault == DropReason.LINE_TOO_LONG or len(raw.rstrip(b"\r\n")) > cap:
        return Row(line, offset, None, DropReason.LINE_TOO_LONG)
    if record.fault or fault:
        return Row(line, offset, raw, record.fault or fault)
    try:
        cells = dialect.split(raw.decode())
    except UnicodeDecodeError as error:
        return Row(line, offset, raw, f"{DropReason.BAD_UTF8}: byte {error.start}: {error.reason}")
    columns = dialect.columns
    if len(cells) != len(columns):
        shown = ", ".join(columns[:12])
        return Row(
            line, offset, raw, f"{DropReason.BAD_SHAPE}: expected {len(columns)} fields ({shown}), got {len(cells)}"
        )
    values: dict[str, str | msgspec.Raw] = dict(zip(columns, cells, strict=True))
    for column in JSON_COLUMNS.intersection(values):
        value = json_of(column, cells[columns.index(column)].encode())
        if value is not None:
            values[column] = value
    return Row(line, offset, _encode(values), None)
