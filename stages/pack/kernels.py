"""Compiled: best-fit decreasing with a bitset over capacities, and the gathering of packed rows."""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def best_fit_decreasing(rows: Ints, lengths: Ints, capacity: int) -> tuple[Ints, Ints]:
    """Return (order, ends): the rows pack by pack, and where each pack ends in `order`, from 0.

    Longest first, equal lengths in the order given; each row goes to the pack with the least room that is enough.
    A pack of free room r hangs in list r; a bit per r says whether the list is empty, so that the best fit is found in
    capacity / 64 steps at most.
    """
    n = len(rows)
    # Counting sort by descending length: stable and linear.
    counts = np.zeros(capacity + 2, np.int64)
    for i in range(n):
        counts[capacity - lengths[rows[i]] + 1] += 1
    for i in range(capacity + 1):
        counts[i + 1] += counts[i]
    by_length = np.empty(n, np.int64)
    for i in range(n):
        slot = capacity - lengths[rows[i]]
        by_length[counts[slot]] = rows[i]
        counts[slot] += 1

    words = np.zeros(capacity // 64 + 1, np.uint64)
    head = np.full(capacity + 1, -1, np.int64)
    below = np.empty(n, np.int64)  # the next pack in the same list
    pack_of = np.empty(n, np.int64)
    n_packs = 0
    for i in range(n):
        need = lengths[by_length[i]]
        room = _first_at_least(words, need, capacity)
        if room < 0:
            pack = n_packs
            n_packs += 1
            room = capacity
        else:
            pack = head[room]
            head[room] = below[pack]
            if head[room] < 0:
                words[room >> 6] &= ~(np.uint64(1) << np.uint64(room & 63))
        pack_of[i] = pack
        room -= need
        below[pack] = head[room]
        head[room] = pack
        words[room >> 6] |= np.uint64(1) << np.uint64(room & 63)

    ends = np.zeros(n_packs + 1, np.int64)
    for i in range(n):
        ends[pack_of[i] + 1] += 1
    for pack in range(n_packs):
        ends[pack + 1] += ends[pack]
    cursor = ends[:-1].copy()
    order = np.empty(n, np.int64)
    for i in range(n):
        order[cursor[pack_of[i]]] = by_length[i]
        cursor[pack_of[i]] += 1
    return order, ends


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _first_at_least(words: NDArray[np.uint64], need: int, capacity: int) -> int:
    word = need >> 6
    bits = words[word] >> np.uint64(need & 63)
    if bits:
        room = need
    else:
        word += 1
        while word < len(words) and words[word] == 0:
            word += 1
        if word == len(words):
            return -1
        bits = words[word]
        room = word << 6
    while not bits & np.uint64(1):
        bits >>= np.uint64(1)
        room += 1
    return room if room <= capacity else -1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def gather(rows: Ints, offsets: Ints, values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the values of `rows` one after another."""
    total = 0
    for i in range(len(rows)):
        total += offsets[rows[i] + 1] - offsets[rows[i]]
    out = np.empty(total, np.int32)
    position = 0
    for i in range(len(rows)):
        first, last = offsets[rows[i]], offsets[rows[i] + 1]
        out[position : position + last - first] = values[first:last]
        position += last - first
    return out
