"""The records of a chunk of a table, as ingest takes them."""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.source.arrow_json import records
from pipeline.source.chunk import Chunk
from pipeline.source.columnar import read_columnar
from pipeline.source.delimited import Walk
from pipeline.source.delimited_chunks import rows_of
from pipeline.source.dialect import Dialect
from pipeline.source.settings import Source
from schemas.reasons import DropReason
from schemas.tables import LINES

_AT_ONCE: Final = 8 << 20


def delimited_lines(chunk: Chunk, data: bytes, config: Source) -> pa.Table:
    """Return the records in `data`, the first bytes of a chunk of a text table, as schemas.tables.LINES."""
    dialect = msgspec.json.decode(chunk.dialect or "", type=Dialect)
    waiting = iter((data,))
    walk = Walk(lambda _: next(waiting, b""), dialect, config.max_line_bytes)
    cap = config.max_line_bytes
    rows = list(rows_of(walk, dialect, line=chunk.line, offset=chunk.start, cap=cap, torn=chunk.torn))
    return pa.table(
        [
            pa.array([chunk.path] * len(rows), pa.string()),
            pa.array([row.line for row in rows], pa.int64()),
            pa.array([row.offset for row in rows], pa.int64()),
            pa.array([row.raw for row in rows], pa.binary()),
            pa.array([row.skip for row in rows], pa.string()),
            pa.array([chunk.rules] * len(rows), pa.string()),
        ],
        schema=LINES,
    )


def columnar_lines(chunk: Chunk, config: Source) -> pa.Table:
    """Return the rows of a chunk of a Parquet or Arrow file, each as a JSON object, as schemas.tables.LINES.

    Raises SourceError when the file is no longer the one that was scanned, and when it is damaged.
    """
    table = read_columnar(chunk, chunk.at or chunk.path)
    raws = pa.chunked_array([records(part) for part in _slices(table)], pa.large_binary())
    is_long = pc.greater(pc.binary_length(raws), config.max_line_bytes)
    n = table.num_rows
    return pa.table(
        [
            pa.array([chunk.path] * n, pa.string()),
            pa.array(np.arange(chunk.line, chunk.line + n)),
            pa.nulls(n, pa.int64()),
            pc.if_else(is_long, pa.scalar(None, raws.type), raws).cast(pa.binary()),
            pc.if_else(is_long, pa.scalar(DropReason.LINE_TOO_LONG.value), pa.scalar(None, pa.string())),
            pa.array([chunk.rules] * n, pa.string()),
        ],
        schema=LINES,
    )


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    step = max(1, table.num_rows * _AT_ONCE // max(_AT_ONCE, table.nbytes))
    return (table.slice(row, step) for row in range(0, table.num_rows, step))
