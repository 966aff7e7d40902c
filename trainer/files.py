"""Directories that appear whole or not at all, as schemas.files does it for files."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.files import TEMPORARY, sync

ASIDE: Final = ".old-"
"""Prefix of a directory whose successor is about to take its name."""


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` once everything in it is on disk.

    An error inside leaves `path` as it was. A crash leaves the old directory or the new one, though for a moment under
    another name: `sweep` puts that right. Files get the permissions that the umask gives, and are flushed in name
    order; write a proof of completion under the name that sorts last, or give it its own hash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        usual = temporary.stat().st_mode & 0o666
        for file in sorted(temporary.iterdir()):
            file.chmod(usual)  # safetensors makes files that only their owner may read
            sync(file)
        sync(temporary)
        _exchange(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(temporary: Path, path: Path) -> None:
    """Give `temporary` the name `path`; what had it is removed."""
    if not path.exists():
        temporary.rename(path)
        return
    old = path.with_name(f"{ASIDE}{path.name}")
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def remove_directory(path: Path) -> None:
    """Remove a directory so that a crash leaves all of it or, swept later, nothing under its name."""
    doomed = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def sweep(directory: Path) -> None:
    """Remove what a killed process left under temporary names; put back what it had only moved aside."""
    for old in directory.glob(f"{ASIDE}*"):
        path = directory / old.name.removeprefix(ASIDE)
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)
    for leftover in directory.glob(f"{TEMPORARY}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
