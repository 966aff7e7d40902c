"""Input files as tests write them, and all that is read of one."""

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.source import Source, read_chunk, scan

SMALL = Source(shard_bytes=1 << 10, max_line_bytes=1 << 12)


def read(path: Path, config: Source = SMALL) -> list[tuple[int, int, bytes | None]]:
    """Return all (line, offset, raw) of a file, through its chunks."""
    return frame(path, config).select("line", "offset", "raw").rows()


def frame(path: Path, config: Source = SMALL) -> pl.DataFrame:
    """Return all lines of a file (schemas.tables.LINES), through its chunks."""
    chunks = scan(str(path), config, path.parent / "spool")
    return pl.concat([read_chunk(chunk, config) for chunk in chunks]) if chunks else pl.DataFrame(schema=EMPTY)


def write(path: Path, data: bytes) -> Path:
    """Write `data` to `path`, and return it."""
    path.write_bytes(data)
    return path


EMPTY: dict[str, Any] = {"line": pl.Int64, "offset": pl.Int64, "raw": pl.Binary, "skip": pl.String}
