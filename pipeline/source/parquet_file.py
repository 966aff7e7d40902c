"""Parquet files: where their row groups lie, and what these hold."""

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.source.opening import open_columns
from pipeline.source.parquet_footer import groups_of
from pipeline.source.parts import Part

_TAIL: Final = 8
"""The length of the footer, and the mark."""


def parts_of(place: str) -> tuple[pa.Schema, list[Part]]:
    """Return (schema, row groups). Raises ArrowException, OSError for a file that is cut off or none."""
    with _open(place) as file:
        schema, n_rows = file.schema_arrow, file.metadata.num_rows
    if not schema.names:
        raise pa.ArrowInvalid("it has no columns")
    with open_columns(place) as raw:
        size = raw.size()
        raw.seek(size - _TAIL)
        length = int.from_bytes(raw.read(4), "little")
        raw.seek(size - _TAIL - length)
        groups = groups_of(raw.read(length), size)
    if sum(group.n_rows for group in groups) != n_rows:
        raise pa.ArrowInvalid("the rows of its groups are not those of the file")
    return schema, groups


def schema_of(place: str) -> pa.Schema:
    """Return the schema. Raises ArrowException, OSError for a file that is cut off or none."""
    with _open(place) as file:
        return file.schema_arrow


def read_parts(place: str, first: int, last: int) -> pa.Table:
    """Return the row groups `first` to `last`, that one not included, as a table."""
    with _open(place) as file:
        return file.read_row_groups(range(first, last), use_threads=False)


def read_slowly(place: str, first: int, last: int, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the row groups `first` to `last`, that one not included, in batches of at most `n_rows`, never holding much more."""
    with _open(place) as file:
        yield from file.iter_batches(n_rows, row_groups=list(range(first, last)), use_threads=False)


def _open(place: str) -> pq.ParquetFile:
    return pq.ParquetFile(open_columns(place), page_checksum_verification=True)
