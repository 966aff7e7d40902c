"""Compiled: the distinct values of a list, ascending."""

from typing import Any, Final

import numpy as np
from numba import njit

from stages.pointers import halves_at
from stages.signatures.network import LANES, exchange_vectors, merge_block, sort_block

_VECTORS = 16  # of a block that is sorted in registers
_BYTES = 4 * LANES
SORT_ROOM: Final = LANES * _VECTORS
"""Values beyond the last one that sorting overwrites."""
_MAX = np.uint32(0xFFFFFFFF)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sort_distinct(address: Any, n: int, target: Any) -> int:
    """Sort the n values at an address, write each once at another, ascending, and return how many there are.

    At the first there is SORT_ROOM for more values. Time grows with n log(n)^2, but by the vector, and nothing is guessed: up
    to some thousand values that is faster than any sort that looks at one after another.
    """
    sort_values(address, n)
    values, distinct = halves_at(address, n), halves_at(target, n)
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
def sort_values(at: Any, n: int) -> None:
    """Sort the n values at an address; the up to SORT_ROOM values after them become the greatest value there is."""
    padded = SORT_ROOM
    while n <= padded // 2 and padded > 2 * LANES:
        padded //= 2
    padded = max(padded, -(-n // SORT_ROOM) * SORT_ROOM if n > SORT_ROOM else 0)
    values = halves_at(at, padded)
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
