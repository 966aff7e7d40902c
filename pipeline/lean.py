"""What a process that only builds leaves out: companions that libraries look for, and giving memory back between shards."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

UNUSED: Final = ("pandas", "scipy")
"""pyarrow asks for the first when it meets a list, numba for the second when it meets an array: 0.25 s a process."""
EXTENSIONS: Final = "numba.core.entrypoints"
"""Loads whatever announces itself to numba: awkward, which comes with gigatoken and which no kernel here takes; 0.2 s."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES: Final = 1 << 30
_MAPPED_BYTES: Final = 1 << 25
"""The largest that every glibc accepts."""
KEPT_MEMORY: Final = {"MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": str(_MAPPED_BYTES)}
"""The same for a process that is to be started, in its environment."""


class _NoExtensions(Loader):
    """Makes a module that finds no extensions."""

    def exec_module(self, module: ModuleType) -> None:
        """Define what numba calls."""
        module.__dict__["init_all"] = lambda: None


class _Absent:
    """A finder to which the modules of UNUSED are not installed, and extensions of numba neither."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Raise ModuleNotFoundError for a module of UNUSED, and leave nearly all others to the finders behind."""
        if name.partition(".")[0] in UNUSED:
            raise ModuleNotFoundError(f"{name} is left out of building processes: see pipeline.lean", name=name)
        return ModuleSpec(name, _NoExtensions()) if name == EXTENSIONS else None


def leave_out() -> None:
    """Make the imports of UNUSED fail as if they were not installed, and let numba find no extensions.

    Only for a process of our own, before it has loaded any of them.
    """
    sys.meta_path.insert(0, _Absent)


@contextlib.contextmanager
def with_companions() -> Iterator[None]:
    """Let imports find what leave_out hides, as long as this lasts: for a library that cannot be loaded without."""
    hidden = _Absent in sys.meta_path
    if hidden:
        sys.meta_path.remove(_Absent)
    try:
        yield
    finally:
        if hidden:
            sys.meta_path.insert(0, _Absent)


def keep_memory() -> None:
    """Let the allocator keep what one shard has used for the next one.

    Else it gives buffers of a megabyte back to the system and gets them anew, page by page, each to be cleared: more than half
    of the time of reading and writing. Nothing happens where the C library is not GNU's.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
