"""Clusters: held against brute force over every pair, in any order of the rows."""

import struct
from collections.abc import Sequence
from random import Random

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conform import conform
from schemas.tables import CLUSTERED, SIGNED
from stages.clusters import CROWD, Clusters, choose_bands, cluster_rows
from stages.clusters.lists import row_lists
from stages.clusters.pointers import values_at
from stages.clusters.rare_kernel import LONG, SHORT, empty_index, long_prefix, post, rarest, short_prefix
from stages.clusters.set_kernel import bitmap_rows, differing_bits, largest_difference, overlap_within
from stages.signatures import sketch_permutations
from stages.signatures.sketch_kernel import sketch_rows


def signed(
    sets: Sequence[Sequence[int]], *, n_chars: Sequence[int] | None = None, ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the signatures of rows with these shingles; n_chars is their number, if not said otherwise."""
    ascending = [np.unique(np.array(values, np.uint32)) for values in sets]
    starts = np.cumsum([0, *map(len, ascending)])
    a, b = sketch_permutations(128, 1)
    values = np.concatenate([*ascending, np.empty(0, np.uint32)])
    minhash = sketch_rows(values, starts, a, b)
    exact = [struct.pack(">QQ", len(each), hash(each.tobytes()) % 2**64) for each in ascending]
    table = pl.DataFrame(
        {
            "id": ids or [f"a.jsonl:{i + 1}" for i in range(len(sets))],
            "n_chars": n_chars or [len(each) for each in ascending],
            "exact_hash": exact,
            "shingles": [each.tolist() for each in ascending],
            "minhash": minhash.tolist(),
        },
        schema={
            "id": pl.String,
            "n_chars": pl.Int32,
            "exact_hash": pl.Binary,
            "shingles": pl.List(pl.UInt32),
            "minhash": pl.List(pl.UInt32),
        },
    )
    assert conform(table.to_arrow(), SIGNED).num_rows == len(sets)
    return table


def jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def greedy(sets: Sequence[set[int]], order: Sequence[int], threshold: float) -> dict[int, tuple[int, float]]:
    """Return row -> (keeper, similarity) of the removed rows, by comparing every row with every kept row."""
    kept: list[int] = []
    removed = {}
    for row in order:
        found = max(((jaccard(sets[row], sets[k]), -i, k) for i, k in enumerate(kept) if sets[row]), default=None)
        if found and found[0] >= threshold:
            removed[row] = (found[2], found[0])
        elif sets[row]:
            kept.append(row)
    return removed


def planted(similarity: float, n_pairs: int, rng: np.random.Generator, size: int = 100) -> list[np.ndarray]:
    """Return 2 * n_pairs sets: 2k and 2k + 1 are as similar as said, just above where need be; others are strangers."""
    sets = []
    for _ in range(n_pairs):
        overlap = int(np.ceil(2 * size * similarity / (1 + similarity)))
        values = rng.choice(2**32, 2 * size - overlap, replace=False).astype(np.uint32)
        sets += [values[:size], values[-size:]]
    return sets


def removals(out: pl.DataFrame) -> dict[str, tuple[str, float]]:
    gone = out.filter(pl.col("keeper").is_not_null())
    return {row: (keeper, s) for row, keeper, s in gone.select("id", "keeper", "similarity").iter_rows()}


# --- what is removed


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_every_planted_pair_at_or_above_the_threshold_is_found_and_none_below(threshold: float) -> None:
    rng = np.random.default_rng(3)
    at, below = planted(threshold, 150, rng), planted(threshold - 0.02, 150, rng)
    out = cluster_rows(signed(at + below), Clusters(threshold=threshold))
    found = out["keeper"].is_not_null().to_numpy().reshape(-1, 2).any(axis=1)
    # 150 pairs right at the threshold are found with probability 0.999 each; more similar ones practically always
    assert found[:150].sum() >= 148
    assert not found[150:].any()
    clear = cluster_rows(signed(planted(min(threshold + 0.05, 1), 300, rng)), Clusters(threshold=threshold))
    assert clear["keeper"].is_not_null().sum() == 300


SETS = st.lists(st.sets(st.integers(0, 14), max_size=12), max_size=24)


@pytest.mark.parametrize("crowd", [0, 1, CROWD])
@settings(max_examples=100, deadline=None)
@given(SETS, st.sampled_from([0.5, 0.6, 0.75, 0.8, 1.0]), st.randoms(use_true_random=False))
def test_small_sets_are_removed_as_brute_force_would(
    crowd: int, sets: list[set[int]], threshold: float, random: Random
) -> None:
    n_chars = [random.randrange(3) for _ in sets]
    frame = signed([sorted(values) for values in sets], n_chars=n_chars)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.clusters.CROWD", crowd)  # with 0, every candidate comes from the index of rare shingles
        out = cluster_rows(frame, Clusters(threshold=threshold, recall=0.9999999 if threshold < 1 else 0.999))
    order = frame.with_row_index().sort(-pl.col("n_chars"), "exact_hash", "id")["index"].to_list()
    expected = greedy(sets, order, threshold)
    ids = frame["id"].to_list()
    assert removals(out) == {ids[row]: (ids[keeper], similarity) for row, (keeper, similarity) in expected.items()}


def test_every_removed_row_is_as_similar_to_its_keeper_as_it_says() -> None:
    rng = np.random.default_rng(5)
    base = rng.choice(2**32, 300, replace=False)
    sets = [np.concatenate([rng.choice(base, 80, replace=False), rng.integers(0, 2**32, 4)]) for _ in range(300)]
    for k in range(100):
        sets.append(np.concatenate([sets[k][: 84 - k % 20], rng.integers(0, 2**32, k % 7)]))
    out = cluster_rows(signed(sets), Clusters())
    rows = {f"a.jsonl:{i + 1}": {int(v) for v in values} for i, values in enumerate(sets)}
    found = removals(out)
    assert len(found) > 50
    for row, (keeper, similarity) in found.items():
        assert similarity == jaccard(rows[row], rows[keeper]) >= 0.8
        assert keeper not in found
    survivors = [rows[i] for i in rows if i not in found]
    worst = max(jaccard(a, b) for i, a in enumerate(survivors) for b in survivors[:i])
    assert worst < 0.8


def test_a_chain_of_similar_rows_does_not_collapse_into_one() -> None:
    # each shares 90 of 110 shingles (0.82) with the next, but 80 of 120 (0.67) with the one after
    sets = [list(range(10 * k, 10 * k + 100)) for k in range(4)]
    out = cluster_rows(signed(sets, n_chars=[400, 300, 200, 100]), Clusters())
    assert out["keeper"].to_list() == [None, "a.jsonl:1", None, "a.jsonl:3"]
    assert out["n_duplicates"].to_list() == [2, 2, 2, 2]
    assert out["cluster"].n_unique() == 2


def test_the_keeper_is_the_most_similar_and_of_equals_the_better() -> None:
    left, right = list(range(100)), [*range(75), *range(1000, 1025)]
    between, nearer = [*range(88)], [*range(75), *range(1000, 1020)]
    out = cluster_rows(signed([left, right, between, nearer], n_chars=[9, 8, 7, 6]), Clusters(threshold=0.7))
    assert out["keeper"].to_list() == [None, None, "a.jsonl:1", "a.jsonl:2"]
    assert out["similarity"].to_list()[2:] == [0.88, 0.95]
    middle = [*range(75), *range(75, 85), *range(1000, 1010)]  # as similar to the left as to the right
    out = cluster_rows(signed([right, left, middle], n_chars=[8, 9, 7]), Clusters(threshold=0.7))
    assert out["keeper"].to_list() == [None, None, "a.jsonl:2"]


def test_rows_without_shingles_are_kept_alone() -> None:
    out = cluster_rows(signed([[], [1, 2], [], [1, 2]]), Clusters())
    assert out["keeper"].to_list() == [None, None, None, "a.jsonl:2"]
    assert out["cluster"].to_list()[::2] == ["a.jsonl:1", "a.jsonl:3"]
    assert out["n_duplicates"].to_list() == [1, 2, 1, 2]
    assert not out["is_exact"][0]


def test_many_copies_of_one_text_leave_one() -> None:
    out = cluster_rows(signed([list(range(50))] * 5_000), Clusters())
    assert out["keeper"].null_count() == 1
    assert out["n_duplicates"].to_list() == [5_000] * 5_000
    assert out["is_exact"].sum() == 4_999


def test_the_same_shingles_in_another_sequence_are_near_not_exact() -> None:
    frame = signed([[1, 2, 3], [1, 2, 3]]).with_columns(exact_hash=pl.Series([b"a" * 16, b"b" * 16]))
    out = cluster_rows(frame, Clusters())
    assert out["similarity"].to_list() == [None, 1.0]
    assert out["is_exact"].to_list() == [False, False]
    assert out["cluster"].to_list() == ["61" * 16] * 2


# --- boilerplate


def boilerplate(n: int, rng: np.random.Generator, *, common: int, own: int) -> list[np.ndarray]:
    """Return sets of which any two share `common` shingles, and most of their bands, but not the `own` of each."""
    shared = rng.choice(2**32, common, replace=False)
    return [np.concatenate([shared, rng.integers(0, 2**32, own + k % 5)]) for k in range(n)]


def test_duplicates_in_a_crowd_of_boilerplate_are_found_as_brute_force_finds_them() -> None:
    rng = np.random.default_rng(13)
    sets = boilerplate(700, rng, common=80, own=14)  # 0.70 to 0.74 similar
    for k in range(0, 600, 3):
        changed = rng.choice(len(sets[k]), k % 14, replace=False)
        near = sets[k].copy()
        near[changed] = rng.integers(0, 2**32, len(changed))
        sets.append(near)
    frame = signed(sets, n_chars=[int(n) for n in rng.integers(1, 500, len(sets))])
    order = frame.with_row_index().sort(-pl.col("n_chars"), "exact_hash", "id")["index"].to_list()
    expected = greedy([set(map(int, values)) for values in sets], order, 0.8)
    ids = frame["id"].to_list()
    assert 100 < len(expected) < 200
    found = removals(cluster_rows(frame, Clusters()))
    assert found == {ids[row]: (ids[keeper], similarity) for row, (keeper, similarity) in expected.items()}


def test_rows_that_share_only_boilerplate_hardly_meet_in_the_index() -> None:
    rng = np.random.default_rng(17)
    # any two are 100 / 132 = 0.76 similar, so they share most of their bands
    for n in (500, 1_000):
        sets = [values[:116] for values in boilerplate(n, rng, common=100, own=16)]
        rows = row_lists(signed(sets)["shingles"])
        index = empty_index(np.ones(n, np.bool_), rows.addresses, rows.sizes, 0.8)
        n_met = 0  # through slots that different shingles share
        for row in range(n):
            n_short, n_long = rarest(index, np.unique(sets[row]).astype(np.uint32), 0.8)
            slots = index.keys[:n_long] & np.uint64(len(index.counts) - 1)
            for prefix, probed in ((SHORT, slots), (LONG, slots[:n_short])):
                for posting in index.heads[prefix][probed]:
                    while posting >= 0:
                        n_met += 1
                        posting = index.following[posting]
            post(index, row, n_short, n_long)
        assert n_met < 4 * n  # of n * n / 2 pairs
        assert index.n_postings[0] > n  # of long prefixes, which reach into the boilerplate


# --- which row stays


def test_longest_keeps_the_most_characters_and_first_the_lowest_line() -> None:
    frame = signed([[1, 2, 3]] * 3, n_chars=[5, 9, 7], ids=["b.jsonl:10", "b.jsonl:11", "b.jsonl:9"])
    assert cluster_rows(frame, Clusters(keep="longest"))["keeper"].to_list() == ["b.jsonl:11", None, "b.jsonl:11"]
    assert cluster_rows(frame, Clusters(keep="first"))["keeper"].to_list() == ["b.jsonl:9", "b.jsonl:9", None]


def test_first_goes_by_source_and_then_by_line_even_with_colons_in_the_source() -> None:
    ids = ["b:1", "C:\\a.jsonl:20", "C:\\a.jsonl:3", "a:2:9"]
    out = cluster_rows(signed([[1, 2, 3]] * 4, ids=ids), Clusters(keep="first"))
    assert out["keeper"].to_list() == ["C:\\a.jsonl:3", "C:\\a.jsonl:3", None, "C:\\a.jsonl:3"]


@pytest.mark.parametrize("keep", ["longest", "first"])
def test_the_order_of_rows_and_chunks_changes_nothing(keep: str) -> None:
    rng = np.random.default_rng(11)
    base = rng.choice(2**32, 200, replace=False)
    sets = [rng.choice(base[: 110 + k % 40], 100, replace=False) for k in range(120)]
    frame = signed(sets, n_chars=[int(n) for n in rng.integers(1, 9, 120)])
    config = msgspec.convert({"keep": keep, "threshold": 0.75}, Clusters)
    expected = cluster_rows(frame, config)
    assert 10 < expected["keeper"].null_count() < 110
    for _ in range(5):
        order = rng.permutation(120)
        parts = [frame[order[:50]], frame[order[50:51]], frame[order[51:]]]
        out = cluster_rows(pl.concat(parts, rechunk=False), config)
        assert out["id"].to_list() == frame["id"][order].to_list()
        assert out.sort("id").equals(expected.sort("id"))


# --- bands and filters


def test_bands_are_the_longest_that_reach_the_recall() -> None:
    assert choose_bands(128, 0.8, 0.999) == (25, 5)
    assert choose_bands(128, 0.8, 0.99) == (21, 6)
    assert choose_bands(128, 1.0, 0.999) == (1, 128)
    for threshold in (0.3, 0.5, 0.7, 0.9):
        bands, values = choose_bands(128, threshold, 0.999)
        assert 1 - (1 - threshold**values) ** bands >= 0.999
        longer = values + 1
        assert 1 - (1 - threshold**longer) ** (128 // longer) < 0.999


def test_a_threshold_too_low_for_the_sketch_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"threshold=0.02 cannot be found.*128 MinHash values; raise threshold"):
        cluster_rows(signed([[1]]), Clusters(threshold=0.02))


def test_sketches_of_different_widths_are_refused() -> None:
    frame = pl.concat([signed([[1]]), signed([[1]]).with_columns(pl.col("minhash").list.head(64))])
    with pytest.raises(ValueError, match="expected 128 values in every row, got rows with 64 to 128"):
        cluster_rows(frame, Clusters())


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
@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.integers(-1, 70))
def test_filters_never_reject_what_is_similar_enough(a: set[int], b: set[int], allowed: int) -> None:
    frame = signed([sorted(a), sorted(b)])
    rows = row_lists(frame["shingles"])
    bitmaps = bitmap_rows(rows.addresses, rows.sizes)
    difference = len(a ^ b)
    assert differing_bits(bitmaps, 0, 1) <= difference
    left, right = (np.array(sorted(values), np.uint32) for values in (a, b))
    assert overlap_within(left, right, allowed) == (len(a & b) if difference <= allowed else -1)


def test_lists_are_read_where_they_lie_in_slices_and_chunks() -> None:
    column = pl.Series([[1], [2, 3], [], [4, 5, 6], [7]], dtype=pl.List(pl.UInt32))
    for each in (column, column[1:4], pl.concat([column[3:], column[:2]], rechunk=False)):
        rows = row_lists(each)
        read = [values_at(*row).tolist() for row in zip(rows.addresses, rows.sizes, strict=True)]
        assert read == each.to_list()


# --- the table


def test_the_output_has_the_schema_of_clustered() -> None:
    out = cluster_rows(signed([[1, 2], [1, 2], []]), Clusters())
    assert conform(out.to_arrow(), CLUSTERED).num_rows == 3
    assert conform(cluster_rows(signed([]), Clusters()).to_arrow(), CLUSTERED).num_rows == 0


def test_memory_mapped_shards_are_clustered_where_they_lie(tmp_path) -> None:
    rng = np.random.default_rng(2)
    frame = signed(planted(0.9, 30, rng))
    paths = [tmp_path / "0.arrow", tmp_path / "1.arrow"]
    for path, part in zip(paths, (frame[::2], frame[1::2]), strict=True):
        table = conform(part.to_arrow(), SIGNED)
        with pa.ipc.new_file(str(path), SIGNED) as writer:
            writer.write_table(table)
    tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
    mapped = pl.DataFrame(pl.from_arrow(pa.concat_tables(tables), rechunk=False))
    assert mapped["shingles"].n_chunks() == 2
    out = cluster_rows(mapped, Clusters())
    assert out["keeper"].is_not_null().sum() == 30
    assert out.sort("id").equals(cluster_rows(frame, Clusters()).sort("id"))
