"""Compiled: rows from best to worst, each compared exactly with the kept rows it could be a duplicate of."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba import uint32 as u32
from numpy.typing import NDArray

from stages.clusters.compare_kernel import NOBODY, Found, Members, may_reach, weigh, weigh_container
from stages.clusters.rare_kernel import LONG, SHORT, RareIndex, look_up, post
from stages.pointers import halves_at

Bools = NDArray[np.bool_]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


class Buckets(NamedTuple):
    """Which buckets each unit is in, and which kept units each bucket holds."""

    first: I64
    """Where the buckets of a unit begin; one more at the end."""
    shared: I32
    sizes: I32
    """Units that share it."""
    begin: I64
    """Where the kept units of a bucket begin, of which it lists no more than its room; one more at the end."""
    end: I64
    kept: I32


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def keep_greedily(
    order: I32,
    members: Members,
    buckets: Buckets,
    index: RareIndex,
    thresholds: F64,
    is_turns: Bools,
    copies: int,
    crowd: int,
) -> tuple[I32, F64, NDArray[np.int8], I32]:
    """Return each row's keeper (NOBODY if it is kept), their similarity (NaN), its scope (-1), and the row's cluster.

    `order` lists rows from best to worst, references first. A row is removed in the first scope in which a reference, or
    `copies` kept rows, are at least that scope's threshold similar to it. Rows that are kept although others are similar
    to them are in one cluster, which is named by its best row.

    Only kept rows enter their buckets, so a bucket of true duplicates costs one comparison per row. A bucket lists its
    first `crowd` kept units; later ones are found by their rare shingles, so a bucket of boilerplate costs what texts
    really have in common.
    """
    n_rows, n_units, n_scopes = len(members.is_reference), len(members.sizes), len(thresholds)
    # two kept rows are never alike, so one that is wholly similar is the only one; references may be alike
    is_settling_at_all = copies == 1 and not members.is_reference.any()
    # the search that met a unit last (a row, in scope "turns"), so that two meet once
    seen_by = np.full(n_units, np.int32(NOBODY))
    keeper = np.full(n_rows, np.int32(NOBODY))
    similarity = np.full(n_rows, np.nan)
    scope_of = np.full(n_rows, np.int8(-1))
    cluster = np.arange(n_rows).astype(np.int32)
    found = Found(np.empty(1, np.int32), np.empty(1, np.float64), np.empty(copies, np.int32), np.empty(1, np.int64))
    similar_to = np.empty(n_scopes * copies, np.int32)
    for row in order:
        n_similar = 0
        for scope in range(0 if members.is_reference[row] else n_scopes):
            begin, end = members.first_unit[row * n_scopes + scope], members.first_unit[row * n_scopes + scope + 1]
            if begin == end:
                continue
            found.best[0], found.similarity[0], found.n[0] = NOBODY, thresholds[scope], 0
            sought = _least_shared(begin, end, buckets) if is_turns[scope] else begin
            if sought == NOBODY:
                continue
            is_settling = is_settling_at_all and not is_turns[scope]
            search = Search(
                begin,
                end,
                sought,
                thresholds[scope],
                n_scopes,
                is_turns[scope],
                copies,
                is_settling,
                members.rank[row] * n_scopes + scope,
            )
            _find_similar(search, crowd, members, buckets, index, found, seen_by)
            best = found.best[0]
            if best != NOBODY and (members.is_reference[best] or found.n[0] == copies):
                keeper[row], similarity[row], scope_of[row] = best, found.similarity[0], scope
                break
            n_similar = _remember(found, similar_to, n_similar)
        if keeper[row] == NOBODY:
            for k in range(n_similar):
                _unite(cluster, members.rank, row, similar_to[k])
            _enter(row, thresholds, members, buckets, index)
    _name_clusters(cluster, keeper)
    return keeper, similarity, scope_of, cluster


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _remember(found: Found, similar_to: I32, n: int) -> int:
    """Append the rows found, which do not suffice to remove the one that was compared, and return how many there are."""
    for k in range(found.n[0]):
        similar_to[n] = found.others[k]
        n += 1
    return n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _name_clusters(cluster: I32, keeper: I32) -> None:
    """Give each row the root of its cluster, which for a removed row is its keeper's."""
    for row in range(len(cluster)):
        if keeper[row] == NOBODY:
            cluster[row] = _root(cluster, row)
    for row in range(len(cluster)):
        if keeper[row] != NOBODY:
            cluster[row] = cluster[keeper[row]]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def crowding_units(buckets: Buckets, n_units: int, crowd: int) -> Bools:
    """Say which units are in a bucket that may come to hold more than `crowd` kept ones."""
    is_crowding = np.zeros(n_units, np.bool_)
    for unit in range(n_units):
        for at in range(buckets.first[unit], buckets.first[unit + 1]):
            if buckets.sizes[buckets.shared[at]] > crowd:
                is_crowding[unit] = True
    return is_crowding


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _root(cluster: I32, row: int) -> int:
    while cluster[row] != row:
        cluster[row] = cluster[cluster[row]]
        row = cluster[row]
    return row


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _unite(cluster: I32, rank: I32, row: int, other: int) -> None:
    """Make one cluster of two, named by the better of their best rows."""
    a, b = _root(cluster, row), _root(cluster, other)
    if rank[a] < rank[b]:
        cluster[b] = a
    else:
        cluster[a] = b


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _enter(row: int, thresholds: F64, members: Members, buckets: Buckets, index: RareIndex) -> None:
    """Enter the units of a kept row into their buckets, and into the index where one of them is full."""
    n_scopes = len(thresholds)
    for unit in range(members.first_unit[row * n_scopes], members.first_unit[(row + 1) * n_scopes]):
        was_full = False
        for at in range(buckets.first[unit], buckets.first[unit + 1]):
            bucket = buckets.shared[at]
            if buckets.end[bucket] == buckets.begin[bucket + 1]:
                was_full = True
            else:
                buckets.kept[buckets.end[bucket]] = unit
                buckets.end[bucket] += 1
        if was_full:
            values = halves_at(members.addresses[unit], members.sizes[unit])
            n_short, n_long = look_up(index, unit, values, thresholds[members.scope[unit]])
            post(index, unit, n_short, n_long)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _least_shared(begin: int, end: int, buckets: Buckets) -> int:
    """Return which of the units begin:end shares its buckets with the fewest others; NOBODY if one shares none."""
    found, fewest = begin, np.int64(1) << 60
    for unit in range(begin, end):
        n_others = np.int64(0)
        for at in range(buckets.first[unit], buckets.first[unit + 1]):
            n_others += buckets.sizes[buckets.shared[at]]
        if n_others == 0:
            return NOBODY
        if n_others < fewest:
            found, fewest = unit, n_others
    return found


