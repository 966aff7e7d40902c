"""Input files as bounded chunks of lines: nothing is read whole, and a chunk is known by the bytes it holds."""

import glob
import gzip
import hashlib
import json
import mmap
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Final, Literal

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from schemas.settings import ConfigError
from schemas.tables import LINES

SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
_BLOCK: Final = 1 << 20
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]|,|[^\s"\[\]{},]+', re.DOTALL)


class SourceError(ValueError):
    """An input file cannot be read; the text names the file and says what to do."""


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where conversations come from."""

    inputs: tuple[str, ...] = ()
    """Files, directories and globs of .jsonl, .ndjson and .json, each also as .gz."""
    shard_bytes: Annotated[int, msgspec.Meta(ge=1 << 10, le=1 << 30)] = 8 << 20
    """Bytes of input per shard: the unit of memory, of parallel work and of resumption."""
    max_line_bytes: Annotated[int, msgspec.Meta(ge=1 << 10, le=1 << 30)] = 16 << 20
    """Longest line that is read; a longer one is quarantined (line_too_long)."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of one input file: whole lines, or whole elements of a JSON array."""

    path: str
    """As given by the user; part of every row id."""
    container: Literal["lines", "array"]
    start: int
    """First byte, of the decompressed file."""
    end: int
    line: int
    """1-based number of its first line, or of its first element."""
    sha256: str
    """Of its bytes."""
    spool: str | None = None
    """For a compressed file: where its decompressed bytes lie while they are needed."""

    def digest(self) -> str:
        """Return a text that changes whenever a row that comes out of this chunk would."""
        return f"{self.path} {self.container} {self.start} {self.line} {self.sha256}"


def expand(inputs: Sequence[str]) -> list[str]:
    """Return the input files, each once, globs and directories expanded in sorted order.

    Raises ConfigError for an input that names no file, and for a file of a kind that is not read.
    """
    if not inputs:
        raise ConfigError("[source] inputs is empty: name files, directories or globs, or give --input PATH")
    paths: dict[str, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_file():
            found = [given]
        elif path.is_dir():
            found = sorted(str(p) for p in path.iterdir() if p.is_file() and p.name.endswith(SUFFIXES))
        else:
            found = sorted(p for p in glob.glob(given, recursive=True) if Path(p).is_file())  # noqa: PTH207 - ** and case
        if not found:
            raise ConfigError(f"input {given!r}: no such file, and no {', '.join(SUFFIXES)} file matches it")
        for name in found:
            if not name.endswith(SUFFIXES):
                raise ConfigError(f"input {name}: cannot read this kind of file; known: {', '.join(SUFFIXES)}")
            paths[name] = None
    return list(paths)


def scan(path: str, config: Source, spool_dir: Path) -> list[Chunk]:
    """Return the chunks of the file at `path`, in order; a compressed one is unpacked into `spool_dir` on the way.

    Chunks of lines end at the first line end at or after every `shard_bytes`, so appending to a file leaves all but its
    last chunk as they were. Raises SourceError when the file cannot be read or unpacked.
    """
    spool = None
    readable = Path(path)
    if path.endswith(".gz"):
        spool_dir.mkdir(parents=True, exist_ok=True)
        readable = spool_dir / hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
        _unpack(path, readable)
        spool = str(readable)
    try:
        with readable.open("rb") as file:
            container, cuts = _cut(file, config)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    return [
        Chunk(path=path, container=container, start=start, end=end, line=line, sha256=sha256, spool=spool)
        for start, end, line, sha256 in cuts
    ]


def read_chunk(chunk: Chunk, config: Source) -> pl.DataFrame:
    """Return the lines of `chunk` as schemas.tables.LINES; blank lines are no records, but they are numbered."""
    size = chunk.end - chunk.start
    with Path(chunk.spool or chunk.path).open("rb") as file:
        file.seek(chunk.start)
        # A chunk is longer than a shard only by its last line; of one beyond the cap no more than the cap is read.
        data = file.read(min(size, config.shard_bytes + config.max_line_bytes + 1))
    if chunk.container == "array":
        ends = _element_ends(data)
        starts = np.concatenate(([0], ends[:-1]))
        lines = chunk.line + np.arange(len(ends))
    else:
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A) + 1
        if len(data) and (not len(ends) or ends[-1] != len(data)):
            ends = np.append(ends, len(data))
        starts = np.concatenate(([0], ends[:-1])).astype(np.int64) if len(ends) else ends
        lines = chunk.line + np.arange(len(ends))
    records = [data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    if chunk.container == "array":
        leads = [len(record) - len(record.lstrip(b" \t\r\n,")) for record in records]
        records = [record.strip(b" \t\r\n,") for record in records]
        starts = starts + np.asarray(leads, np.int64)
    keep = [i for i, record in enumerate(records) if len(record) > 80 or record.strip(b" \t\r\n\xef\xbb\xbf")]
    last_is_cut = len(data) < size
    raws = [
        None if len(records[i]) > config.max_line_bytes or (last_is_cut and i == len(records) - 1) else records[i]
        for i in keep
    ]
    table = pa.table(
        [
            pa.array([chunk.path] * len(keep), pa.string()),
            pa.array(lines[keep], pa.int64()),
            pa.array(starts[keep] + chunk.start, pa.int64()),
            pa.array(raws, pa.binary()),
        ],
        schema=LINES,
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _unpack(path: str, target: Path) -> None:
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as out:
            while block := packed.read(_BLOCK):
                out.write(block)
    except EOFError:
        raise SourceError(f"{path}: the gzip file ends too early; it was cut off, get it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: not a valid gzip file: {error}") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be unpacked: {error.strerror or error}") from None


Cut = tuple[int, int, int, str]


def _cut(file: IO[bytes], config: Source) -> tuple[Literal["lines", "array"], list[Cut]]:
    if _is_array(file, config.max_line_bytes):
        return "array", list(_cut_array(file, config.shard_bytes))
    return "lines", list(_cut_lines(file, config.shard_bytes))


def _is_array(file: IO[bytes], cap: int) -> bool:
    """Return whether the file is one JSON array of records, rather than lines of which the first is a list."""
    head = file.read(_BLOCK)
    file.seek(0)
    body = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not body.startswith(b"["):
        return False
    first = file.readline(cap)
    rest = file.read(_BLOCK)
    file.seek(0)
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return True  # the array goes on over the next lines, or is longer than any line may be
    return not rest.strip()


def _cut_lines(file: IO[bytes], shard_bytes: int) -> Iterator[Cut]:
    start, line = 0, 1
    while True:
        state = hashlib.sha256()
        size = lines = 0
        while size < shard_bytes:
            block = file.read(min(_BLOCK, shard_bytes - size))
            if not block:
                break
            state.update(block)
            size += len(block)
            lines += block.count(b"\n")
            last = block[-1:]
        if not size:
            return
        while last != b"\n" and (rest := file.readline(_BLOCK)):  # to the end of the line, however long
            state.update(rest)
            size += len(rest)
            last = rest[-1:]
            lines += last == b"\n"
        yield start, start + size, line, state.hexdigest()
        start += size
        line += lines


def _cut_array(file: IO[bytes], shard_bytes: int) -> Iterator[Cut]:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        opening = data.find(b"[") + 1
        start, line, count, end = opening, 1, 0, opening
        for end in _ends(data, opening):
            count += 1
            if end - start >= shard_bytes:
                yield start, end, line, hashlib.sha256(memoryview(data)[start:end]).hexdigest()
                start, line, count = end, line + count, 0
        if count:
            yield start, end, line, hashlib.sha256(memoryview(data)[start:end]).hexdigest()


def _element_ends(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.fromiter(_ends(data, 0), np.int64)


def _ends(data: bytes | mmap.mmap, position: int) -> Iterator[int]:
    """Yield where each element ends in the inside of an array that begins at `position`.

    Elements are what stands between commas at depth 0; a broken one keeps its bytes, and ingest says what is wrong.
    """
    depth, has_content = 0, False
    end = position
    for match in _TOKEN.finditer(data, position):
        kind = match[0][:1]
        if kind in b"[{":
            depth += 1
        elif kind in b"]}":
            depth -= 1
            if depth < 0:  # the array's own closing bracket
                break
        if kind == b"," and depth == 0:
            if has_content:
                yield end
            has_content = False
        else:
            has_content = True
            end = match.end()
    if has_content:
        yield end
