"""Compiled: bands of MinHash values to buckets of units that share one."""

from typing import Any

import numpy as np
from numba import njit
from numba import uint32 as u32
from numpy.typing import NDArray

ALONE = -1
"""The bucket of a unit that shares a band with no other."""

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def band_keys(minhash: U32, n_values: int, keys: U32) -> None:
    """Write a 32-bit key of each band of each unit: `keys` has the shape (bands, units).

    Units that share a band share its key. Two different bands with one key (once in 4 billion pairs) only make a
    candidate more, which verification rejects.
    """
    n_bands, n_units = keys.shape
    for unit in range(n_units):
        at = 0
        for band in range(n_bands):
            h = np.uint64(band)
            for _ in range(n_values):
                h = (h ^ np.uint64(minhash[unit, at])) * np.uint64(0x9E3779B97F4A7C15)
                h ^= h >> np.uint64(32)
                at += 1
            keys[band, unit] = u32(h)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def share_buckets(
    keys: U32, is_out: NDArray[np.bool_], key: U32, n_partitions: int, n_shared: NDArray[np.uint16], n: int
) -> I32:
    """Replace one band's keys by numbers of the buckets with two units or more, from `n` on, else by ALONE.

    Returns the sizes of the new buckets. `n_shared` counts of each unit the bands that it shares; units that are out
    (of rows that take no part) share none. `key` has room for the band's keys.

    An open-addressing table of the keys seen takes 8 to 16 bytes a unit; taken partition by partition, which their leading
    bits name, keys need a table of only that part. It changes the buckets' numbers, but not what is in them.
    """
    n_units = len(keys)
    in_partition = np.zeros(n_partitions, np.int64)
    for unit in range(n_units):
        key[unit] = keys[unit]
        keys[unit] = u32(ALONE)
        in_partition[_partition(key[unit], n_partitions)] += 1
    capacity = 16
    while capacity < 2 * in_partition.max():
        capacity *= 2
    first = np.empty(capacity, np.int32)
    mask = u32(capacity - 1)
    sizes = np.empty(1024, np.int32)
    n_new = 0
    for partition in range(n_partitions):
        first[:] = -1
        for unit in range(n_units):
            if is_out[unit] or (n_partitions > 1 and _partition(key[unit], n_partitions) != partition):
                continue
            slot = key[unit] & mask
            while first[slot] >= 0 and key[first[slot]] != key[unit]:
                slot = (slot + u32(1)) & mask
            other = first[slot]
            if other < 0:
                first[slot] = unit
                continue
            if keys[other] == u32(ALONE):
                if n_new == len(sizes):
                    sizes = np.concatenate((sizes, sizes))
                keys[other] = u32(n + n_new)
                n_shared[other] += np.uint16(1)
                sizes[n_new] = 1
                n_new += 1
            keys[unit] = keys[other]
            n_shared[unit] += np.uint16(1)
            sizes[np.int64(keys[unit]) - n] += 1
    return sizes[:n_new].copy()


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _partition(key: Any, n_partitions: int) -> Any:
    """Return which partition a key is of; slots go by its last bits."""
    return np.int64((np.uint64(key) * np.uint64(n_partitions)) >> np.uint64(32))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def list_buckets(buckets: U32, unit_of: I32, fill: I64, n: int, listed: I32) -> None:
    """Append one band's buckets, numbered from `n` on, to the lists of their units: listed[fill[unit_of[k]]]."""
    for k in range(len(buckets)):
        if buckets[k] != u32(ALONE):
            unit = unit_of[k]
            listed[fill[unit]] = np.int32(buckets[k]) + n
            fill[unit] += 1