class Search(NamedTuple):
    """The search for the kept rows that are similar to one row in one scope."""

    begin: int
    end: int
    """The row's units in the scope."""
    sought: int
    """The one of them by which others are met."""
    threshold: float
    n_scopes: int
    is_turns: bool
    """Whether each of the units must have a similar one in the other row; else there is one of each."""
    copies: int
    is_settling: bool
    """Whether one that is wholly similar ends the search."""
    stamp: int
    """The number of this search, by which rows know that they were met in it."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _find_similar(
    search: Search, crowd: int, members: Members, buckets: Buckets, index: RareIndex, found: Found, seen_by: I32
) -> None:
    """Find the kept rows that are similar: in the buckets of the unit sought, and where those are full, by rare shingles."""
    sought, is_turns, stamp, bound = search.sought, search.is_turns, np.int32(search.stamp), search.threshold
    # fields of a tuple are counted references whenever they are named, which here would take most of the time
    sizes, bitmaps, rows, scopes = members.sizes, members.bitmaps, members.row, members.scope
    shared, begins, ends, kept = buckets.shared, buckets.begin, buckets.end, buckets.kept
    is_crowded = False
    for at in range(buckets.first[sought], buckets.first[sought + 1]):
        bucket = shared[at]
        begin, end = begins[bucket], ends[bucket]
        for k in range(begin, end):
            other = kept[k]
            mark = rows[other] if is_turns else other
            if seen_by[mark] != stamp:
                seen_by[mark] = stamp
                if is_turns or may_reach(sought, other, bound, sizes, bitmaps):
                    bound = _weigh(other, search, members, found)
        is_crowded |= end - begin == crowd
        if search.is_settling and bound == 1.0 and found.best[0] != NOBODY:
            return
    if not is_crowded:
        return
    n_short, n_long = look_up(index, sought, halves_at(members.addresses[sought], sizes[sought]), search.threshold)
    mask, keys, heads, units, following = (
        u32(len(index.counts) - 1),
        index.keys,
        index.heads,
        index.units,
        index.following,
    )
    for i in range(n_long):
        slot = u32(keys[i]) & mask
        # its short prefix meets the long ones of larger sets, its long prefix the short ones of smaller sets
        for prefix in range(SHORT, LONG + 1 if i < n_short else LONG):
            posting = heads[prefix, slot]
            while posting >= 0:
                other = units[posting]
                mark = rows[other] if is_turns else other
                if seen_by[mark] != stamp and scopes[other] == scopes[sought]:
                    seen_by[mark] = stamp
                    if is_turns or may_reach(sought, other, bound, sizes, bitmaps):
                        bound = _weigh(other, search, members, found)
                posting = following[posting]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _weigh(other: int, search: Search, members: Members, found: Found) -> float:
    """Compare with the row of a kept unit, and return how similar the next one must be at least."""
    if search.is_turns:
        weigh_container(
            search.begin,
            search.end,
            search.sought,
            members.row[other],
            search.threshold,
            search.n_scopes,
            members,
            found,
            search.copies,
        )
    else:
        weigh(search.sought, other, search.threshold, members, found, search.copies)
    return found.similarity[0] if search.is_settling else search.threshold
