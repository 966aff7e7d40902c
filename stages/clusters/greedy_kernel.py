"""Compiled: rows from best to worst, each compared exactly with the kept rows it could be a duplicate of."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba import uint32 as u32
from numpy.typing import NDArray

from stages.clusters.bucket_kernel import ALONE
from stages.clusters.pointers import values_at
from stages.clusters.rare_kernel import LONG, SHORT, RareIndex, empty_index, post, rarest
from stages.clusters.set_kernel import differing_bits, largest_difference, overlap_within

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]

NOBODY = -1
"""The keeper of a row that is kept."""


class Rows(NamedTuple):
    """What a comparison needs to know of every row."""

    addresses: U64
    """Where its shingles lie."""
    sizes: I32
    bitmaps: U64
    rank: I32
    """When it was visited: the better of two rows has the lower rank."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def keep_greedily(
    order: NDArray[np.uint32],
    buckets: I32,
    bucket_sizes: I32,
    addresses: U64,
    sizes: I32,
    bitmaps: U64,
    threshold: float,
    crowd: int,
) -> tuple[I32, F64]:
    """Return each row's keeper (NOBODY if it is kept) and their similarity (NaN if it is kept).

    `order` lists rows from best to worst. Only kept rows enter their buckets, so a bucket of true duplicates costs one
    comparison per row. A bucket lists its first `crowd` kept rows; later ones are found by their rare shingles, so a
    bucket of boilerplate costs what rows really have in common.
    """
    n_rows, n_bands = buckets.shape
    begin = np.zeros(len(bucket_sizes) + 1, np.int64)
    begin[1:] = np.cumsum(np.minimum(bucket_sizes, crowd))
    members = np.empty(begin[-1], np.int32)  # of each bucket: its kept rows, best first
    end = begin[:-1].copy()
    index = empty_index(_crowding_rows(buckets, bucket_sizes, crowd), addresses, sizes, threshold)
    rows = Rows(addresses, sizes, bitmaps, np.empty(n_rows, np.int32))
    seen_by = np.full(n_rows, np.int32(NOBODY))  # the row that met this one last, so that two rows meet once
    keeper = np.full(n_rows, np.int32(NOBODY))
    similarity = np.full(n_rows, np.nan)
    for visit in range(n_rows):
        row = np.int64(order[visit])
        rows.rank[row] = visit
        found, best, is_crowded = NOBODY, threshold, False
        for band in range(n_bands):
            bucket = buckets[row, band]
            if bucket == ALONE:
                continue
            for k in range(begin[bucket], end[bucket]):
                other = members[k]
                if seen_by[other] != row:
                    seen_by[other] = row
                    found, best = _compare(row, other, found, best, rows)
            is_crowded |= end[bucket] - begin[bucket] == crowd
            if found != NOBODY and best == 1.0:
                break  # two kept rows are never alike, so no other is as similar
        n_short = n_long = 0
        if is_crowded and not (found != NOBODY and best == 1.0):
            n_short, n_long = rarest(index, values_at(addresses[row], sizes[row]), threshold)
            found, best = _most_similar(row, found, best, rows, seen_by, index, n_short, n_long)
        if found != NOBODY:
            keeper[row] = found
            similarity[row] = best
        elif _enter(row, buckets[row], members, begin, end, crowd):
            post(index, row, n_short, n_long)
    return keeper, similarity


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _crowding_rows(buckets: I32, bucket_sizes: I32, crowd: int) -> NDArray[np.bool_]:
    """Say which rows are in a bucket that may come to hold more than `crowd` kept rows."""
    is_crowding = np.zeros(len(buckets), np.bool_)
    for row in range(len(buckets)):
        for bucket in buckets[row]:
            if bucket != ALONE and bucket_sizes[bucket] > crowd:
                is_crowding[row] = True
    return is_crowding


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _enter(row: int, buckets: I32, members: I32, begin: I64, end: I64, crowd: int) -> bool:
    """Enter a kept row into its buckets and say whether one of them was full."""
    was_full = False
    for bucket in buckets:
        if bucket == ALONE:
            continue
        if end[bucket] - begin[bucket] == crowd:
            was_full = True
        else:
            members[end[bucket]] = row
            end[bucket] += 1
    return was_full


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _most_similar(
    row: int, found: int, best: float, rows: Rows, seen_by: I32, index: RareIndex, n_short: int, n_long: int
) -> tuple[int, float]:
    """Compare a row with all that meet it in the index, and return the best found so far and its similarity."""
    mask = u32(len(index.counts) - 1)
    for k in range(n_long):
        slot = u32(index.keys[k]) & mask
        # its short prefix meets the long ones of larger sets, its long prefix the short ones of smaller sets
        for prefix in range(SHORT, LONG + 1 if k < n_short else LONG):
            posting = index.heads[prefix, slot]
            while posting >= 0:
                other = index.rows[posting]
                if seen_by[other] != row:
                    seen_by[other] = row
                    found, best = _compare(row, other, found, best, rows)
                posting = index.following[posting]
    return found, best


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _compare(row: int, other: int, found: int, best: float, rows: Rows) -> tuple[int, float]:
    """Return the more similar to `row` of `found` and `other`, and how similar it is; of equals, the better.

    `best` is what `other` must reach. All filters are exact, from cheap to dear: sizes, then bitmaps, then a merge that
    stops when too much differs.
    """
    size, other_size = rows.sizes[row], rows.sizes[other]
    total = size + other_size
    # what may differ is (1 - best) / (1 + best) of the total; the exact bound takes longer, and few pairs need it
    at_most = (1 - best) / (1 + best) * total + 1
    if abs(size - other_size) > at_most or differing_bits(rows.bitmaps, row, other) > at_most:
        return found, best
    own, others = values_at(rows.addresses[row], size), values_at(rows.addresses[other], other_size)
    common = overlap_within(own, others, largest_difference(total, best))
    if common < 0:
        return found, best
    similar = common / (total - common)
    if found == NOBODY or similar > best or rows.rank[other] < rows.rank[found]:
        return other, similar
    return found, best
