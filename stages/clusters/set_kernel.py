"""Compiled: exact comparison of two sets of shingles, and exact reasons not to make it."""

import numpy as np
from numba import njit
from numba import uint32 as u32
from numba import uint64 as u64
from numpy.typing import NDArray

from stages.pointers import halves_at

WORDS = 8
"""64-bit words of a bitmap: one cache line."""

I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fill_bitmaps(addresses: U64, sizes: I32, bitmaps: U64) -> None:
    """Make each set's bitmap of zeros: bit k is the parity of the number of its members whose last nine bits are k."""
    for at in range(len(sizes)):
        for value in halves_at(addresses[at], sizes[at]):
            bitmaps[at, (value >> u32(6)) & u32(WORDS - 1)] ^= u64(1) << u64(value & u32(63))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def copy_sets(addresses: U64, sizes: I32, values: U32) -> U64:
    """Copy sets to `values`, one after the other, and return where they are there."""
    copied = np.empty(len(sizes), np.uint64)
    base, begin = np.uint64(values.ctypes.data), 0
    for at in range(len(sizes)):
        values[begin : begin + sizes[at]] = halves_at(addresses[at], sizes[at])
        copied[at] = base + np.uint64(4 * begin)
        begin += sizes[at]
    return copied


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def differing_bits(bitmaps: U64, one: int, other: int) -> int:
    """Return in how many bits the bitmaps of two sets differ, which is never more than |A ^ B|.

    A bit differs only if an odd number of the shingles that fall on it are in one set alone (Sandes, Teodoro and Melo,
    Bitmap Filter: Speeding up Exact Set Similarity Joins with Bitwise Operations, 2020).
    """
    n = u64(0)
    for word in range(WORDS):
        x = bitmaps[one, word] ^ bitmaps[other, word]
        # a population count: the compiler makes one instruction of it
        x = x - ((x >> u64(1)) & u64(0x5555555555555555))
        x = (x & u64(0x3333333333333333)) + ((x >> u64(2)) & u64(0x3333333333333333))
        x = (x + (x >> u64(4))) & u64(0x0F0F0F0F0F0F0F0F)
        n += (x * u64(0x0101010101010101)) >> u64(56)
    return int(n)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def largest_difference(total: int, threshold: float) -> int:
    """Return the largest |A ^ B| at which sets of `total` members together reach the threshold; -1 if none does.

    Exact: it is total - 2 * o for the smallest overlap o with o / (total - o) >= threshold, in the float64 arithmetic
    that also decides.
    """
    overlap = int(np.ceil(threshold / (1 + threshold) * total))
    while overlap > 0 and (overlap - 1) / (total - overlap + 1) >= threshold:
        overlap -= 1
    while overlap / (total - overlap) < threshold:
        overlap += 1
    return max(total - 2 * overlap, -1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def overlap_within(a: U32, b: U32, allowed: int) -> int:
    """Return |A & B| of two ascending arrays, or -1 as soon as more than `allowed` values are in one alone."""
    i = j = common = 0
    n_a, n_b = len(a), len(b)
    while i < n_a and j < n_b:
        x, y = a[i], b[j]
        common += x == y
        i += x <= y
        j += y <= x
        if i + j - 2 * common > allowed:
            return -1
    return common if n_a + n_b - 2 * common <= allowed else -1
