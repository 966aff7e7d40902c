"""--fresh, obeyed once: a trainer that is started again after a crash gets the words of the first time, and is to go on."""

import os
import shutil
from pathlib import Path
from typing import Final

MARK: Final = ".fresh"
"""File in RUN/train that names the start which emptied it."""


def is_emptied(home: Path) -> bool:
    """Tell whether this very command has emptied `home` already."""
    start, is_again = _start()
    try:
        return start is not None and is_again and (home / MARK).read_text() == start
    except FileNotFoundError:
        return False


def empty(home: Path, *, but: str) -> None:
    """Remove everything in `home` except the file `but`, and note which start did it."""
    for path in home.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != but:
            path.unlink()
    start, _ = _start()
    if start is not None:
        (home / MARK).write_text(start)


def _start() -> tuple[str | None, bool]:
    """Return the name that all starts of one command share, if there may be several, and whether this may be a later one."""
    if named := os.environ.get("CHATLOOM_START"):  # by `chatloom train`, anew each time
        return named, True
    # torchrun's name for a job may be that of the job before, but it counts
    return os.environ.get("TORCHELASTIC_RUN_ID"), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
