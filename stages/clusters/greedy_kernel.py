"""Compiled: rows from best to worst, each compared exactly with the kept rows that share a bucket with it."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.clusters.bucket_kernel import ALONE
from stages.clusters.pointers import values_at
from stages.clusters.set_kernel import differing_bits, largest_difference, overlap_within

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]

NOBODY = -1
"""The keeper of a row that is kept."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def keep_greedily(
    order: NDArray[np.uint32],
    buckets: I32,
    bucket_sizes: I32,
    addresses: U64,
    sizes: I32,
    bitmaps: U64,
    threshold: float,
) -> tuple[I32, F64]:
    """Return each row's keeper (NOBODY if it is kept) and their similarity (NaN if it is kept).

    `order` lists rows from best to worst. Only kept rows enter their buckets, so a bucket of true duplicates costs one
    comparison per row.
    """
    n_rows, n_bands = buckets.shape
    begin = np.zeros(len(bucket_sizes) + 1, np.int64)
    begin[1:] = np.cumsum(bucket_sizes)
    members = np.empty(begin[-1], np.int32)  # of each bucket: its kept rows, best first
    end = begin[:-1].copy()
    seen_by = np.full(n_rows, NOBODY, np.int32)  # the row that last met this one, so that it meets it once
    rank = np.empty(n_rows, np.int32)
    keeper = np.full(n_rows, NOBODY, np.int32)
    similarity = np.full(n_rows, np.nan)
    for visit in range(n_rows):
        row = np.int64(order[visit])
        rank[row] = visit
        best = threshold
        for band in range(n_bands):
            bucket = buckets[row, band]
            if bucket == ALONE:
                continue
            kept = members[begin[bucket] : end[bucket]]
            found, best = _most_similar(row, kept, keeper[row], best, seen_by, rank, addresses, sizes, bitmaps)
            keeper[row] = found
            if found != NOBODY and best == 1.0:
                break  # two kept rows are never alike, so no other is as similar
        if keeper[row] != NOBODY:
            similarity[row] = best
            continue
        for band in range(n_bands):
            bucket = buckets[row, band]
            if bucket != ALONE:
                members[end[bucket]] = row
                end[bucket] += 1
    return keeper, similarity


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _most_similar(
    row: int,
    kept: I32,
    found: int,
    best: float,
    seen_by: I32,
    rank: I32,
    addresses: U64,
    sizes: I32,
    bitmaps: U64,
) -> tuple[int, float]:
    """Return the kept row most similar to `row` and how similar it is, given the best so far; of equals, the better.

    All filters are exact, from cheap to dear: sizes, then bitmaps, then a merge that stops when too much differs.
    """
    size = sizes[row]
    own = values_at(addresses[row], size)
    for other in kept:
        if seen_by[other] == row:
            continue
        seen_by[other] = row
        other_size = sizes[other]
        if min(size, other_size) / max(size, other_size) < best:
            continue
        allowed = largest_difference(size + other_size, best)
        if differing_bits(bitmaps[row], bitmaps[other]) > allowed:
            continue
        common = overlap_within(own, values_at(addresses[other], other_size), allowed)
        if common < 0:
            continue
        similar = common / (size + other_size - common)
        if found == NOBODY or similar > best or rank[other] < rank[found]:
            found, best = other, similar
    return found, best
