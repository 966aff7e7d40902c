"""Memory within a budget: arrays that do not fit in it lie in a file, which the operating system pages in and out."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Spill = Callable[[int], NDArray[np.uint8]]
"""Number of bytes to as many zero bytes that lie in a temporary file; whoever runs the stage knows where."""


@dataclass
class Memory:
    """A number of bytes to be given out; what exceeds it is asked of `spill`."""

    budget: int
    spill: Spill | None = None
    """None: all arrays lie in memory, whatever the budget says."""
    used: int = 0
    spilled: int = 0

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike, *, most: float = 1.0) -> NDArray[Any]:
        """Return an array of zeros, in memory if it fits and takes no more than the share `most` of the budget."""
        kind = np.dtype(dtype)
        size = prod(shape) if isinstance(shape, tuple) else shape
        n_bytes = size * kind.itemsize
        if self.spill is None or n_bytes <= min(self.left, most * self.budget):
            self.used += n_bytes
            return np.zeros(shape, kind)
        self.spilled += n_bytes
        return self.spill(n_bytes).view(kind).reshape(shape)

    def release(self, array: NDArray[Any]) -> None:
        """Say that an array from here is no longer needed; it is the caller who forgets it."""
        if array.base is None:
            self.used -= array.nbytes

    @property
    def left(self) -> int:
        """Return how many bytes are still to be given out."""
        return max(self.budget - self.used, 0)
