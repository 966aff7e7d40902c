"""Memory that a process on a CPU keeps for the next step, where the C library would hand it back and ask for it anew."""

import contextlib
import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Parameters of glibc's mallopt, by their numbers in malloc.h."""


def keep_pages() -> None:
    """Let glibc take blocks of up to 1 GB from memory that was freed before, and keep it; elsewhere, do nothing.

    Blocks above 32 MB, such as logits, would be mapped each time they are made, and each of their pages filled with zeros.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
