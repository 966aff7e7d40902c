"""Compiled: the MinHash sketch of datasketch's scheme "affine32"."""

from typing import Any

import numpy as np
from numba import njit
from numba import uint32 as u32
from numpy.typing import NDArray

from stages.machine import least_lanes

U32 = NDArray[np.uint32]

LANES = 16
"""Values of one vector."""
_GROUP = 4  # vectors that are kept in registers, with their factors and terms, while all shingles of a text go by

# numba widens the product of two uint32 to uint64, so every step is cut back to 32 bits


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fmix32(h: Any) -> Any:
    """Mix 32 bits as MurmurHash3's finalizer does, a bijection."""
    h = u32(u32(h ^ (h >> u32(16))) * u32(0x85EBCA6B))
    h = u32(u32(h ^ (h >> u32(13))) * u32(0xC2B2AE35))
    return u32(h ^ (h >> u32(16)))


def sketch_rows(shingles: U32, starts: NDArray[np.int64], a: U32, b: U32) -> U32:
    """Return min over a row's shingles of a * fmix32(shingle) + b mod 2^32: shape (rows, num_perm), all ones if none.

    Row r has shingles[starts[r]:starts[r + 1]]; num_perm is a multiple of LANES.
    """
    # NumPy asks the system for large pages, compiled code does not: 30 MB in small ones take 7 ms to come by
    minhash = np.empty((len(starts) - 1, len(a)), np.uint32)
    _sketch(shingles, starts, np.ascontiguousarray(a), np.ascontiguousarray(b), minhash)
    return minhash


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sketch(shingles: U32, starts: NDArray[np.int64], a: U32, b: U32, minhash: U32) -> None:
    """Write the sketches. The minima stay in registers while the shingles of a row go by."""
    n_rows, num_perm = minhash.shape
    longest = 0
    for row in range(n_rows):
        longest = max(longest, starts[row + 1] - starts[row])
    mixed = np.empty(longest, np.uint32)
    factors, terms, hashes = np.uint64(a.ctypes.data), np.uint64(b.ctypes.data), np.uint64(mixed.ctypes.data)
    lowest = np.uint64(minhash.ctypes.data)
    for row in range(n_rows):
        first = starts[row]
        n = starts[row + 1] - first
        for i in range(n):
            mixed[i] = fmix32(shingles[first + i])
        at = np.uint64(0)
        for _ in range(num_perm // (LANES * _GROUP)):
            least_lanes(hashes, n, factors + at, terms + at, lowest + at, _GROUP)
            at += np.uint64(4 * LANES * _GROUP)
        for _ in range(num_perm // LANES % _GROUP):
            least_lanes(hashes, n, factors + at, terms + at, lowest + at, 1)
            at += np.uint64(4 * LANES)
        lowest += np.uint64(4 * num_perm)
