"""Input files as bounded chunks of lines: nothing is read whole, and a chunk is known by the bytes it holds."""

import glob
import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.cutting import BLANK, BLOCK, BOM, Container, Elements, container_of, cut_array, cut_lines
from schemas.errors import UserError
from schemas.files import TEMPORARY, sha256_of
from schemas.settings import ConfigError
from schemas.tables import LINES

SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
TEXT_SUFFIXES: Final = (".txt", ".txt.gz")
"""Lines of plain text: they can be compared with, but hold no conversations."""


class SourceError(UserError):
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
    container: Container
    start: int
    """First byte, of the decompressed file."""
    end: int
    line: int
    """1-based number of its first line, or of its first element."""
    sha256: str
    """Of its bytes."""
    n_elements: int = 0
    """Elements of an array; lines are not counted."""
    is_torn: bool = False
    """The array ends with this chunk, but without its closing bracket."""
    spool: str | None = None
    """For a compressed file: where its decompressed bytes lie while they are needed."""

    def digest(self) -> str:
        """Return a text that changes whenever a row that comes out of this chunk would."""
        return f"{self.path} {self.container} {self.start} {self.line} {self.sha256} {self.is_torn}"


def expand(
    inputs: Sequence[str], *, what: str = "input", suffixes: tuple[str, ...] = SUFFIXES
) -> tuple[list[str], list[str]]:
    """Return (input files, ignored files): each once, globs and directories expanded in sorted order.

    Ignored is what a directory holds beside files of a known kind. Raises ConfigError for an input that names no file, and
    for a file of a kind that is not read.
    """
    if not inputs:
        raise ConfigError("[source] inputs is empty: name files, directories or globs, or give --input PATH")
    paths: dict[tuple[int, int], str] = {}  # the same file under two names is read once
    ignored: list[str] = []
    for given in inputs:
        if not given.strip():  # it would be the current directory: a variable of the shell that is not set
            raise ConfigError(
                f"{what} {given!r}: expected the path of a file, a directory or a glob, got an empty text"
            )
        path = Path(given)
        if path.is_file():
            found = [given]
        elif path.is_dir():
            inside = sorted(str(p) for p in path.iterdir())
            found = [name for name in inside if name.endswith(suffixes) and Path(name).is_file()]
            ignored += [name for name in inside if name not in found]
        else:
            found = sorted(p for p in glob.glob(given, recursive=True) if Path(p).is_file())  # noqa: PTH207 - ** and case
        if not found:
            lacks = "the directory holds" if path.is_dir() else "no such file, and there is"
            raise ConfigError(f"{what} {given!r}: {lacks} no {', '.join(suffixes)} file (seen from {Path.cwd()})")
        for name in found:
            if not name.endswith(suffixes):
                raise ConfigError(f"{what} {name}: cannot read this kind of file; known: {', '.join(suffixes)}")
            if not name.isprintable():
                raise ConfigError(f"{what} {name!a}: the name holds characters that cannot be printed; rename the file")
            status = Path(name).stat()
            paths.setdefault((status.st_dev, status.st_ino), name)
    return list(paths.values()), ignored


def scan(path: str, config: Source, spool_dir: Path) -> list[Chunk]:
    """Return the chunks of the file at `path`, in order; a compressed one is unpacked into `spool_dir` on the way.

    Chunks of lines end at the first line end at or after every `shard_bytes`, so appending to a file leaves all but its
    last chunk as they were. Raises SourceError when the file cannot be read or unpacked.
    """
    try:
        readable = unpack(path, spool_dir) if path.endswith(".gz") else Path(path)
        with readable.open("rb") as file:
            is_text = path.endswith(TEXT_SUFFIXES)
            container = "lines" if is_text else container_of(file, path.removesuffix(".gz"), config.max_line_bytes)
            cuts = list((cut_array if container == "array" else cut_lines)(file, config.shard_bytes))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    spool = None if readable == Path(path) else str(readable)
    return [
        Chunk(
            path=path,
            container=container,
            start=cut.start,
            end=cut.end,
            line=cut.line,
            sha256=cut.sha256,
            n_elements=cut.n_elements,
            is_torn=cut.is_torn,
            spool=spool,
        )
        for cut in cuts
    ]


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
    columns = [
        pa.array(sources, pa.string()),
        pa.array(numbers, pa.int64()),
        pa.array(offsets, pa.int64()),
        pa.array(raws, pa.binary()),
    ]
    frame = pl.from_arrow(pa.table(columns, schema=LINES))
    assert isinstance(frame, pl.DataFrame)
    return frame


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


def unpack(path: str, spool_dir: Path) -> Path:
    """Return the unpacked copy of a gzip file, making it if need be; its name is the hash of the packed bytes."""
    name = sha256_of(Path(path))
    target = spool_dir / name
    if target.exists():
        return target
    spool_dir.mkdir(parents=True, exist_ok=True)
    partial = spool_dir / f"{TEMPORARY}{name}"
    try:
        with gzip.open(path, "rb") as source, partial.open("wb") as out:
            while block := source.read(BLOCK):
                out.write(block)
    except EOFError:
        raise SourceError(f"{path}: the gzip file ends too early; it was cut off, get it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: not a valid gzip file: {error}") from None
    partial.replace(target)
    return target
