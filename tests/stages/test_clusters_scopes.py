"""Clusters by scope, with references, several copies and little memory: held against the definition, in plain Python."""

from collections.abc import Sequence
from itertools import permutations
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import GateError
from schemas.scopes import SCOPES
from stages.clusters import CROWD, Clusters, cluster_rows
from stages.clusters.memory import Memory
from stages.dedup import Dedup
from tests.stages.clustering import Text, cluster, jaccard, order_of, signed, signed_texts

CERTAIN = 0.9999999
Row = Sequence[Text]


def similarity(row: Row, other: Row, scope: str) -> float:
    """Return how similar a row is to another in a scope: the definition."""
    own = [set(values) for name, values in row if name == scope and values]
    others = [set(values) for name, values in other if name == scope and values]
    if not own or not others:
        return 0.0
    return min(max(jaccard(a, b) for b in others) for a in own)


def expected(rows: Sequence[Row], order: Sequence[int], against: Sequence[Row], config: Clusters) -> dict:
    """Return row -> (is against, keeper, similarity, scope) of the removed rows, by comparing all with all."""
    kept: list[int] = []
    removed = {}
    for row in order:
        for scope in SCOPES:
            threshold = config.threshold_of(scope)
            references = [(similarity(rows[row], other, scope), -k) for k, other in enumerate(against)]
            best = max(references, default=(0.0, 0))
            if best[0] >= threshold:
                removed[row] = (True, -best[1], best[0], scope)
                break
            similar = [(similarity(rows[row], rows[k], scope), -i) for i, k in enumerate(kept)]
            similar = [pair for pair in similar if pair[0] >= threshold]
            if len(similar) >= max(config.copies, 1):
                removed[row] = (False, kept[-max(similar)[1]], max(similar)[0], scope)
                break
        else:
            kept.append(row)
    return removed


def found(out: pl.DataFrame, frame: pl.DataFrame, against: pl.DataFrame) -> dict:
    gone = out.with_row_index().filter(pl.col("keeper").is_not_null())
    own, others = frame["id"].to_list(), against["id"].to_list()
    return {
        row: (reason == "against", (others if reason == "against" else own).index(keeper), s, scope)
        for row, reason, keeper, s, scope in gone.select("index", "reason", "keeper", "similarity", "scope").iter_rows()
    }


SETS = st.sets(st.integers(0, 11), max_size=9)
TEXTS = st.tuples(SETS, SETS, st.lists(SETS, max_size=3)).map(
    lambda t: [("conversation", sorted(t[0])), ("prompt", sorted(t[1])), *(("turns", sorted(v)) for v in t[2])]
)


