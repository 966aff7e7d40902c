"""A chunk's records, as ingest takes them."""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.source.chunk import Chunk, SourceError
from pipeline.source.cutting import BLANK, BLOCK, BOM, Elements
from pipeline.source.sampling import only_sampled
from pipeline.source.settings import Source
from schemas.reasons import DropReason
from schemas.tables import LINES


def read_chunk(chunk: Chunk, config: Source) -> pl.DataFrame:
    """Return the lines of `chunk` as schemas.tables.LINES; blank lines are no records, but they are numbered.

    Raises SourceError when the bytes are no longer those that were scanned.
    """
    data = _read_verified(chunk, config)
    is_cut = len(data) < chunk.end - chunk.start  # inside the last record, which is beyond the cap
    if chunk.container == "array":
        ends = np.fromiter(Elements(data, 0), np.int64)
        if is_cut:  # what looks like elements in the rest of the last one is its text
            ends = np.append(ends[: chunk.n_elements - 1], len(data))
    else:
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A) + 1
        if len(data) and (not len(ends) or ends[-1] != len(data)):
            ends = np.append(ends, len(data))
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1]
    records = [data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    if chunk.container == "array":
        starts += [len(record) - len(record.lstrip(BLANK + b",")) for record in records]
        records = [record.strip(BLANK + b",") for record in records]
    lines = chunk.line + np.arange(len(records))
    keep = [i for i, record in enumerate(records) if 0x20 < record[0] < 0x80 or record.removeprefix(BOM).strip(BLANK)]
    raws: list[bytes | None] = [
        None if len(records[i].rstrip(b"\r\n")) > config.max_line_bytes else records[i] for i in keep
    ]
    if is_cut:
        raws[-1] = None
    sources, numbers, offsets = [chunk.path] * len(keep), lines[keep].tolist(), (starts[keep] + chunk.start).tolist()
    if chunk.is_torn:  # a record of its own, so that a file that was cut off is seen in the funnel
        sources, raws = [*sources, chunk.path], [*raws, b""]
        numbers, offsets = [*numbers, chunk.line + chunk.n_elements], [*offsets, chunk.end]
    skips = [DropReason.LINE_TOO_LONG if raw is None else None for raw in raws]
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


def _read_verified(chunk: Chunk, config: Source) -> bytes:
    """Return the chunk's bytes, no more than a shard and one record at the cap, after hashing all of them."""
    size = chunk.end - chunk.start
    state = hashlib.sha256()
    try:
        with Path(chunk.spool or chunk.path).open("rb") as file:
            file.seek(chunk.start)
            data = file.read(min(size, config.shard_bytes + config.max_line_bytes + 2))
            state.update(data)
            left = size - len(data)
            while left and (block := file.read(min(BLOCK, left))):
                state.update(block)
                left -= len(block)
    except OSError as error:
        raise SourceError(f"{chunk.path}: cannot be read: {error.strerror or error}") from None
    if state.hexdigest() != chunk.sha256:
        raise SourceError(
            f"{chunk.path}: bytes {chunk.start:,} to {chunk.end:,} changed while the build was reading them. Run it again "
            "when nothing writes to the file"
        )
    return data
