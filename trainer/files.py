"""Writing whole or not at all: temporary name, flush to disk, rename, flush the directory."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file or a directory entry to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Give `path` this content; after a crash it has the old one or the new one, never a mixture."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o644), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` once everything in it is on disk.

    An error inside leaves `path` as it was. Files are flushed in name order; write a proof of completion under the
    name that sorts last, or give it its own hash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.iterdir()):
            sync(file)
        sync(temporary)
        if path.exists():
            old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(directory: Path) -> None:
    """Remove what a killed process left under temporary names."""
    for leftover in directory.glob(".*.tmp"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
