"""What a process that only builds leaves unloaded: companions that libraries look for and our stages never use."""

import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

UNUSED: Final = ("pandas", "scipy")
"""pyarrow asks for the first when it meets a list, numba for the second when it meets an array: 0.25 s a process."""
EXTENSIONS: Final = "numba.core.entrypoints"
"""Loads whatever announces itself to numba: awkward, which comes with gigatoken and which no kernel here takes; 0.2 s."""


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
