"""Compiled: the distinct values of a list, ascending."""

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.signatures.network import LANES, exchange_vectors, merge_block, sort_block

U32 = NDArray[np.uint32]

_VECTORS = 16  # of a block that is sorted in registers
_BYTES = 4 * LANES
SORT_ROOM: Final = LANES * _VECTORS
"""Values beyond the last one that sorting overwrites."""
_MAX = np.uint32(0xFFFFFFFF)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sort_distinct(values: U32, n: int, distinct: U32) -> int:
    """Sort values[:n], write each once to `distinct`, ascending, and return how many there are.

    `values` has SORT_ROOM more values than n. Time grows with n log(n)^2, but by the vector, and nothing is guessed: up
    to some thousand values that is faster than any sort that looks at one after another.
    """
    sort_values(values, n)
    n_repeated = 0
    for i in range(1, n):
        n_repeated += values[i] == values[i - 1]
    if n_repeated == 0:
        for i in range(n):
            distinct[i] = values[i]
        return n
    n_distinct = 0
    previous = np.int64(-1)
    for i in range(n):  # always write, count only what is new: no branch to guess
        value = np.int64(values[i])
        distinct[n_distinct] = values[i]
        n_distinct += value != previous
        previous = value
    return n_distinct


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sort_values(values: U32, n: int) -> None:
    """Sort values[:n]; the up to SORT_ROOM values after them become the greatest value there is."""
    at = np.uint64(values.ctypes.data)
    padded = SORT_ROOM
    while n <= padded // 2 and padded > 2 * LANES:
        padded //= 2
    padded = max(padded, -(-n // SORT_ROOM) * SORT_ROOM if n > SORT_ROOM else 0)
    for i in range(n, padded):
        values[i] = _MAX
    if padded == 2 * LANES:
        sort_block(at, 2)
    elif padded == 4 * LANES:
        sort_block(at, 4)
    elif padded == 8 * LANES:
        sort_block(at, 8)
    else:
        n_blocks = padded // SORT_ROOM
        for i in range(n_blocks):
            sort_block(at + np.uint64(i * _VECTORS * _BYTES), _VECTORS)
        run = 1
        while run < n_blocks:
            for first in range(0, n_blocks - run, 2 * run):
                _merge_runs(at + np.uint64(first * _VECTORS * _BYTES), run, min(2 * run, n_blocks - first))
            run *= 2


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _merge_runs(at: Any, run: int, n_blocks: int) -> None:
    """Merge a sorted run of so many blocks with the sorted rest of n_blocks, at most as many, bitonically.

    What is missing to two whole runs would be the greatest values, which no exchange would move.
    """
    n_vectors = n_blocks * _VECTORS
    last = 2 * run * _VECTORS - 1
    for i in range(last + 1 - n_vectors, run * _VECTORS):
        exchange_vectors(at + np.uint64(i * _BYTES), at + np.uint64((last - i) * _BYTES), 1)
    distance = run * _VECTORS // 2
    while distance >= _VECTORS:
        for start in range(0, n_vectors - distance, 2 * distance):
            for i in range(start, min(start + distance, n_vectors - distance)):
                exchange_vectors(at + np.uint64(i * _BYTES), at + np.uint64((i + distance) * _BYTES), 0)
        distance //= 2
    for i in range(n_blocks):
        merge_block(at + np.uint64(i * _VECTORS * _BYTES), _VECTORS)
