"""Where the bytes of compressed files wait until their chunks are read: a small file for each chunk."""

import hashlib
from pathlib import Path
from typing import Final

import pyarrow as pa

from pipeline.source.chunk import SourceError
from schemas.files import TEMPORARY

_CODEC: Final = "zstd"
_LEVEL: Final = 1


def write_piece(directory: Path, path: str, start: int, data: bytes | bytearray) -> tuple[str, str]:
    """Write a chunk's bytes, packed, into `directory`; return (where, the sha256 of the bytes).

    Its name says which file, which place and which bytes. Raises SourceError when they cannot be written.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    target = (
        directory / f"{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}-{start}-{sha256[:16]}"
    )
    partial = target.with_name(f"{TEMPORARY}{target.name}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(pa.Codec(_CODEC, _LEVEL).compress(pa.py_buffer(data), asbytes=True) if data else b"")
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SourceError(f"{path}: cannot be unpacked into {directory}: {error.strerror or error}") from None
    return str(target), sha256


def gone(path: str, piece: str) -> SourceError:
    """Return what to raise where a piece of the file at `path` is missing or damaged, and remove those that are left of it.

    After a loss of power there may be more of the kind; the next build unpacks the file anew.
    """
    for left in Path(piece).parent.glob(f"{Path(piece).name.partition('-')[0]}-*"):
        left.unlink(missing_ok=True)
    return SourceError(f"{path}: what was unpacked of it is damaged, or gone from {piece}; run the build again")


def read_piece(piece: str, size: int) -> bytes:
    """Return the `size` bytes of a chunk that write_piece wrote. Raises OSError, also for one that is damaged."""
    packed = Path(piece).read_bytes()
    data: bytes = pa.Codec(_CODEC).decompress(packed, size, asbytes=True) if size else b""
    return data
