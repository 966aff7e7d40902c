"""Parquet files: where their row groups lie, and what these hold."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.source.parts import Part


def parts_of(readable: Path) -> tuple[pa.Schema, list[Part]]:
    """Return (schema, row groups). Raises ArrowException, OSError for a file that is cut off or none."""
    with _open(readable) as file:
        size = readable.stat().st_size
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        parts = []
        for group in groups:
            columns = [group.column(i) for i in range(group.num_columns)]
            starts = [_start(column) for column in columns] or [0]
            ends = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=False)] or [0]
            if min(starts) < 0 or max(ends) > size or group.num_rows < 0:
                raise pa.ArrowInvalid("its footer speaks of bytes that are not in the file")
            parts.append(Part(min(starts), max(ends), group.num_rows, max(0, group.total_byte_size)))
        return file.schema_arrow, parts


def schema_of(readable: Path) -> pa.Schema:
    """Return the schema. Raises ArrowException, OSError for a file that is cut off or none."""
    with _open(readable) as file:
        return file.schema_arrow


def read_parts(readable: Path, first: int, last: int) -> pa.Table:
    """Return the row groups `first` to `last`, that one not included, as a table."""
    with _open(readable) as file:
        return file.read_row_groups(range(first, last), use_threads=False)


def read_slowly(readable: Path, number: int, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the row group of this number in batches of at most `n_rows`, never holding much more."""
    with _open(readable) as file:
        yield from file.iter_batches(n_rows, row_groups=[number], use_threads=False)


def _open(readable: Path) -> pq.ParquetFile:
    return pq.ParquetFile(readable, memory_map=True, page_checksum_verification=True)


def _start(column: pq.ColumnChunkMetaData) -> int:
    data: int = column.data_page_offset
    dictionary = column.dictionary_page_offset
    return min(data, dictionary) if dictionary else data
