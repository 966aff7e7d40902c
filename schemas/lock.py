"""One writer at a time on a run directory."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import UserError


class LockedError(UserError):
    """Another process writes the run directory."""

    exit_code = 75


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`. Raises LockedError, naming the holder, when another process has it.

    The kernel frees the lock when its holder dies, however it dies: there is no stale lock to remove by hand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise LockedError(
                f"{path.parent}: another process is writing this run ({holder}). Wait for it, stop it, or use another --run"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()
