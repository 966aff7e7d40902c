"""A chunk's records, as ingest takes them."""

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.source.chunk import Chunk
from pipeline.source.cutting import BLANK, BOM
from pipeline.source.fetch import fetch
from pipeline.source.sampling import only_sampled
from pipeline.source.settings import Source
from pipeline.source.values import find_values
from schemas.reasons import DropReason
from schemas.tables import LINES


def read_chunk(chunk: Chunk, config: Source) -> pl.DataFrame:
    """Return the lines of `chunk` as schemas.tables.LINES; blank lines are no records, but they are numbered.

    Raises SourceError when the bytes are no longer those that were scanned.
    """
    data = fetch(chunk, config)
    is_cut = len(data) < chunk.end - chunk.start  # inside the last record, which is beyond the cap
    starts, ends = _bounds(data, chunk, config)
    records = [data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    if chunk.container != "lines":
        starts += [len(record) - len(record.lstrip(BLANK + b",")) for record in records]
        records = [record.strip(BLANK + b",") for record in records]
    if is_cut and chunk.container != "lines" and len(records) < chunk.n_elements:  # it begins behind the cut
        records, starts = [*records, b"?"], np.append(starts, len(data))
    lines = chunk.line + np.arange(len(records))
    keep = [i for i, record in enumerate(records) if 0x20 < record[0] < 0x80 or record.removeprefix(BOM).strip(BLANK)]
    raws: list[bytes | None] = [
        None if len(records[i].rstrip(b"\r\n")) > config.max_line_bytes else records[i] for i in keep
    ]
    if is_cut:
        raws[-1] = None
    sources, numbers, offsets = [chunk.path] * len(keep), lines[keep].tolist(), (starts[keep] + chunk.start).tolist()
    skips: list[str | None] = [DropReason.LINE_TOO_LONG if raw is None else None for raw in raws]
    if chunk.torn is not None:  # a record of its own, so that a file that was cut off is seen in the funnel
        sources, raws, skips = [*sources, chunk.path], [*raws, None], [*skips, f"{DropReason.TRUNCATED}: {chunk.torn}"]
        numbers, offsets = [*numbers, chunk.line + chunk.n_elements], [*offsets, chunk.end]
    columns = [
        pa.array(sources, pa.string()),
        pa.array(numbers, pa.int64()),
        pa.array(offsets, pa.int64()),
        pa.array(raws, pa.binary()),
        pa.array(skips, pa.string()),
        pa.array([chunk.rules] * len(raws), pa.string()),
    ]
    frame = pl.from_arrow(pa.table(columns, schema=LINES))
    assert isinstance(frame, pl.DataFrame)
    return only_sampled(frame, chunk)


def _bounds(data: bytes, chunk: Chunk, config: Source) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