@pytest.mark.parametrize("crowd", [1, CROWD])
@settings(max_examples=120, deadline=None)
@given(
    st.lists(TEXTS, max_size=14),
    st.lists(TEXTS, max_size=4),
    st.sampled_from([0.5, 0.75, 1.0]),
    st.sampled_from([0.6, 0.8]),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_rows_are_removed_as_the_definition_says(
    crowd: int, rows: list[Row], others: list[Row], threshold: float, of_prompts: float, copies: int, random: Random
) -> None:
    frame = signed_texts(rows, n_chars=[random.randrange(3) for _ in rows])
    against = signed_texts(others, ids=[f"eval.jsonl:{i + 1}" for i in range(len(others))])
    config = Clusters(
        threshold=threshold,
        thresholds={"prompt": of_prompts},
        recall=CERTAIN if threshold < 1 else 0.999,
        copies=copies,
        max_source_loss=1.0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.clusters.CROWD", crowd)  # so few that the index of rare shingles has most to do
        out = cluster(frame, config=config, against=[against])
    assert found(out, frame, against) == expected(rows, order_of(frame), others, config)


# --- scopes


def test_the_first_scope_in_which_a_row_is_a_duplicate_is_named() -> None:
    rows: list[Row] = [
        [("conversation", range(100)), ("prompt", range(10)), ("answer", range(50, 100))],
        [("conversation", range(98)), ("prompt", range(10)), ("answer", range(50, 98))],
        [("conversation", range(60)), ("prompt", range(10)), ("answer", range(200, 250))],
        [("conversation", range(300, 400)), ("prompt", range(300, 310)), ("answer", range(50, 100))],
        [("conversation", range(500, 600)), ("prompt", range(500, 510)), ("answer", range(590, 600))],
    ]
    out = cluster(signed_texts(rows))
    assert out["scope"].to_list() == [None, "conversation", "prompt", "answer", None]
    assert out["keeper"].to_list() == [None, "a.jsonl:1", "a.jsonl:1", "a.jsonl:1", None]
    assert out["reason"].to_list() == [None, "near_duplicate", "exact_duplicate", "exact_duplicate", None]
    assert out["n_duplicates"].to_list() == [4, 4, 4, 4, 1]
    stricter = cluster(signed_texts(rows), config=Clusters(thresholds={"conversation": 0.99}))
    assert stricter["scope"].to_list() == [None, "prompt", "prompt", "answer", None]


def test_equal_rows_without_a_text_in_any_scope_stay_and_are_no_cluster() -> None:
    frame = signed_texts([[("answer", range(10))], [], [], [("answer", range(10))]])
    out = cluster(frame.with_columns(text_hash=pl.lit(b"t" * 16), content_hash=pl.lit(7, pl.UInt64)))
    assert out["reason"].is_null().to_list() == [True, True, True, False]
    assert out["n_duplicates"].to_list() == [2, 1, 1, 2]
    assert out["cluster"][0] == out["cluster"][3]
    assert out["cluster"].n_unique() == 3


def test_a_beginning_of_a_conversation_is_contained_in_it_but_not_the_other_way_round() -> None:
    turns = [list(range(100 * k, 100 * k + 40)) for k in range(4)]
    whole, beginning = [("turns", turn) for turn in turns], [("turns", turn) for turn in turns[:2]]
    mixed = [("turns", turns[0]), ("turns", list(range(900, 940)))]
    out = cluster(signed_texts([whole, beginning, mixed]))
    assert out["keeper"].to_list() == [None, "a.jsonl:1", None]
    assert out["reason"].to_list() == [None, "exact_duplicate", None]
    shortest_first = cluster(signed_texts([whole, beginning]), config=Clusters(keep="shortest"))
    assert shortest_first["keeper"].to_list() == [None, None]  # the whole is not contained in its beginning


def test_turns_that_are_in_different_rows_make_no_container() -> None:
    a, b = list(range(50)), list(range(100, 150))
    rows = [[("turns", a), ("turns", list(range(200, 260)))], [("turns", b), ("turns", list(range(300, 360)))]]
    out = cluster(signed_texts([*rows, [("turns", a), ("turns", b)]]))
    assert out["keeper"].null_count() == 3


def test_the_similarity_of_turns_is_the_least_of_them() -> None:
    whole = [("turns", range(100)), ("turns", range(200, 300))]
    near = [("turns", range(95)), ("turns", range(200, 290))]
    out = cluster(signed_texts([whole, near]))
    assert out["similarity"].to_list() == [None, 0.9]


def test_rows_that_share_only_one_message_with_thousands_stay_but_for_the_true_copy() -> None:
    shared = list(range(60))
    rows = [[("turns", shared), ("turns", list(range(10_000 + 50 * k, 10_050 + 50 * k)))] for k in range(3_000)]
    rows += [[("turns", shared), ("turns", list(range(10_000, 10_050)))]]
    out = cluster(signed_texts(rows))
    assert out["keeper"].null_count() == 3_000
    assert out["keeper"].drop_nulls().to_list() == ["a.jsonl:1"]  # of equals the one that comes first


# --- copies


def test_so_many_copies_stay_as_are_asked_for() -> None:
    frame = signed([list(range(50))] * 7 + [list(range(100, 150))], n_chars=[7, 6, 5, 4, 3, 2, 1, 9])
    for copies, gone in ((1, 6), (2, 5), (3, 4), (9, 0)):
        out = cluster(frame, config=Clusters(copies=copies))
        assert out["keeper"].is_not_null().to_list() == [False] * (7 - gone) + [True] * gone + [False]
        assert out["cluster"].n_unique() == 2
        assert out["n_duplicates"].to_list() == [7] * 7 + [1]
    none = cluster(frame, config=Clusters(copies=0))
    assert none["reason"].to_list() == ["all_copies"] + ["exact_duplicate"] * 6 + [None]


def test_rows_that_stay_although_they_are_similar_share_cluster_and_split() -> None:
    rng = np.random.default_rng(1)
    chains = []
    for _ in range(40):  # each row is similar to the next one only
        base = rng.choice(2**32, 130, replace=False)
        chains += [base[10 * k : 10 * k + 100].tolist() for k in range(4)]
    out = cluster(
        signed(chains, n_chars=list(range(1_000, 840, -1))), config=Clusters(copies=2), dedup=Dedup(validation=0.5)
    )
    kept = out.filter(pl.col("reason").is_null())
    assert kept.height == 160
    assert kept["cluster"].n_unique() == 40
    assert kept.group_by("cluster").agg(pl.col("split").n_unique())["split"].max() == 1
    assert kept["split"].n_unique() == 2


# --- against


def test_rows_similar_to_a_reference_go_and_keep_nobody() -> None:
    reference = signed([range(100)], ids=["eval.jsonl:7"])
    frame = signed([range(96), range(90), range(20, 120), range(500, 600)])
    out = cluster(frame, against=[reference])
    assert out["reason"].to_list() == ["against", "against", None, None]
    assert out["keeper"].to_list() == ["eval.jsonl:7", "eval.jsonl:7", None, None]
    assert out["similarity"].to_list() == [0.96, 0.9, None, None]
    alone = cluster(frame)
    assert alone["keeper"].to_list() == [None, "a.jsonl:1", None, None]


def test_a_reference_beats_a_more_similar_row_and_equal_references_change_nothing() -> None:
    reference = signed([range(100)] * 40, ids=[f"eval.jsonl:{k + 1}" for k in range(40)])
    frame = signed([range(20, 120), range(10, 110)], n_chars=[9, 8])
    config = Clusters(threshold=0.75)
    assert cluster(frame, config=config)["keeper"].to_list() == [None, "a.jsonl:1"]
    out = cluster(frame, config=config, against=[reference])
    assert out["keeper"].to_list() == [None, "eval.jsonl:1"]
    assert out["reason"].to_list() == [None, "against"]


def test_what_others_have_already_raises_no_alarm_but_what_is_twice_does() -> None:
    texts = [range(100 * k, 100 * k + 40) for k in range(200)]
    known = signed(texts, ids=[f"old.jsonl:{k + 1}" for k in range(200)])
    new = signed(texts)
    (table,) = cluster_rows([new], Clusters(), dedup=Dedup(validation=0), against=[known])
    assert table["reason"].to_list() == ["against"] * 200
    with pytest.raises(
        GateError, match=r"a\.jsonl: lost 200 of 300 \(66\.7 %\); 200 of them have their keepers in the same"
    ):
        list(cluster_rows([signed([*texts[:100]] * 3)], Clusters(), dedup=Dedup(validation=0)))


# --- memory and order


def sparse(n: int) -> np.ndarray:
    return np.zeros(n, np.uint8)


def test_a_small_budget_spills_and_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    base = rng.choice(2**32, 200, replace=False)
    frame = signed([rng.choice(base[: 110 + k % 40], 100, replace=False) for k in range(300)])
    asked: list[int] = []

    def spill(n_bytes: int) -> np.ndarray:
        asked.append(n_bytes)
        return sparse(n_bytes)

    config = Clusters(threshold=0.75)
    lavish = cluster(frame, config=config, spill=spill)
    assert cluster(frame, config=Clusters(threshold=0.75, memory=float("inf")), spill=spill).equals(lavish)
    assert asked == []
    frugal = cluster(frame, config=Clusters(threshold=0.75, memory=1e-6), spill=spill)
    assert sum(asked) > 300 * 100
    assert frugal.equals(lavish)


@pytest.mark.parametrize("n_partitions", [1, 2, 7, 64])
def test_partitions_of_a_band_change_nothing(n_partitions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    base = rng.choice(2**32, 200, replace=False)
    frame = signed([rng.choice(base[: 110 + k % 40], 100, replace=False) for k in range(200)])
    expected = cluster(frame)
    monkeypatch.setattr("stages.clusters.corpus._partitions", lambda *_: n_partitions)
    assert cluster(frame).equals(expected)


def test_any_order_of_rows_gives_the_same_fates_in_all_scopes() -> None:
    rows: list[Row] = [
        [("conversation", range(k, k + 40)), ("turns", range(k, k + 20)), ("turns", range(k + 20, k + 40))]
        for k in (0, 3, 6, 100, 103)
    ]
    frame = signed_texts(rows, n_chars=[5, 4, 3, 2, 1])
    expected = cluster(frame).sort("id")
    for order in permutations(range(5)):
        assert cluster(frame[list(order)]).sort("id").equals(expected)


def test_memory_is_given_out_until_the_budget_is_used_up() -> None:
    memory = Memory(1_000, sparse)
    first = memory.zeros((10, 10), np.uint64)
    assert (memory.used, memory.spilled, memory.left) == (800, 0, 200)
    second = memory.zeros(100, np.uint32)
    assert (memory.used, memory.spilled) == (800, 400)
    assert (second.shape, second.dtype) == ((100,), np.uint32)
    memory.release(second)
    memory.release(first)
    assert (memory.used, memory.left) == (0, 1_000)
    assert Memory(10).zeros(100, np.int64).nbytes == 800  # nowhere to spill: it lies in memory


def test_shards_are_read_one_at_a_time_and_none_is_held() -> None:
    frame = signed([range(k, k + 30) for k in range(0, 900, 3)])

    reads: list[int] = []

    class Lazy(Sequence[pl.DataFrame]):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> pl.DataFrame:
            reads.append(i)
            return frame[range(300)[i * 50 : i * 50 + 50]] if i < 6 else list[pl.DataFrame]()[i]

    out = pl.concat(list(cluster_rows(Lazy(), Clusters(max_source_loss=1.0), dedup=Dedup())))
    assert out.equals(cluster(frame))
    assert set(reads[-8:]) == {0, 1, 2, 3, 4, 5, 6}  # the sequence is gone through, not kept
    assert len(reads) <= 7 * 7


# --- boilerplate


def test_common_shingles_are_ignored_in_rows_and_references_and_copied_where_they_do_not_last() -> None:
    boilerplate = list(range(1_000, 1_090))
    own = [list(range(20 * k, 20 * k + 10)) for k in range(30)]
    rows = [[*boilerplate, *values] for values in own]
    rows.append([*boilerplate, *own[3][:9]])  # a true duplicate, once what all have is left out
    frame, reference = signed(rows), signed([[*boilerplate, *own[7]]], ids=["old.jsonl:1"])
    assert cluster(frame)["keeper"].null_count() == 1  # 90 of 110 shingles are everybody's
    asked: list[int] = []

    def spill(n_bytes: int) -> np.ndarray:
        asked.append(n_bytes)
        return sparse(n_bytes)

    for memory in (4.0, 1e-9):
        out = cluster(frame, config=Clusters(ignore_common=0.9, memory=memory), against=[reference], spill=spill)
        gone = out.filter(pl.col("reason").is_not_null())
        assert gone["id"].to_list() == ["a.jsonl:8", "a.jsonl:31"]
        assert gone["keeper"].to_list() == ["old.jsonl:1", "a.jsonl:4"]
        assert gone["similarity"].to_list() == [1.0, 0.9]
    assert asked


def test_evaluation_records_are_found_whatever_is_ignored() -> None:
    question = list(range(500, 530))
    frame = signed([[*question, *range(40 * k, 40 * k + 20)] for k in range(0, 24, 2)])
    evaluation = signed([question], ids=["eval.jsonl:5"])
    config = Clusters(ignore_common=0.5, contaminated="drop")
    out = cluster(frame, config=config, evaluations=[evaluation])
    assert out["reason"].to_list() == ["contaminated"] * 12
    assert out["evaluation"].to_list() == ["eval.jsonl:5"] * 12
    assert out["overlap"].to_list() == [1.0] * 12
