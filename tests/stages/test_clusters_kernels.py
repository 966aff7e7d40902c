"""The compiled parts of clusters: filters that lose nothing, the index of rare shingles, units where they lie."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.scopes import SCOPES
from stages.clusters.rare_kernel import (
    LONG,
    SHORT,
    RareIndex,
    count_slots,
    index_sizes,
    long_prefix,
    look_up,
    post,
    short_prefix,
    smallest_first,
)
from stages.clusters.set_kernel import differing_bits, fill_bitmaps, largest_difference, overlap_within
from stages.clusters.units import read_units
from stages.pointers import halves_at
from tests.stages.clustering import (
    boilerplate,
    signed,
    signed_texts,
)


def test_rows_that_share_only_boilerplate_hardly_meet_in_the_index() -> None:
    rng = np.random.default_rng(17)
    # any two are 100 / 132 = 0.76 similar, so they share most of their bands
    for n in (500, 1_000):
        sets = [values[:116] for values in boilerplate(n, rng, common=100, own=16)]
        units = read_units(signed(sets))
        every = np.ones(n, np.bool_)
        n_slots, n_postings, longest = index_sizes(every, units.sizes, units.scopes, np.full(4, 0.8))
        index = RareIndex(
            np.zeros(n_slots, np.int32),
            np.zeros((2, n_slots), np.int32),
            np.zeros(n_postings, np.int32),
            np.zeros(n_postings, np.int32),
            np.zeros(1, np.int64),
            np.zeros(longest, np.uint64),
            np.zeros(3, np.int64),
        )
        count_slots(index, every, units.addresses, units.sizes)
        n_met = 0  # through slots that different shingles share
        for row in range(n):
            n_short, n_long = look_up(index, row, np.unique(sets[row]).astype(np.uint32), 0.8)
            slots = index.keys[:n_long] & np.uint64(len(index.counts) - 1)
            for prefix, probed in ((SHORT, slots), (LONG, slots[:n_short])):
                for posting in index.heads[prefix][probed]:
                    while posting >= 0:
                        n_met += 1
                        posting = index.following[posting]
            post(index, row, n_short, n_long)
        assert n_met < 4 * n  # of n * n / 2 pairs
        assert index.n_postings[0] > n  # of long prefixes, which reach into the boilerplate


@settings(deadline=None)
@given(st.sets(st.integers(0, 50)), st.data())
def test_the_smallest_come_first_and_none_is_lost(values: set[int], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(sorted(values)))
    n_first = data.draw(st.integers(0, len(values)))
    keys = np.array([*shuffled, 99, 0], np.uint64)  # what is beyond n stays
    smallest_first(keys, len(values), n_first)
    assert sorted(keys[:n_first]) == sorted(values)[:n_first]
    assert sorted(keys[: len(values)]) == sorted(values)
    assert keys[len(values) :].tolist() == [99, 0]


@settings(deadline=None)
@given(st.integers(2, 2_000), st.floats(0.01, 1))
def test_the_largest_difference_is_the_last_that_reaches_the_threshold(total: int, threshold: float) -> None:
    reaching = [total - 2 * o for o in range(total // 2 + 1) if o / (total - o) >= threshold]
    assert largest_difference(total, threshold) == max(reaching, default=-1)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 200), st.floats(0.05, 1))
def test_prefixes_leave_out_fewer_shingles_than_similar_sets_must_share(size: int, more: int, threshold: float) -> None:
    larger = size + more
    overlaps = [o for o in range(1, size + 1) if o / (size + larger - o) >= threshold]
    if overlaps:
        assert size - short_prefix(size, threshold) < overlaps[0]
        assert larger - long_prefix(larger, threshold) < overlaps[0]


@settings(deadline=None)
@given(st.sets(st.integers(0, 60), min_size=1), st.sets(st.integers(0, 60), min_size=1), st.integers(-1, 70))
def test_filters_never_reject_what_is_similar_enough(a: set[int], b: set[int], allowed: int) -> None:
    frame = signed([sorted(a), sorted(b)])
    units = read_units(frame)
    bitmaps = np.zeros((2, 8), np.uint64)
    fill_bitmaps(units.addresses, units.sizes, bitmaps)
    difference = len(a ^ b)
    assert differing_bits(bitmaps, 0, 1) <= difference
    left, right = (np.array(sorted(values), np.uint32) for values in (a, b))
    assert overlap_within(left, right, allowed) == (len(a & b) if difference <= allowed else -1)


def test_units_are_read_where_they_lie_in_slices_and_chunks() -> None:
    texts = [[("conversation", [1]), ("turns", [2, 3])], [], [("prompt", [4, 5, 6])], [("answer", [7])]]
    frame = signed_texts(texts)
    for each in (frame, frame[1:3], pl.concat([frame[3:], frame[:2]], rechunk=False)):
        units = read_units(each)
        read = [halves_at(*unit).tolist() for unit in zip(units.addresses, units.sizes, strict=True)]
        flat = each.explode("units", empty_as_null=False, keep_nulls=False).unnest("units")
        assert read == flat["shingles"].to_list()
        assert [SCOPES[code] for code in units.scopes] == flat["scope"].to_list()
        assert units.exact.tobytes() == b"".join(flat["exact_hash"])
        assert units.minhash.tolist() == flat["minhash"].to_list()
        assert each["id"].gather(units.rows).to_list() == flat["id"].to_list()
