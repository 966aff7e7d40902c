"""SplitMix64 (Steele et al. 2014): numbers that look random and follow from their names alone, on any version of anything."""

from typing import Final

import numpy as np
import numpy.typing as npt

_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
_MASK: Final = (1 << 64) - 1


def mixed(*names: int) -> int:
    """Return 64 bits that follow from `names`, in their order, each taken modulo 2^64."""
    found = 0
    for name in names:
        x = ((found ^ (name & _MASK)) + _GOLDEN) & _MASK
        x = ((x ^ (x >> 30)) * _FIRST) & _MASK
        x = ((x ^ (x >> 27)) * _SECOND) & _MASK
        found = x ^ (x >> 31)
    return found


def sequence(start: int, n: int) -> npt.NDArray[np.uint64]:
    """Return the first `n` numbers of the generator whose state is `start`."""
    with np.errstate(over="ignore"):
        x = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(start)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_FIRST)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_SECOND)
        x ^= x >> np.uint64(31)
    return x
