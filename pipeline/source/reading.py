"""A chunk's records, as ingest takes them."""

from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.source.chunk import Chunk
from pipeline.source.cutting import BLANK, BOM
from pipeline.source.fetch import fetch
from pipeline.source.sampling import only_sampled
from pipeline.source.settings import Source
from pipeline.source.table_lines import columnar_lines, delimited_lines
from pipeline.source.values import find_values
from schemas.reasons import DropReason

I64 = NDArray[np.int64]
_SOLID: Final = ~np.isin(np.arange(256), list(BLANK))
"""Which bytes are not blank."""
_MANY: Final = 1000
"""Lines that may be blank, from which on they are looked at all at once: a file may consist of nothing else."""


def read_chunk(chunk: Chunk, config: Source) -> pl.DataFrame:
    """Return the lines of `chunk` as schemas.tables.LINES; blank lines are no records, but they are numbered.

    No record is copied: all lie where the chunk's bytes were read to. Raises SourceError when the bytes are no longer those
    that were scanned.
    """
    if chunk.container in ("parquet", "arrow"):
        return only_sampled(_framed(columnar_lines(chunk, config)), chunk)
    data = fetch(chunk, config)
    if chunk.container == "delimited":
        return only_sampled(_framed(delimited_lines(chunk, data, config)), chunk)
    is_cut = len(data) < chunk.end - chunk.start  # inside the last record, which is beyond the cap
    starts, ends = _bounds(data, chunk, config)
    if chunk.container != "lines":
        starts, ends = _stripped(data, starts, ends)
    records = np.flatnonzero(_hold_something(data, starts, ends))
    if is_cut and chunk.container != "lines" and len(starts) < chunk.n_elements:  # it begins behind the cut
        records = np.append(records, len(starts))
        starts, ends = np.append(starts, len(data)), np.append(ends, len(data))
    is_long = _are_longer(data, starts, ends, config.max_line_bytes)[records]
    is_long[-1:] |= is_cut
    starts, ends = starts[records], ends[records]
    lines = _lines(
        chunk, records + chunk.line, starts + chunk.start, slices(data, starts, ends), skip=DropReason.LINE_TOO_LONG
    )
    if is_long.any():
        lines = lines.with_columns(raw=pl.when(pl.Series(~is_long)).then("raw"))
    lines = lines.with_columns(skip=pl.when(pl.col("raw").is_null()).then("skip"))
    if chunk.torn is not None:  # a record of its own, so that a file that was cut off is seen in the funnel
        number, offset = np.array([chunk.line + chunk.n_elements]), np.array([chunk.end])
        nothing = pl.Series([None], dtype=pl.Binary)
        torn = _lines(chunk, number, offset, nothing, skip=f"{DropReason.TRUNCATED}: {chunk.torn}")
        lines = pl.concat([lines, torn], rechunk=True)
    return only_sampled(lines, chunk)


def _framed(lines: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(lines)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _lines(chunk: Chunk, numbers: I64, offsets: I64, raw: pl.Series, *, skip: str) -> pl.DataFrame:
    return pl.DataFrame(
        [
            pl.repeat(chunk.path, len(numbers), dtype=pl.String, eager=True).alias("source"),
            pl.Series("line", numbers, pl.Int64),
            pl.Series("offset", offsets, pl.Int64),
            raw.alias("raw"),
            pl.repeat(skip, len(numbers), dtype=pl.String, eager=True).alias("skip"),
            pl.repeat(chunk.rules, len(numbers), dtype=pl.String, eager=True).alias("rules"),
        ]
    )


def slices(data: bytes, starts: I64, ends: I64) -> pl.Series:
    """Return the stretches of `data` from each start to each end, which follow one another, as views of it."""
    if not len(starts):
        return pl.Series([], dtype=pl.Binary)
    edges = np.stack([starts, ends], axis=1).ravel()  # every other stretch is what lies between two records
    parts = [None, pa.py_buffer(edges), pa.py_buffer(data)]
    return pl.Series(pl.from_arrow(pa.Array.from_buffers(pa.large_binary(), len(edges) - 1, parts))).gather_every(2)


def _stripped(data: bytes, starts: I64, ends: I64) -> tuple[I64, I64]:
    """Return the same bounds without what stands between records."""
    between = BLANK + b","
    records = [data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    begins = starts + np.array([len(record) - len(record.lstrip(between)) for record in records], np.int64)
    return begins, begins + np.array([len(record.strip(between)) for record in records], np.int64)


def _hold_something(data: bytes, starts: I64, ends: I64) -> NDArray[np.bool_]:
    """Return which stretches are not blank; a byte order mark is."""
    if not len(starts):
        return np.zeros(0, np.bool_)
    first = np.frombuffer(data, np.uint8)[starts] if len(data) else np.zeros(len(starts), np.uint8)
    found: NDArray[np.bool_] = (first > 0x20) & (first != BOM[0]) & (ends > starts)
    doubtful = np.flatnonzero(~found)
    if len(doubtful) > _MANY:
        n_solid = np.zeros(len(data) + 1, np.uint32)
        np.cumsum(_SOLID[np.frombuffer(data, np.uint8)], dtype=np.uint32, out=n_solid[1:])
        found = n_solid[starts] < n_solid[ends]
        doubtful = np.flatnonzero(first == BOM[0])
    for i in doubtful.tolist():
        found[i] = bool(data[starts[i] : ends[i]].removeprefix(BOM).strip(BLANK))
    return found


def _are_longer(data: bytes, starts: I64, ends: I64, most: int) -> NDArray[np.bool_]:
    """Return which stretches have more than `most` bytes, the end of a line not counted."""
    found: NDArray[np.bool_] = ends - starts > most
    for i in np.flatnonzero(found).tolist():
        found[i] = len(data[starts[i] : ends[i]].rstrip(b"\r\n")) > most
    return found


def _bounds(data: bytes, chunk: Chunk, config: Source) -> tuple[I64, I64]:
    """Return where records begin and end in a chunk's bytes."""
    if chunk.container == "lines":
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A) + 1
        if len(data) and (not len(ends) or ends[-1] != len(data)):
            ends = np.append(ends, len(data))
        starts = np.zeros_like(ends)
        starts[1:] = ends[:-1]
        return starts, ends
    if chunk.container == "whole":
        start = len(BOM) if data.startswith(BOM) else 0
        return np.array([start]), np.array([len(data)])
    assert chunk.container in ("array", "document"), chunk.container
    indent = None if chunk.indent is None else chunk.indent.encode()
    bounds = find_values(data, chunk.container, indent, config.max_line_bytes, is_last=chunk.is_last)
    return bounds[:, 0], bounds[:, 1]
