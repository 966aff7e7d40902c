"""Files cut into chunks."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline.source.chunk import Chunk, SourceError, TableContainer
from pipeline.source.columnar import kind_of, scan_columnar, unpack
from pipeline.source.compressed import Gzip, Zstd
from pipeline.source.containers import container_of, enough, refuse_wide
from pipeline.source.cutting import BLOCK, BOM, Container, Cut, cut_lines, cut_whole
from pipeline.source.delimited_chunks import cut_delimited
from pipeline.source.dialect import TableError, TableSettings
from pipeline.source.elements import BLANK, indent_of
from pipeline.source.inputs import DELIMITED_SUFFIXES, TEXT_SUFFIXES
from pipeline.source.opening import COMPRESSED, Ahead, Counted, open_file
from pipeline.source.settings import Source
from pipeline.source.spool import write_piece
from pipeline.source.urls import without_query
from pipeline.source.values import SMALL, cut_values

Watch = Callable[[int, int], None]
"""Told how many bytes of a file have been read, of how many, as they lie on disk."""


def unwatched(done: int, total: int) -> None:
    """Say nothing."""


def scan(
    path: str,
    config: Source,
    spool_dir: Path,
    rules: str | None = None,
    *,
    at: str | None = None,
    watch: Watch = unwatched,
    needed: Collection[int] | None = None,
    table: TableSettings = TableSettings(),  # noqa: B008 - frozen
) -> list[Chunk]:
    """Return the chunks of the file at `path`, in order, which lies at `at` if given.

    A compressed file is unpacked as it is read, each chunk into a piece of its own in `spool_dir`; with `needed`, only
    those that begin there. Chunks of lines end at the first line end at or after every `shard_bytes`, so appending to a
    file leaves all but its last few as they were. Raises SourceError when the file cannot be read, or nothing of it be unpacked.
    """
    place = at or path
    kind = kind_of(without_compression(path))
    try:
        file, total = open_file(place)
        with Counted(file, lambda done: watch(done, total)) as raw:
            stream = _unpacked(path, place, raw)
            if kind is not None:
                return _columns(path, kind, config, spool_dir, rules, stream, at=at, needed=needed, watch=watch)
            text = Ahead(raw.read if stream is None else stream.read)
            way = _way(path, text, config, table)
            chunks = []
            for cut in way.cuts:
                spool, sha256 = None, ""
                if stream is not None and (needed is None or cut.start in needed):
                    spool, sha256 = write_piece(spool_dir, path, cut.start, cut.held)
                chunks.append(
                    Chunk(
                        path=path,
                        container=way.container,
                        start=cut.start,
                        end=cut.end,
                        line=cut.line,
                        sha256=cut.sha256,
                        n_elements=cut.n_elements,
                        torn=cut.torn,
                        is_last=cut.is_last,
                        indent=way.indent,
                        dialect=way.dialect,
                        rules=rules,
                        at=at,
                        spool=spool,
                        spool_sha256=sha256,
                    )
                )
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    if stream is not None and stream.broken:
        if not chunks:
            raise SourceError(f"{path}: nothing can be unpacked: {stream.broken}. Get the file again, or take it out")
        chunks[-1] = msgspec.structs.replace(chunks[-1], torn=stream.broken)
    return chunks


class _Way(NamedTuple):
    """How a file is cut."""

    container: Container | TableContainer
    indent: str | None
    cuts: Iterator[Cut]
    dialect: str | None = None


def _way(path: str, text: Ahead, config: Source, table: TableSettings) -> _Way:
    shard_bytes, cap = config.shard_bytes, config.max_line_bytes
    head = text.peek(BLOCK)
    refuse_wide(head, path)
    name = without_compression(path)
    if name.endswith(DELIMITED_SUFFIXES):
        return _delimited(path, text, config, table, is_tsv=name.endswith(".tsv"))
    is_text = name.endswith(TEXT_SUFFIXES)
    while not is_text and not enough(head, cap):
        before = len(head)
        head = text.peek(2 * before)
        if len(head) == before:
            break
    container: Container = "lines" if is_text else container_of(head, name)
    if container == "lines":
        return _Way(container, None, cut_lines(text.read, shard_bytes, cap))
    if container == "whole":
        return _Way(container, None, cut_whole(text.read, shard_bytes, cap))
    inside = head[:BLOCK].removeprefix(BOM).lstrip(BLANK)
    indent = indent_of(inside.removeprefix(b"["), container)
    is_small = len(head) < SMALL
    cuts = cut_values(text.read, container, indent, shard_bytes, cap, is_small=is_small)
    return _Way(container, None if indent is None else indent.decode(), cuts)


def _delimited(path: str, text: Ahead, config: Source, table: TableSettings, *, is_tsv: bool) -> _Way:
    try:
        dialect, cuts = cut_delimited(
            text.read, config.shard_bytes, config.max_line_bytes, is_tsv=is_tsv, settings=table
        )
    except TableError as error:
        raise SourceError(f"{path}: {error}") from None
    return _Way("delimited", None, cuts, msgspec.json.encode(dialect).decode())


def _columns(
    path: str,
    kind: TableContainer,
    config: Source,
    spool_dir: Path,
    rules: str | None,
    stream: Gzip | Zstd | None,
    *,
    at: str | None,
    needed: Collection[int] | None,
    watch: Watch,
) -> list[Chunk]:
    if stream is None:
        return scan_columnar(path, kind, config, spool_dir, rules, at=at, needed=needed, watch=watch)
    with unpack(path, stream.read, spool_dir) as unpacked:
        if stream.broken:
            raise SourceError(f"{path}: cannot be unpacked: {stream.broken}. Get the file again, or take it out")
        return scan_columnar(
            path, kind, config, spool_dir, rules, at=at, unpacked=unpacked, needed=needed, watch=unwatched
        )


def without_compression(path: str) -> str:
    """Return a file's name as it would be if the file were not compressed."""
    name = without_query(path)
    return next((name.removesuffix(end) for end in COMPRESSED if name.endswith(end)), name)


def _unpacked(path: str, place: str, raw: Counted) -> Gzip | Zstd | None:
    """Return what unpacks an open file, None for one that is not compressed."""
    name = without_query(path)
    if name.endswith(".gz"):
        return Gzip(raw)
    if name.endswith(".zst"):
        return Zstd(raw, lambda: Counted(open_file(place)[0]))
    return None
