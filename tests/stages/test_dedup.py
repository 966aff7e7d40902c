"""Dedup: what is dropped and why, and that a split is a matter of the cluster alone."""

import polars as pl
import pytest

from schemas.conform import conform
from schemas.tables import CLUSTERED, DISTINCT
from stages.clusters import Clusters, cluster_rows
from stages.dedup import Dedup, mark_duplicates
from stages.signatures import Signatures, sign_conversations
from tests.stages import signing


def measured(texts: list[str], source: str = "a.jsonl") -> pl.DataFrame:
    return signing.measured(*[signing.conversation(("user", text)) for text in texts], source=source)


def clustered(frame: pl.DataFrame, dedup: Dedup | None = None) -> pl.DataFrame:
    signed = sign_conversations(frame, Signatures())
    (table,) = cluster_rows([signed], Clusters(max_source_loss=1.0), dedup=dedup or Dedup())
    return table


def marked(frame: pl.DataFrame, **config: float) -> pl.DataFrame:
    dedup = Dedup(**config)
    return mark_duplicates(frame, clustered(frame, dedup), dedup)


def story(k: int) -> str:
    return " ".join(f"w{k}x{i}" for i in range(60))


def test_duplicates_are_marked_with_the_keeper_the_similarity_and_the_reason() -> None:
    out = marked(measured([story(1), story(1).upper(), story(1) + " end", story(2)]))
    assert out["drop_reason"].to_list() == ["near_duplicate", "near_duplicate", None, None]
    assert out["keeper"].to_list() == ["a.jsonl:3", "a.jsonl:3", None, None]
    assert out["similarity"].to_list() == [56 / 57, 56 / 57, None, None]
    assert out["scope"].to_list() == ["conversation", "conversation", None, None]
    exact = marked(measured(["Hello there.", "hello, there"]))
    assert exact["drop_reason"].to_list() == [None, "exact_duplicate"] or exact["drop_reason"].to_list() == [
        "exact_duplicate",
        None,
    ]


def test_no_row_is_lost_and_exactly_one_of_a_cluster_is_kept() -> None:
    out = marked(measured([story(i % 40) + " end" * (i % 3) for i in range(200)]))
    assert out.height == 200
    kept = out.filter(pl.col("drop_reason").is_null())
    assert kept.height == out["cluster"].n_unique() == 40
    assert set(out["keeper"].drop_nulls()) <= set(kept["id"])


def test_no_cluster_crosses_from_train_to_validation() -> None:
    out = marked(measured([story(i % 300) + " end" * (i % 2) for i in range(900)]), validation=0.3)
    assert out.group_by("cluster").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 300
    assert 60 <= out.unique("cluster").filter(split="validation").height <= 120


def test_adding_rows_or_files_moves_no_cluster() -> None:
    few = marked(measured([story(i) for i in range(200)]), validation=0.3)
    more = marked(pl.concat([measured([story(i) for i in range(500)], "b.jsonl"), measured(["hello"])]), validation=0.3)
    before = dict(few.select("cluster", "split").iter_rows())
    after = dict(more.select("cluster", "split").iter_rows())
    assert before.items() <= after.items()


def test_a_larger_share_of_validation_takes_nothing_back_and_another_seed_draws_others() -> None:
    frame = measured([story(i) for i in range(400)])
    drawn = {
        key: set(marked(frame, validation=key[0], seed=key[1]).filter(split="validation")["id"])
        for key in ((0.0, 0), (0.1, 0), (0.4, 0), (0.4, 1))
    }
    assert drawn[0.0, 0] == set()
    assert drawn[0.1, 0] < drawn[0.4, 0]
    assert drawn[0.4, 0] != drawn[0.4, 1]
    assert 120 <= len(drawn[0.4, 1]) <= 200


def test_what_the_clusters_say_becomes_reason_evidence_and_split() -> None:
    frame = measured([story(1), story(2), story(3)])
    table = clustered(frame).with_columns(
        cluster=pl.Series(["c1", "c2", "c2"]),
        reason=pl.Series([None, "contaminated", "against"], dtype=pl.String),
        keeper=pl.Series([None, None, "old.jsonl:9"], dtype=pl.String),
        similarity=pl.Series([None, None, 0.85], dtype=pl.Float64),
        scope=pl.Series([None, None, "prompt"], dtype=pl.String),
        evaluation=pl.Series([None, "eval.jsonl:3", None], dtype=pl.String),
        overlap=pl.Series([None, 0.75, None], dtype=pl.Float64),
        split=pl.Series(["test", "train", "train"]),
    )
    out = mark_duplicates(frame, table, Dedup())
    assert out.select("cluster", "split", "drop_reason", "keeper", "similarity", "scope").rows() == [
        ("c1", "test", None, None, None, None),
        ("c2", "train", "contaminated", None, None, None),
        ("c2", "train", "against", "old.jsonl:9", 0.85, "prompt"),
    ]
    assert out.select("evaluation", "overlap").rows() == [(None, None), ("eval.jsonl:3", 0.75), (None, None)]
    assert "n_duplicates" not in out.columns


def test_frames_of_different_shards_are_refused() -> None:
    frame = measured([story(1), story(2)])
    clusters = clustered(frame)
    with pytest.raises(ValueError, match="2 conversations but 1 rows of clusters"):
        mark_duplicates(frame, clusters[:1], Dedup())
    with pytest.raises(ValueError, match=r"row 0 is a.jsonl:1 in the shard but a.jsonl:2 in clusters"):
        mark_duplicates(frame, clusters[::-1], Dedup())


def test_the_output_has_the_schema_of_distinct() -> None:
    for frame in (measured([story(1)]), measured([])):
        clusters = clustered(frame)
        stored = pl.DataFrame(pl.from_arrow(conform(clusters.to_arrow(), CLUSTERED)))
        out = mark_duplicates(frame, stored, Dedup())
        assert conform(out.to_arrow(), DISTINCT).num_rows == frame.height
        assert out.schema["drop_reason"] == pl.String
