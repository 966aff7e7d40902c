"""Compiled: an index of rare shingles, for buckets so crowded that reading them row by row would be quadratic.

Two sets whose Jaccard similarity is at least t share a shingle among the rarest few of each (prefix filtering:
Chaudhuri, Ganti and Kaushik, A Primitive Operator for Similarity Joins, 2006; Bayardo, Ma and Srikant, Scaling Up All
Pairs Similarity Search, 2007). Boilerplate is what is not rare, so texts that share nothing else never meet here, and
no pair that is similar enough is lost.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba import uint32 as u32
from numba import uint64 as u64
from numpy.typing import NDArray

from stages.clusters.set_kernel import largest_difference
from stages.pointers import halves_at

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]

SHORT = 0
LONG = 1
"""Which prefix a posting is of. The smaller of two similar sets shares a shingle of its short prefix with the long one
of the larger."""

_SLOTS_PER_UNIT = 32
"""At most; different shingles in one slot only make candidates more, which verification rejects."""


class RareIndex(NamedTuple):
    """Postings of units under their rarest shingles; a slot is a shingle's last bits."""

    counts: I32
    """Units that have a shingle of this slot: what makes it common or rare."""
    heads: I32
    """Latest posting of each slot, -1 if none: shape (2, slots)."""
    units: I32
    following: I32
    """Of each posting: its unit, and the posting before it in the same slot."""
    n_postings: I64
    keys: U64
    """Room for a unit's shingles, the rarest first."""
    looked_up: I64
    """Whose they are, and how many of them make its short and its long prefix: shape (3,)."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def index_sizes(
    is_crowding: NDArray[np.bool_], sizes: I32, scopes: NDArray[np.uint8], thresholds: F64
) -> tuple[int, int, int]:
    """Return slots and postings that an index of the crowding units needs at most, and the shingles of the longest."""
    n_shingles = n_units = n_postings = longest = 0
    for unit in range(len(sizes)):
        if is_crowding[unit]:
            threshold = thresholds[scopes[unit]]
            n_units += 1
            n_shingles += sizes[unit]
            n_postings += short_prefix(sizes[unit], threshold) + long_prefix(sizes[unit], threshold)
            longest = max(longest, sizes[unit])
    n_slots = 1
    while n_slots < min(n_shingles, _SLOTS_PER_UNIT * n_units):
        n_slots *= 2
    return n_slots, n_postings, longest


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_slots(index: RareIndex, is_crowding: NDArray[np.bool_], addresses: U64, sizes: I32) -> None:
    """Make an index of zeros ready for the units that crowd a bucket: their shingles counted, none of them posted.

    The order from rare to common is fixed here: by count, then by hash. One order serves all scopes; units of different
    scopes may meet, and are told apart by who finds them.
    """
    mask = u32(len(index.counts) - 1)
    for unit in range(len(sizes)):
        if is_crowding[unit]:
            for value in halves_at(addresses[unit], sizes[unit]):
                index.counts[value & mask] += 1
    index.heads[:] = -1
    index.looked_up[0] = -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def short_prefix(size: int, threshold: float) -> int:
    """Return how many of its rarest shingles a set needs to meet every similar set that is not smaller."""
    return int(largest_difference(2 * size, threshold)) // 2 + 1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def long_prefix(size: int, threshold: float) -> int:
    """Return how many of its rarest shingles a set needs to meet every similar set."""
    overlap = int(np.ceil(threshold * size))  # the least that two sets of which one has this size must share
    while overlap > 0 and (overlap - 1) / size >= threshold:
        overlap -= 1
    while overlap / size < threshold:
        overlap += 1
    return size - overlap + 1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def look_up(index: RareIndex, unit: int, values: U32, threshold: float) -> tuple[int, int]:
    """Write a unit's rare shingles to index.keys, and return how many make its short and its long prefix.

    Shingles that no other unit has belong to both prefixes, but can meet nobody and are left out. The short prefix comes
    first; within a prefix there is no order.
    """
    if index.looked_up[0] == unit:
        return index.looked_up[1], index.looked_up[2]
    mask = u32(len(index.counts) - 1)
    n_alone = n = 0
    for value in values:
        count = index.counts[value & mask]
        if count == 1:
            n_alone += 1
        else:
            index.keys[n] = u64(count) << u64(32) | u64(value)
            n += 1
    n_long = max(long_prefix(len(values), threshold) - n_alone, 0)
    n_short = max(short_prefix(len(values), threshold) - n_alone, 0)
    smallest_first(index.keys, n, n_long)
    smallest_first(index.keys, n_long, n_short)
    index.looked_up[0], index.looked_up[1], index.looked_up[2] = unit, n_short, n_long
    return n_short, n_long


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def smallest_first(keys: U64, n: int, n_first: int) -> None:
    """Bring the `n_first` smallest of the distinct keys[:n] before the others (Hoare, Algorithm 65: Find, 1961)."""
    low, high = 0, n - 1
    while low < high and 0 < n_first < n:
        pivot = keys[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if n_first - 1 <= j:
            high = j
        elif n_first - 1 >= i:
            low = i
        else:
            return


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def post(index: RareIndex, unit: int, n_short: int, n_long: int) -> None:
    """Enter a unit under the prefixes that `look_up` has just written."""
    mask = u32(len(index.counts) - 1)
    for k in range(n_long):
        slot = u32(index.keys[k]) & mask
        for prefix in range(SHORT if k < n_short else LONG, LONG + 1):
            posting = index.n_postings[0]
            index.n_postings[0] += 1
            index.units[posting] = unit
            index.following[posting] = index.heads[prefix, slot]
            index.heads[prefix, slot] = posting
