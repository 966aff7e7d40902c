"""Compiled: bands of MinHash values to buckets of rows that share one."""

import numpy as np
from numba import njit
from numba import uint32 as u32
from numpy.typing import NDArray

from stages.clusters.pointers import values_at

ALONE = -1
"""The bucket of a row that shares a band with no other."""

I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def band_keys(addresses: U64, sizes: I32, n_bands: int, n_values: int) -> I32:
    """Return a 32-bit key of each band of each row: shape (rows, bands).

    Rows that share a band share its key. Two different bands with one key (once in 4 billion pairs) only make a
    candidate more, which verification rejects.
    """
    keys = np.empty((len(sizes), n_bands), np.int32)
    for row in range(len(sizes)):
        minhash = values_at(addresses[row], n_bands * n_values)
        at = 0
        for band in range(n_bands):
            h = np.uint64(band)
            for _ in range(n_values):
                h = (h ^ np.uint64(minhash[at])) * np.uint64(0x9E3779B97F4A7C15)
                h ^= h >> np.uint64(32)
                at += 1
            keys[row, band] = np.int32(u32(h))
    return keys


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def bucket_rows(keys: I32, sizes: I32) -> I32:
    """Replace the keys by numbers of the buckets with two rows or more, else by ALONE; return the buckets' sizes.

    One open-addressing table of row numbers serves band after band: 8 to 16 bytes per row. Rows without shingles
    (size 0) join no bucket.
    """
    n_rows, n_bands = keys.shape
    capacity = 16
    while capacity < 2 * n_rows:
        capacity *= 2
    mask = u32(capacity - 1)
    first = np.empty(capacity, np.int32)
    band_key = np.empty(n_rows, np.uint32)
    bucket_sizes = np.empty(1024, np.int32)
    n_buckets = 0
    for band in range(n_bands):
        first[:] = -1
        for row in range(n_rows):
            band_key[row] = u32(keys[row, band])
            keys[row, band] = ALONE
            if sizes[row] == 0:
                continue
            slot = band_key[row] & mask
            while first[slot] >= 0 and band_key[first[slot]] != band_key[row]:
                slot = (slot + u32(1)) & mask
            other = first[slot]
            if other < 0:
                first[slot] = row
                continue
            if keys[other, band] == ALONE:
                if n_buckets == len(bucket_sizes):
                    bucket_sizes = np.concatenate((bucket_sizes, bucket_sizes))
                keys[other, band] = n_buckets
                bucket_sizes[n_buckets] = 1
                n_buckets += 1
            keys[row, band] = keys[other, band]
            bucket_sizes[keys[row, band]] += 1
    return bucket_sizes[:n_buckets]
