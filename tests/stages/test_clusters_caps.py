"""Caps: exact, nested, unmoved by the order of the input, and before the splits are drawn."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import GateError
from stages.clusters import Clusters, cluster_rows
from stages.dedup import Cap, Dedup
from tests.stages.signed_rows import signed

LOOSE = Clusters(max_source_loss=1.0)


def rows_of(source: str, n: int, *, tags: Sequence[str] = (), first: int = 0) -> pl.DataFrame:
    """Return n rows that resemble nothing, with contents of their own."""
    texts = [{"conversation": [range(100 * i, 100 * i + 20)]} for i in range(first, first + n)]
    numbers = pl.int_range(first, first + n, eager=True)
    frame = signed(texts, source=source, tags=[tags] * n, num_perm=128)
    return frame.with_columns(
        content_hash=numbers.cast(pl.UInt64), text_hash=frame["id"].hash().map_elements(_bytes, pl.Binary)
    )


def _bytes(value: int) -> bytes:
    return value.to_bytes(16, "big")


def outcome(shards: Sequence[pl.DataFrame], config: Clusters = LOOSE, **dedup: Any) -> pl.DataFrame:
    dedup = {"validation": 0.0, **dedup}
    return pl.concat(cluster_rows(shards, config, dedup=Dedup(**dedup)))


def kept(shards: Sequence[pl.DataFrame], *caps: Cap, seed: int = 0) -> set[str]:
    out = outcome(shards, caps=caps, seed=seed)
    assert set(out["reason"].drop_nulls()) <= {"not_sampled"}
    return set(out.filter(pl.col("reason").is_null())["id"])


def test_a_cap_leaves_exactly_so_many_and_touches_nothing_else():
    shards = [rows_of("flan.jsonl", 30), rows_of("wiki.jsonl", 10, first=30)]
    left = kept(shards, Cap(match="flan*", limit=7))
    assert Counter(name.split(":")[0] for name in left) == {"flan.jsonl": 7, "wiki.jsonl": 10}
    assert kept(shards, Cap(match="*", limit=40)) == kept(shards)
    assert kept(shards, Cap(match="*", limit=0)) == set()


def test_what_a_smaller_limit_keeps_a_larger_one_keeps_and_another_seed_draws_others():
    shards = [rows_of("a.jsonl", 25), rows_of("b.jsonl", 25, first=25)]
    drawn = [kept(shards, Cap(match="*", limit=n)) for n in range(0, 50, 5)]
    assert all(small < large for small, large in pairwise(drawn))
    assert kept(shards, Cap(match="*", limit=20), seed=1) != drawn[4]


def test_a_tag_is_matched_whole_and_each_name_may_have_the_limit_for_itself():
    shards = [rows_of(f"{i}.jsonl", 8, tags=[f"task:{i}", "class:A"], first=8 * i) for i in range(4)]
    shards.append(rows_of("small.jsonl", 2, tags=["task:small"], first=40))
    by_task = Counter(name.split(".")[0] for name in kept(shards, Cap(match="task:*", limit=3, each=True)))
    assert by_task == {"0": 3, "1": 3, "2": 3, "3": 3, "small": 2}
    assert len(kept(shards, Cap(match="class:A", limit=5))) == 5 + 2
    assert len(kept(shards, Cap(match="?.jsonl", limit=5, each=True))) == 4 * 5 + 2


def test_a_row_that_two_caps_are_about_stays_only_if_both_keep_it():
    shards = [rows_of("a.jsonl", 20, tags=["class:A"])]
    one, other = Cap(match="a.jsonl", limit=12), Cap(match="class:A", limit=5)
    assert kept(shards, one, other) == kept(shards, other, one) == kept(shards, one) & kept(shards, other)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 11))
def test_where_rows_stand_changes_nothing(order: list[int], cut: int):
    frame = rows_of("a.jsonl", 12)
    mixed = frame[order]
    assert kept([mixed[:cut], mixed[cut:]], Cap(match="*", limit=5)) == kept([frame], Cap(match="*", limit=5))


def test_duplicates_do_not_count_and_splits_are_drawn_from_what_is_left():
    twins = signed([{"conversation": [range(20)]}] * 10, num_perm=128).with_columns(source=pl.lit("twins.jsonl"))
    shards = [twins, rows_of("b.jsonl", 40, first=50)]
    out = outcome(shards, caps=[Cap(match="*", limit=20)], validation=5)
    assert Counter(out["reason"].to_list())["exact_duplicate"] == 9
    left = out.filter(pl.col("reason").is_null())
    assert (left.height, Counter(left["split"].to_list())["validation"]) == (20, 5)


def test_several_survivors_of_one_cluster_stay_in_one_split_when_a_cap_takes_some_of_them():
    """The gate of cluster_rows proves it: it compares the splits of all rows of a cluster, dropped ones too."""
    copies = signed([{"conversation": [[*range(20), 100 + i % 3]]} for i in range(30)], num_perm=128)
    shards = [copies, rows_of("b.jsonl", 40, first=50)]
    for seed in range(8):
        config = Clusters(copies=3, max_source_loss=1.0)
        out = outcome(shards, config, caps=[Cap(match="a.jsonl", limit=2)], validation=0.4, seed=seed)
        assert out.filter(pl.col("reason").is_null() & pl.col("id").str.starts_with("a.jsonl")).height == 2


def test_a_cap_that_is_about_nothing_is_refused():
    with pytest.raises(GateError, match=r"'flan\*'.*matches none; there are .*wiki.jsonl"):
        kept([rows_of("wiki.jsonl", 3)], Cap(match="flan*", limit=1))
    with pytest.raises(msgspec.ValidationError, match="match is empty"):
        msgspec.convert({"caps": [{"match": "", "limit": 1}]}, Dedup)
