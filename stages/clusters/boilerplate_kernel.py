"""Compiled: in how many units a shingle is, and units without the shingles that are in too many."""

import numpy as np
from numba import njit
from numba import uint32 as u32
from numba import uint64 as u64
from numpy.typing import NDArray

from stages.pointers import halves_at

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

LOW = 10
"""Bits that shingles of one slot differ in: 1,024 shingles share a counter of the first pass."""
SLOTS = 1 << (32 - LOW)
_FILTER = 20
"""Leading bits that a bitmap of the common shingles knows."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_slots(addresses: U64, sizes: I32, counts: U32) -> None:
    """Add to counts (SLOTS) the shingles of each slot."""
    for unit in range(len(sizes)):
        for value in halves_at(addresses[unit], sizes[unit]):
            counts[value >> u32(LOW)] += u32(1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_shingles(addresses: U64, sizes: I32, place: I32, counts: U32) -> None:
    """Add to counts (places, 1 << LOW) each shingle of a slot that has a place (not -1)."""
    for unit in range(len(sizes)):
        for value in halves_at(addresses[unit], sizes[unit]):
            at = place[value >> u32(LOW)]
            if at >= 0:
                counts[at, value & u32((1 << LOW) - 1)] += u32(1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def filter_shingles(addresses: U64, sizes: I32, scopes: NDArray[np.uint8], common: U32, bounds: I64) -> tuple[U32, I64]:
    """Return the units' shingles but those common in their scope, and where each unit's begin (units + 1).

    Of scope s that is common[bounds[s]:bounds[s + 1]], ascending. A unit that would have none left keeps all.
    """
    bitmaps = np.zeros((len(bounds) - 1, 1 << (_FILTER - 6)), np.uint64)
    for scope in range(len(bounds) - 1):
        for value in common[bounds[scope] : bounds[scope + 1]]:
            bit = value >> u32(32 - _FILTER)
            bitmaps[scope, bit >> u32(6)] |= u64(1) << u64(bit & u32(63))
    total = 0
    for unit in range(len(sizes)):
        total += sizes[unit]
    values = np.empty(total, np.uint32)
    starts = np.zeros(len(sizes) + 1, np.int64)
    filled = 0
    for unit in range(len(sizes)):
        bitmap = bitmaps[scopes[unit]]
        of_scope = common[bounds[scopes[unit]] : bounds[scopes[unit] + 1]]
        for value in halves_at(addresses[unit], sizes[unit]):
            values[filled] = value
            bit = value >> u32(32 - _FILTER)
            if (bitmap[bit >> u32(6)] >> u64(bit & u32(63))) & u64(1) == 0:
                filled += 1
            else:
                at = np.searchsorted(of_scope, value)
                filled += at == len(of_scope) or of_scope[at] != value
        if filled == starts[unit]:
            for value in halves_at(addresses[unit], sizes[unit]):
                values[filled] = value
                filled += 1
        starts[unit + 1] = filled
    return values[:filled], starts
