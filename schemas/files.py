"""Files that appear whole or not at all: the one way in which builder and trainer write."""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

TEMPORARY: Final = ".tmp-"
"""Prefix of names that may hold half a file; only names that begin with it may."""


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one, never a part.

    Temporary file, fsync, rename, fsync of the directory. Raises OSError, which names the path; the temporary file is then
    removed.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(6)}")
    # O_EXCL and O_NOFOLLOW: never write through a link that somebody laid at the temporary name.
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk is met by a write, which knows no name
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    sync(path.parent)


def write_if_changed(path: Path, data: bytes) -> None:
    """Write `data` to `path` unless it holds just that already."""
    if not (path.is_file() and path.read_bytes() == data):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)


def remove(path: Path) -> None:
    """Remove the file at `path`, lastingly; nothing happens if there is none."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync(path.parent)


def sha256_of(path: Path) -> str:
    """Return the hash of a file's bytes, read in blocks. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a directory, survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
