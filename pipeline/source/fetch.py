"""The bytes of a chunk, proven to be those that were scanned."""

import hashlib

from pipeline.source import delimited_chunks
from pipeline.source.chunk import Chunk, SourceError
from pipeline.source.cutting import BLOCK, most_held
from pipeline.source.opening import open_file
from pipeline.source.settings import Source
from pipeline.source.spool import gone, read_piece


def fetch(chunk: Chunk, config: Source) -> bytes:
    """Return the chunk's bytes, no more than a shard and one record at the cap, after hashing all of them.

    Raises SourceError when they are no longer those that were scanned.
    """
    size = chunk.end - chunk.start
    limit = delimited_chunks.most_held if chunk.container == "delimited" else most_held
    held = min(size, limit(config.shard_bytes, config.max_line_bytes))
    try:
        data, sha256 = _unpacked(chunk, held) if chunk.spool else _ranged(chunk, size, held)
    except OSError as error:
        raise SourceError(f"{chunk.path}: cannot be read: {error.strerror or error}") from None
    if chunk.spool and sha256 != chunk.spool_sha256:
        raise gone(chunk.path, chunk.spool)
    if not chunk.spool and sha256 != chunk.sha256:
        raise SourceError(
            f"{chunk.path}: bytes {chunk.start:,} to {chunk.end:,} changed while the build was reading them. Run it again "
            "when nothing writes to the file"
        )
    return data


def _unpacked(chunk: Chunk, held: int) -> tuple[bytes, str]:
    assert chunk.spool is not None
    try:
        data = read_piece(chunk.spool, held)
    except OSError:  # somebody has removed or damaged it
        return b"", ""
    return data, hashlib.sha256(data).hexdigest()


def _ranged(chunk: Chunk, size: int, held: int) -> tuple[bytes, str]:
    file, _ = open_file(chunk.at or chunk.path, from_start=False)
    try:
        file.seek(chunk.start)
        data = file.read(held)
        state = hashlib.sha256(data)
        left = size - len(data)
        while left and (block := file.read(min(BLOCK, left))):
            state.update(block)
            left -= len(block)
    finally:
        file.close()
    return data, state.hexdigest()
