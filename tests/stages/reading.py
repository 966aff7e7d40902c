"""Records through ingest, for the tests of its shapes."""

import json
from typing import Any

import msgspec

from stages.ingest import Ingest, ingest_lines
from tests.stages.rows import records

Row = dict[str, Any]


def read(record: Any, **settings: Any) -> list[Row]:
    """Return the rows of one record, a JSON value or a line as bytes."""
    raw = record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()
    return list(ingest_lines(records(raw), msgspec.convert(settings, Ingest)).iter_rows(named=True))


def kept(record: Any, **settings: Any) -> Row:
    """Return the one row of a record that must be kept."""
    (row,) = read(record, **settings)
    assert row["drop_reason"] is None, row["detail"]
    return row


def said(row: Row) -> list[tuple[str, str | None]]:
    """Return who says what in a row."""
    return [(message["role"], message["content"]) for message in row["messages"]]


def refused(record: Any, **settings: Any) -> tuple[str, str]:
    """Return the reason and the detail of the one row of a record that must be quarantined."""
    (row,) = read(record, **settings)
    assert row["drop_reason"] is not None, row["messages"]
    assert row["messages"] == []
    return row["drop_reason"], row["detail"]
