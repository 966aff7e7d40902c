"""What a worker process leaves unloaded: companions that libraries look for and our stages never use."""

import sys
from importlib.machinery import ModuleSpec
from typing import Final

UNUSED: Final = ("pandas", "scipy")
"""pyarrow asks for the first when it meets a list, numba for the second when it meets an array: a quarter of a second."""


class _Absent:
    """A finder to which the modules of UNUSED are not installed."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Raise ModuleNotFoundError for a module of UNUSED, and leave all others to the finders behind."""
        if name.partition(".")[0] in UNUSED:
            raise ModuleNotFoundError(f"{name} is left out of worker processes: see pipeline.lean", name=name)
        return None


def leave_out() -> None:
    """Make the imports of UNUSED fail as if they were not installed, and numba's extensions none.

    Only for a process of our own, before it has loaded any of them.
    """
    sys.meta_path.insert(0, _Absent)
    from numba.core import entrypoints

    # awkward, which comes with gigatoken, announces types for numba that no kernel here takes: a fifth of a second
    entrypoints._already_initialized = True
