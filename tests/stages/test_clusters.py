"""Clusters: held against brute force over every pair, in any order of the rows."""

import struct
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conform import conform
from schemas.errors import GateError
from schemas.scopes import SCOPES
from schemas.tables import CLUSTERED, SIGNED
from stages.clusters import CROWD, Clusters, cluster_rows
from stages.clusters.bands import choose_bands
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
from stages.dedup import Dedup
from stages.pointers import halves_at
from stages.signatures import sketch_permutations
from stages.signatures.sketch_kernel import sketch_rows

Text = tuple[str, Sequence[int]]
"""A scope and the shingles of one text to be compared in it."""


def signed_texts(
    rows: Sequence[Sequence[Text]], *, n_chars: Sequence[int] | None = None, ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the signatures of rows with these texts; n_chars is the number of their shingles, if not said otherwise."""
    flat = [(scope, np.unique(np.array(values, np.uint32))) for row in rows for scope, values in row if len(values)]
    starts = np.cumsum([0, *(len(values) for _, values in flat)])
    a, b = sketch_permutations(128, 1)
    minhash = sketch_rows(np.concatenate([*(v for _, v in flat), np.empty(0, np.uint32)]), starts, a, b)
    units = iter(
        [
            {
                "scope": scope,
                "message": -1,
                "exact_hash": exact_hash(values),
                "shingles": values.tolist(),
                "minhash": sketch.tolist(),
            }
            for (scope, values), sketch in zip(flat, minhash, strict=True)
        ]
    )
    names = ids or [f"a.jsonl:{i + 1}" for i in range(len(rows))]
    every = [np.unique(np.concatenate([np.array(v, np.uint32) for _, v in row] or [[]])) for row in rows]
    table = pl.DataFrame(
        {
            "id": names,
            "source": [name.rpartition(":")[0] for name in names],
            "tags": [[] for _ in rows],
            "score": None,
            "created": None,
            "n_chars": n_chars or [sum(len(set(values)) for _, values in row) for row in rows],
            "content_hash": [0] * len(rows),
            "text_hash": [exact_hash(values) if len(values) else None for values in every],
            "prompt_hash": None,
            "units": [[next(units) for _, values in row if len(values)] for row in rows],
        },
        schema={
            "id": pl.String,
            "source": pl.String,
            "tags": pl.List(pl.String),
            "score": pl.Float64,
            "created": pl.Datetime("us", "UTC"),
            "n_chars": pl.Int32,
            "content_hash": pl.UInt64,
            "text_hash": pl.Binary,
            "prompt_hash": pl.Binary,
            "units": pl.List(
                pl.Struct(
                    {
                        "scope": pl.String,
                        "message": pl.Int32,
                        "exact_hash": pl.Binary,
                        "shingles": pl.List(pl.UInt32),
                        "minhash": pl.List(pl.UInt32),
                    }
                )
            ),
        },
    )
    assert conform(table.to_arrow(), SIGNED).num_rows == len(rows)
    return table


def exact_hash(values: np.ndarray) -> bytes:
    return struct.pack(">QQ", len(values), hash(values.astype(np.uint32).tobytes()) % 2**64)


def signed(
    sets: Sequence[Sequence[int]], *, n_chars: Sequence[int] | None = None, ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the signatures of conversations with these shingles."""
    return signed_texts([[("conversation", values)] for values in sets], n_chars=n_chars, ids=ids)


def cluster(*shards: pl.DataFrame, config: Clusters | None = None, **keywords: Any) -> pl.DataFrame:
    """Return the fates of all rows, each shard's held against the schema; no loss is too great here."""
    quiet = msgspec.structs.replace(config or Clusters(), max_source_loss=1.0)
    tables = list(cluster_rows(shards, quiet, dedup=keywords.pop("dedup", Dedup()), **keywords))
    for shard, table in zip(shards, tables, strict=True):
        assert conform(table.to_arrow(), CLUSTERED).num_rows == shard.height
        assert table["id"].equals(shard["id"])
    return pl.concat(tables)


def order_of(frame: pl.DataFrame) -> list[int]:
    """Return rows from the longest to the shortest; ids here have one line number each."""
    line = pl.col("id").str.extract(r"(\d+)$").cast(pl.Int64)
    return frame.with_row_index().sort(-pl.col("n_chars"), "text_hash", line)["index"].to_list()


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
    out = cluster(signed(at + below), config=Clusters(threshold=threshold))
    found = out["keeper"].is_not_null().to_numpy().reshape(-1, 2).any(axis=1)
    # 150 pairs right at the threshold are found with probability 0.999 each; more similar ones practically always
    assert found[:150].sum() >= 148
    assert not found[150:].any()
    clear = cluster(signed(planted(min(threshold + 0.05, 1), 300, rng)), config=Clusters(threshold=threshold))
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
        out = cluster(frame, config=Clusters(threshold=threshold, recall=0.9999999 if threshold < 1 else 0.999))
    order = order_of(frame)
    expected = greedy(sets, order, threshold)
    ids = frame["id"].to_list()
    assert removals(out) == {ids[row]: (ids[keeper], similarity) for row, (keeper, similarity) in expected.items()}


def test_every_removed_row_is_as_similar_to_its_keeper_as_it_says() -> None:
    rng = np.random.default_rng(5)
    base = rng.choice(2**32, 300, replace=False)
    sets = [np.concatenate([rng.choice(base, 80, replace=False), rng.integers(0, 2**32, 4)]) for _ in range(300)]
    for k in range(100):
        sets.append(np.concatenate([sets[k][: 84 - k % 20], rng.integers(0, 2**32, k % 7)]))
    out = cluster(signed(sets))
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
    out = cluster(signed(sets, n_chars=[400, 300, 200, 100]))
    assert out["keeper"].to_list() == [None, "a.jsonl:1", None, "a.jsonl:3"]
    assert out["n_duplicates"].to_list() == [2, 2, 2, 2]
    assert out["cluster"].n_unique() == 2


def test_the_keeper_is_the_most_similar_and_of_equals_the_better() -> None:
    left, right = list(range(100)), [*range(75), *range(1000, 1025)]
    between, nearer = [*range(88)], [*range(75), *range(1000, 1020)]
    out = cluster(signed([left, right, between, nearer], n_chars=[9, 8, 7, 6]), config=Clusters(threshold=0.7))
    assert out["keeper"].to_list() == [None, None, "a.jsonl:1", "a.jsonl:2"]
    assert out["similarity"].to_list()[2:] == [0.88, 0.95]
    middle = [*range(75), *range(75, 85), *range(1000, 1010)]  # as similar to the left as to the right
    out = cluster(signed([right, left, middle], n_chars=[8, 9, 7]), config=Clusters(threshold=0.7))
    assert out["keeper"].to_list() == [None, None, "a.jsonl:2"]


def test_rows_without_shingles_are_kept_alone() -> None:
    out = cluster(signed([[], [1, 2], [], [1, 2]]))
    assert out["keeper"].to_list() == [None, None, None, "a.jsonl:2"]
    assert out["cluster"].to_list()[::2] == ["a.jsonl:1", "a.jsonl:3"]
    assert out["n_duplicates"].to_list() == [1, 2, 1, 2]
    assert out["reason"].to_list() == [None, None, None, "exact_duplicate"]


def test_many_copies_of_one_text_leave_one() -> None:
    out = cluster(signed([list(range(50))] * 5_000))
    assert out["keeper"].null_count() == 1
    assert out["n_duplicates"].to_list() == [5_000] * 5_000
    assert (out["reason"] == "exact_duplicate").sum() == 4_999


def test_the_same_shingles_in_another_sequence_are_near_not_exact() -> None:
    frame = signed([[1, 2, 3], [1, 2, 3]])
    units = pl.col("units").list.eval(pl.element().struct.with_fields(exact_hash=pl.lit(b"b" * 16)))
    frame = pl.concat([frame[:1], frame[1:].with_columns(units, text_hash=pl.lit(b"b" * 16))])
    out = cluster(frame)
    assert out["similarity"].to_list() == [None, 1.0]
    assert out["reason"].to_list() == [None, "near_duplicate"]
    assert out["cluster"].to_list() == [exact_hash(np.array([1, 2, 3])).hex()] * 2


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
    order = order_of(frame)
    expected = greedy([set(map(int, values)) for values in sets], order, 0.8)
    ids = frame["id"].to_list()
    assert 100 < len(expected) < 200
    found = removals(cluster(frame))
    assert found == {ids[row]: (ids[keeper], similarity) for row, (keeper, similarity) in expected.items()}


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


def test_texts_of_one_shingle_are_duplicates_only_if_they_are_equal() -> None:
    frame = signed([[7], [7], [7], [7, 8, 9, 10, 11], [7, 8, 9, 10, 11]])
    other = pl.col("units").list.eval(pl.element().struct.with_fields(exact_hash=pl.lit(b"o" * 16)))
    frame = pl.concat([frame[:2], frame[2:3].with_columns(other), frame[3:4], frame[4:].with_columns(other)])
    out = cluster(frame)
    assert out["keeper"].to_list() == [None, "a.jsonl:1", None, None, "a.jsonl:4"]
    assert out["reason"].to_list() == [None, "exact_duplicate", None, None, "near_duplicate"]


# --- which row stays


def test_longest_keeps_the_most_characters_and_first_the_lowest_line() -> None:
    frame = signed([[1, 2, 3]] * 3, n_chars=[5, 9, 7], ids=["b.jsonl:10", "b.jsonl:11", "b.jsonl:9"])
    assert cluster(frame, config=Clusters(keep="longest"))["keeper"].to_list() == ["b.jsonl:11", None, "b.jsonl:11"]
    assert cluster(frame, config=Clusters(keep="first"))["keeper"].to_list() == ["b.jsonl:9", "b.jsonl:9", None]


def test_first_goes_by_source_and_then_by_line_even_with_colons_in_the_source() -> None:
    ids = ["b:1", "C:\\a.jsonl:20", "C:\\a.jsonl:3", "a:2:9"]
    out = cluster(signed([[1, 2, 3]] * 4, ids=ids), config=Clusters(keep="first"))
    assert out["keeper"].to_list() == ["C:\\a.jsonl:3", "C:\\a.jsonl:3", None, "C:\\a.jsonl:3"]


def test_a_criterion_of_which_no_row_has_the_value_is_refused() -> None:
    frame = signed([[1, 2, 3]] * 3)
    with pytest.raises(GateError, match=r'keep names "newest".*\[ingest\] created names is in none of the records'):
        cluster(frame, config=Clusters(keep=("longest", "newest")))
    some = frame.with_columns(score=pl.Series([None, 2.0, None]))
    assert cluster(frame, some, config=Clusters(keep="score"))["keeper"].null_count() == 1
    with pytest.raises(GateError, match='keep names "score"'):
        cluster(frame, frame, config=Clusters(keep="score"))
    assert cluster(frame.clear(), config=Clusters(keep="score")).is_empty()


@pytest.mark.parametrize("keep", ["longest", "first"])
def test_the_order_of_rows_and_chunks_changes_nothing(keep: str) -> None:
    rng = np.random.default_rng(11)
    base = rng.choice(2**32, 200, replace=False)
    sets = [rng.choice(base[: 110 + k % 40], 100, replace=False) for k in range(120)]
    frame = signed(sets, n_chars=[int(n) for n in rng.integers(1, 9, 120)])
    config = msgspec.convert({"keep": keep, "threshold": 0.75}, Clusters)
    expected = cluster(frame, config=config)
    assert 10 < expected["keeper"].null_count() < 110
    for _ in range(5):
        order = rng.permutation(120)
        out = cluster(frame[order[:50]], frame[order[50:51]], frame[:0], frame[order[51:]], config=config)
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
        cluster(signed([[1]]), config=Clusters(threshold=0.02))


def test_sketches_of_different_widths_are_refused() -> None:
    sketch = pl.element().struct.field("minhash").list.head(64)
    narrow = signed([[1]]).with_columns(pl.col("units").list.eval(pl.element().struct.with_fields(minhash=sketch)))
    with pytest.raises(ValueError, match="expected 128 values in every signature, got 64 to 128"):
        cluster(pl.concat([signed([[1]]), narrow]))
    with pytest.raises(ValueError, match=r"expected one width, got \[64, 128\] values"):
        cluster(signed([[1]]), narrow)


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


# --- the table


def test_rows_without_any_text_are_their_own_clusters() -> None:
    out = cluster(signed([[1, 2], [1, 2], []]))
    assert out["cluster"].to_list() == [exact_hash(np.array([1, 2])).hex()] * 2 + ["a.jsonl:3"]
    assert cluster(signed([])).height == 0
    assert list(cluster_rows([], Clusters(), dedup=Dedup())) == []


def test_memory_mapped_shards_are_clustered_where_they_lie(tmp_path) -> None:
    rng = np.random.default_rng(2)
    frame = signed(planted(0.9, 30, rng))
    paths = [tmp_path / "0.arrow", tmp_path / "1.arrow"]
    for path, part in zip(paths, (frame[::2], frame[1::2]), strict=True):
        table = conform(part.to_arrow(), SIGNED)
        with pa.ipc.new_file(str(path), SIGNED) as writer:
            writer.write_table(table)
    mapped = [pl.DataFrame(pl.from_arrow(pa.ipc.open_file(pa.memory_map(str(path))).read_all())) for path in paths]
    out = cluster(*mapped)
    assert out["keeper"].is_not_null().sum() == 30
    assert out.sort("id").equals(cluster(frame).sort("id"))
