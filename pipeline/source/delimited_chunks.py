"""Text tables as chunks, and the records of a chunk as JSON that every adapter reads: an object of texts, keyed by column."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from pipeline.source.cells import json_of
from pipeline.source.cutting import PARTS, Cut, Held, Read, cut_tail
from pipeline.source.delimited import Record, Walk
from pipeline.source.dialect import HEAD, Dialect, TableSettings, blank_end, dialect_of
from schemas.reasons import DropReason

_LINE_END: Final = b"\r\n"
_encode: Final = msgspec.json.Encoder().encode


def most_held(shard_bytes: int, cap: int) -> int:
    """Return how many bytes are read of a chunk at most: a shard, and four records that are not too long.

    One may begin within the shard; of two it may take the bytes to see that a quote was not closed, and whose lines these are;
    and the last one is read up to the cap.
    """
    return shard_bytes + 4 * (cap + 2)


def cut_delimited(
    read: Read, shard_bytes: int, cap: int, *, is_tsv: bool, settings: TableSettings
) -> tuple[Dialect | None, Iterator[Cut]]:
    """Return (how the table is written, stretches that cover its records); None and no stretch where there is no record.

    They are cut as lines are, but where a record ends: see cut_lines. Raises TableError for a header that is none.
    """
    head, skipped = _filled(b"", read), 0
    while len(head) == HEAD and (blank := blank_end(head, is_tsv=is_tsv, is_start=not skipped)):
        head, skipped = _filled(head[blank:], read), skipped + blank
    found = dialect_of(head, is_tsv=is_tsv, settings=settings, is_start=not skipped)
    if found is None:
        return None, iter(())
    dialect, start = found
    return dialect, _cut(Walk(_chained(head[start:], read), dialect, cap), skipped + start, shard_bytes, cap)


def _filled(head: bytes, read: Read) -> bytes:
    while len(head) < HEAD and (block := read(HEAD - len(head))):
        head += block
    return head


def _chained(first: bytes, read: Read) -> Read:
    waiting = [first]
    return lambda n: waiting.pop() if waiting and waiting[0] else read(n)


def _cut(walk: Walk, start: int, shard_bytes: int, cap: int) -> Iterator[Cut]:
    line = 1
    held = Held(start, most_held(shard_bytes, cap))
    borders: list[tuple[int, int]] = []
    n_records = 0
    for record in walk:
        held.add(record.raw)
        n_records += _is_record(record)
        if record.is_border:
            while len(borders) < PARTS and held.size >= shard_bytes * (len(borders) + 1) // PARTS:
                borders.append((held.size, n_records))
            is_long = (
                record.is_rest or record.fault == DropReason.LINE_TOO_LONG
            )  # nothing follows what is not read to its end
            if len(borders) == PARTS or is_long:
                if n_records:
                    yield held.cut(line, n_records)
                line += n_records
                held, borders, n_records = Held(held.end, most_held(shard_bytes, cap)), [], 0
    if held.size >= shard_bytes and n_records:
        yield held.cut(line, n_records)
    elif held.size:
        yield from (cut for cut in cut_tail(held, borders, n_records, line) if cut.n_elements)


def _is_record(record: Record) -> bool:
    raw = record.raw
    return not record.is_rest and (raw[0] not in _LINE_END or bool(raw.strip(_LINE_END)))


class Row(NamedTuple):
    """A record as ingest takes it; see schemas.tables.LINES."""

    line: int
    offset: int
    raw: bytes | None
    skip: str | None


def rows_of(
    walk: Walk, dialect: Dialect, *, line: int, offset: int, cap: int, torn: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a table whose first record has the number `line` and stands at `offset`; blank lines are none.

    Where the table is `torn`, its last record may be as well, and is not read unless its line ends; then a row says so.
    """
    twice = next((name for name in dialect.columns if dialect.columns.count(name) > 1), None)
    fault = f"{DropReason.DUPLICATE_KEY}: the header names the column {twice!r} twice; rename one" if twice else None
    for record in walk:
        if _is_record(record):
            if torn is not None and not record.raw.endswith(b"\n"):
                record = record._replace(fault=record.fault or f"{DropReason.TRUNCATED}: {torn}")
            yield _row(record, dialect, fault, line, offset, cap)
            line += 1
        offset += len(record.raw)
    if torn is not None:
        yield Row(line, offset, None, f"{DropReason.TRUNCATED}: {torn}")


def _row(record: Record, dialect: Dialect, fault: str | None, line: int, offset: int, cap: int) -> Row:
    raw = record.raw
    if record.fault == DropReason.LINE_TOO_LONG or (len(raw) > cap and len(raw.rstrip(_LINE_END)) > cap):
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
    for i, column in dialect.json_columns:
        value = json_of(column, cells[i])
        if value is not None:
            values[column] = value
    return Row(line, offset, _encode(values), None)
