"""Directories that appear whole or not at all, as schemas.files does it for files."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from schemas.files import TEMPORARY, sync


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` once everything in it is on disk.

    An error inside leaves `path` as it was. Files are flushed in name order; write a proof of completion under the
    name that sorts last, or give it its own hash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.iterdir()):
            sync(file)
        sync(temporary)
        if path.exists():
            old = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
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
    for leftover in directory.glob(f"{TEMPORARY}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
