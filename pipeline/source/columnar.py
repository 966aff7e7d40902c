"""Parquet and Arrow files: their row groups or record batches as chunks, and the rows of a chunk.

A chunk is whole parts (row groups, record batches) of about `shard_bytes` together; of a part much larger than that it is a
range of rows, for which the part is taken to pieces once. It is known by the bytes of its parts and by the schema.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.ipc

from pipeline.source import arrow_file, parquet_file
from pipeline.source.chunk import Chunk, SourceError, TableContainer
from pipeline.source.cutting import BLOCK, Read
from pipeline.source.opening import open_columns
from pipeline.source.parts import Part
from pipeline.source.settings import Source
from pipeline.source.spool import gone
from schemas.files import TEMPORARY

ARROW_SUFFIXES: Final = (".arrow", ".feather")
LARGE: Final = 4
"""A part of more than so many times `shard_bytes` is taken to pieces."""
_NAMES: Final = {"parquet": "Parquet", "arrow": "Arrow"}


def kind_of(name: str) -> TableContainer | None:
    """Return what a file of this name, without what says that it is compressed, consists of; None if no columns."""
    return "parquet" if name.endswith(".parquet") else "arrow" if name.endswith(ARROW_SUFFIXES) else None


def scan_columnar(
    path: str,
    kind: TableContainer,
    config: Source,
    spool_dir: Path,
    rules: str | None,
    *,
    at: str | None = None,
    unpacked: Path | None = None,
    needed: Collection[int] | None = None,
    watch: Callable[[int, int], None],
) -> list[Chunk]:
    """Return the chunks of the table at `path`, which lies at `at` if given, and whose bytes are those of `unpacked`.

    All chunks of an unpacked file are pieces. Pieces are written into `spool_dir`; with `needed`, only those that begin there.
    Raises SourceError.
    """
    place = str(unpacked or at or path)
    with _refused(path, kind):
        schema, parts = (parquet_file if kind == "parquet" else arrow_file).parts_of(place)
    chunks: list[Chunk] = []
    line = 1
    for first, last in _together(parts, config.shard_bytes):
        n_rows, size = sum(part.n_rows for part in parts[first:last]), sum(part.size for part in parts[first:last])
        start, end = min(part.start for part in parts[first:last]), max(part.end for part in parts[first:last])
        with _refused(path, kind):
            sha256 = _hash(place, schema, parts[first].before, start, end)
        step = n_rows if size <= LARGE * config.shard_bytes else max(1, n_rows * config.shard_bytes // size)
        of_part = []
        for row in range(0, n_rows, max(1, step)):
            is_piece = step < n_rows or unpacked is not None
            chunk = Chunk(
                path=path,
                container=kind,
                start=start + (end - start) * row // n_rows,  # of a piece, about there
                end=start + (end - start) * min(row + step, n_rows) // n_rows,
                line=line,
                sha256=sha256,
                rules=rules,
                at=at,
                spool=str(spool_dir / f"{_name(path)}-{first}-{row}-{step}-{sha256[:16]}") if is_piece else None,
                parts=(first, last),
                rows=(row, min(step, n_rows - row)),
                is_piece=is_piece,
            )
            of_part.append(chunk)
            line += chunk.rows[1]
        wanted = [chunk for chunk in of_part if chunk.is_piece and (needed is None or chunk.start in needed)]
        _take_to_pieces(wanted, place, start, end)
        chunks += of_part
        watch(end, parts[-1].end)
    return chunks


def _name(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@contextmanager
def unpack(path: str, read: Read, directory: Path) -> Iterator[Path]:
    """Give a file of all the bytes that `read` has, while it is needed. Raises SourceError where it cannot be written."""
    target = directory / f"{TEMPORARY}{_name(path)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("wb") as out:
                while block := read(BLOCK):
                    out.write(block)
        except OSError as error:
            raise SourceError(f"{path}: cannot be unpacked into {directory}: {error.strerror or error}") from None
        yield target
    finally:
        target.unlink(missing_ok=True)


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


def _take_to_pieces(chunks: Sequence[Chunk], place: str, start: int, end: int) -> None:
    """Write each of `chunks`, pieces of the same parts, which lie from `start` to `end` of a file, to its own place."""
    if not chunks:
        return
    one = chunks[0]
    held: dict[Chunk, list[pa.RecordBatch]] = {chunk: [] for chunk in chunks}
    row = 0
    with _refused(one.path, one.container):
        for batch in _slowly(one, place, start, end, max(each.rows[1] for each in chunks)):
            for chunk, found in list(held.items()):
                first, last = max(chunk.rows[0], row), min(sum(chunk.rows), row + batch.num_rows)
                if first < last:
                    found.append(batch.slice(first - row, last - first))
                if sum(chunk.rows) <= row + batch.num_rows:
                    _write(pa.Table.from_batches(found), chunk)
                    del held[chunk]
            row += batch.num_rows
            if not held:
                break


def _slowly(chunk: Chunk, place: str, start: int, end: int, n_rows: int) -> Iterator[pa.RecordBatch]:
    if chunk.container == "parquet":
        return parquet_file.read_slowly(place, *chunk.parts, n_rows)
    return iter(arrow_file.read_parts(place, *chunk.parts, start, end).to_batches(n_rows))


def _write(table: pa.Table, chunk: Chunk) -> None:
    assert chunk.spool is not None, "a piece has a place"
    piece = Path(chunk.spool)
    piece.parent.mkdir(parents=True, exist_ok=True)
    partial = piece.with_name(f"{TEMPORARY}{piece.name}")
    with pa.ipc.new_file(partial, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as out:
        out.write_table(table)
    partial.replace(piece)


def read_columnar(chunk: Chunk, place: str) -> pa.Table:
    """Return the rows of `chunk`, whose bytes are those of `place`.

    Raises SourceError when they are no longer those that were scanned, and when they are damaged.
    """
    with _refused(chunk.path, chunk.container):
        if chunk.is_piece:
            return _read_piece(chunk)
        _verify(chunk, place)
        if chunk.container == "parquet":
            table = parquet_file.read_parts(place, *chunk.parts)
        else:
            table = arrow_file.read_parts(place, *chunk.parts, chunk.start, chunk.end)
        if table.num_rows != chunk.rows[1]:
            raise pa.ArrowInvalid(f"{chunk.rows[1]} rows were announced, and there are {table.num_rows}")
        return table


def _read_piece(chunk: Chunk) -> pa.Table:
    assert chunk.spool is not None, "a piece has a place"
    try:
        with pa.memory_map(chunk.spool) as file:
            table = pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowException):
        raise gone(chunk.path, chunk.spool) from None
    if table.num_rows != chunk.rows[1]:
        raise gone(chunk.path, chunk.spool)
    return table


def _verify(chunk: Chunk, place: str) -> None:
    if chunk.container == "parquet":
        schema, before = parquet_file.schema_of(place), ""
    else:
        schema, before = arrow_file.schema_of(place, chunk.start)
    if _hash(place, schema, before, chunk.start, chunk.end) != chunk.sha256:
        raise SourceError(
            f"{chunk.path}: bytes {chunk.start:,} to {chunk.end:,} changed while the build was reading them. Run it again "
            "when nothing writes to the file"
        )


def _hash(place: str, schema: pa.Schema, before: str, start: int, end: int) -> str:
    state = hashlib.sha256(schema.serialize())
    state.update(before.encode())
    with open_columns(place) as file:
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
            raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
        raise _damaged(path, kind, error) from None
    except (pa.ArrowException, UnicodeDecodeError, EOFError) as error:
        raise _damaged(path, kind, error) from None


def _damaged(path: str, kind: str, error: Exception) -> SourceError:
    said = str(error).strip().partition("\n")[0].rstrip(".")
    return SourceError(
        f"{path}: not a whole {_NAMES[kind]} file: {said[:300]}. It was cut off or damaged: get it again, or write it anew"
    )
