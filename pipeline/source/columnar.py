"""Parquet and Arrow files: their row groups or record batches as chunks, and the rows of a chunk.

A chunk is whole parts (row groups, record batches) of about `shard_bytes` together; of a part much larger than that it is a
range of rows, for which the part is taken to pieces once. It is known by the bytes of its parts and by the schema.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.ipc

from pipeline.source import arrow_file, parquet_file
from pipeline.source.chunk import Chunk, SourceError, TableContainer
from pipeline.source.cutting import BLOCK
from pipeline.source.parts import Part
from pipeline.source.settings import Source
from schemas.files import TEMPORARY

LARGE: Final = 4
"""A part of more than so many times `shard_bytes` is taken to pieces."""
_NAMES: Final = {"parquet": "Parquet", "arrow": "Arrow"}


def scan_columnar(path: str, readable: Path, config: Source, spool_dir: Path, rules: str | None) -> list[Chunk]:
    """Return the chunks of the table at `path`, whose bytes are those of `readable`. Raises SourceError, OSError."""
    kind: TableContainer = "parquet" if ".parquet" in Path(path).suffixes else "arrow"
    with _refused(path, kind):
        schema, parts = (parquet_file if kind == "parquet" else arrow_file).parts_of(readable)
    chunks: list[Chunk] = []
    line = 1
    for first, last in _together(parts, config.shard_bytes):
        n_rows, size = sum(part.n_rows for part in parts[first:last]), sum(part.size for part in parts[first:last])
        start, end = min(part.start for part in parts[first:last]), max(part.end for part in parts[first:last])
        sha256 = _hash(readable, schema, start, end)
        step = n_rows if size <= LARGE * config.shard_bytes else max(1, n_rows * config.shard_bytes // size)
        own = None if readable == Path(path) else str(readable)
        is_piece = step < n_rows
        for row in range(0, n_rows, step):
            chunk = Chunk(
                path=path,
                container=kind,
                start=start,
                end=end,
                line=line,
                sha256=sha256,
                rules=rules,
                spool=str(spool_dir / f"{sha256}-{row}-{step}") if is_piece else own,
                is_piece=is_piece,
                parts=(first, last),
                rows=(row, min(step, n_rows - row)),
            )
            chunks.append(chunk)
            line += chunk.rows[1]
    return chunks


def _together(parts: Sequence[Part], shard_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (first, one after the last) of parts that make a chunk; a large one is alone, and those without rows are none."""
    first, size = 0, 0
    for i, part in enumerate(parts):
        if size and part.size > LARGE * shard_bytes:
            yield first, i
            first, size = i, 0
        size += part.size
        if size >= shard_bytes:
            yield first, i + 1
            first, size = i + 1, 0
    if any(part.n_rows for part in parts[first:]):
        yield first, len(parts)


def take_to_pieces(chunks: Sequence[Chunk], readable: Path) -> None:
    """Write each of `chunks`, pieces of one part of the file whose bytes are those of `readable`, to its own place.

    Raises SourceError when the file cannot be read, or is no longer the one that was scanned.
    """
    one = chunks[0]
    held: dict[Chunk, list[pa.RecordBatch]] = {chunk: [] for chunk in chunks}
    row = 0
    with _refused(one.path, one.container):
        _verify(one, readable)
        for batch in _slowly(one, readable, max(each.rows[1] for each in chunks)):
            for chunk, found in list(held.items()):
                first, last = max(chunk.rows[0], row), min(sum(chunk.rows), row + batch.num_rows)
                if first < last:
                    found.append(batch.slice(first - row, last - first))
                if sum(chunk.rows) <= row + batch.num_rows:
                    _write(pa.Table.from_batches(found), chunk)
                    del held[chunk]
            row += batch.num_rows


def _slowly(chunk: Chunk, readable: Path, n_rows: int) -> Iterator[pa.RecordBatch]:
    if chunk.container == "parquet":
        return parquet_file.read_slowly(readable, chunk.parts[0], n_rows)
    return iter(arrow_file.read_parts(readable, *chunk.parts, chunk.start, chunk.end).to_batches(n_rows))


def _write(table: pa.Table, chunk: Chunk) -> None:
    assert chunk.spool is not None, "a piece has a place"
    piece = Path(chunk.spool)
    piece.parent.mkdir(parents=True, exist_ok=True)
    partial = piece.with_name(f"{TEMPORARY}{piece.name}")
    with pa.ipc.new_file(partial, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as out:
        out.write_table(table)
    partial.replace(piece)


def read_columnar(chunk: Chunk, readable: Path) -> pa.Table:
    """Return the rows of `chunk`, whose bytes are those of `readable`.

    Raises SourceError when they are no longer those that were scanned, and when they are damaged.
    """
    with _refused(chunk.path, chunk.container):
        if chunk.is_piece:
            with pa.memory_map(chunk.spool) as file:
                return pa.ipc.open_file(file).read_all()
        _verify(chunk, readable)
        if chunk.container == "parquet":
            table = parquet_file.read_parts(readable, *chunk.parts)
        else:
            table = arrow_file.read_parts(readable, *chunk.parts, chunk.start, chunk.end)
        if table.num_rows != chunk.rows[1]:
            raise pa.ArrowInvalid(f"{chunk.rows[1]} rows were announced, and there are {table.num_rows}")
        return table


def _verify(chunk: Chunk, readable: Path) -> None:
    schema = (parquet_file if chunk.container == "parquet" else arrow_file).schema_of(readable)
    if _hash(readable, schema, chunk.start, chunk.end) != chunk.sha256:
        raise SourceError(
            f"{chunk.path}: bytes {chunk.start:,} to {chunk.end:,} changed while the build was reading them. Run it again "
            "when nothing writes to the file"
        )


def _hash(readable: Path, schema: pa.Schema, start: int, end: int) -> str:
    state = hashlib.sha256(schema.serialize())
    with readable.open("rb") as file:
        file.seek(start)
        left = end - start
        while left and (block := file.read(min(BLOCK, left))):
            state.update(block)
            left -= len(block)
    return state.hexdigest()


@contextmanager
def _refused(path: str, kind: str) -> Iterator[None]:
    """Say of a file what is wrong with it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(path, kind, error) from None
    except (pa.ArrowException, UnicodeDecodeError, EOFError) as error:
        raise _damaged(path, kind, error) from None


def _damaged(path: str, kind: str, error: Exception) -> SourceError:
    said = str(error).strip().partition("\n")[0].rstrip(".")
    return SourceError(
        f"{path}: not a whole {_NAMES[kind]} file: {said[:300]}. It was cut off or damaged: get it again, or write it anew"
    )
