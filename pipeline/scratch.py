"""Scratch memory in a file: what does not fit in a stage's budget lies in the run directory while the stage runs."""

import errno
import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.files import TEMPORARY


@dataclass(frozen=True)
class Scratch:
    """Gives arrays in unlinked files of a directory: they go with their arrays, or with the process however it ends."""

    root: Path

    def __call__(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return `n_bytes` zero bytes. Raises OSError, naming directory and size, when the disk has no room for them."""
        if n_bytes == 0:
            return np.zeros(0, np.uint8)
        with tempfile.TemporaryFile(dir=self.root, prefix=TEMPORARY) as file:
            try:
                # Without its blocks set aside, a full disk would be met by a write to memory, which kills the process.
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"no {n_bytes / (1 << 30):,.2f} GiB for a temporary file ({_reason(error)}); free some space there, or "
                    "let clustering take more memory: raise [clusters] memory",
                    str(self.root),
                ) from None
            return np.frombuffer(mmap.mmap(file.fileno(), n_bytes), np.uint8)  # the map outlives the handle


def _reason(error: OSError) -> str:
    return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
