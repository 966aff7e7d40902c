"""Clusters: held against brute force over every pair, in any order of the rows."""

from random import Random

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conform import conform
from schemas.errors import GateError
from schemas.tables import SIGNED
from stages.clusters import CROWD, Clusters, cluster_rows
from stages.clusters.bands import choose_bands
from stages.dedup import Dedup
from tests.stages.clustering import (
    boilerplate,
    cluster,
    exact_hash,
    greedy,
    jaccard,
    order_of,
    planted,
    removals,
    signed,
)

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
