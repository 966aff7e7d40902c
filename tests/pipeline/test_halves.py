import dataclasses

import polars as pl
import pytest

from pipeline.halves import StageError, split
from schemas.conform import SchemaError
from tests.pipeline.test_store import CLUSTERS, rows


def test_every_row_is_in_one_half():
    halves = split(CLUSTERS, 0, rows(4, dropped=2), 6)
    assert halves.dropped is not None
    assert (halves.kept["id"].to_pylist(), halves.dropped["id"].to_pylist()) == (
        ["a:0", "a:1", "a:2", "a:3"],
        ["a:4", "a:5"],
    )
    assert (halves.n_kept, halves.reasons) == (4, {"near_duplicate": 2})


def test_a_table_without_a_promised_column_is_a_defect():
    with pytest.raises(SchemaError, match="missing column"):
        split(CLUSTERS, 0, rows(2).drop("cluster"), 2)


def windows(*ids: str, dropped: tuple[str, ...] = ()) -> pl.DataFrame:
    names = [*ids, *dropped]
    reasons = [None] * len(ids) + ["over_max_seq_len"] * len(dropped)
    return rows(len(names)).with_columns(id=pl.Series(names), drop_reason=pl.Series(reasons, dtype=pl.String))


def test_a_conversation_of_several_rows_is_kept_once():
    stage = dataclasses.replace(CLUSTERS, expands=True)
    out = windows("a:1", "a:2#1", "a:2#2", "a#1:3", dropped=("a:4",))
    assert split(stage, 0, out, 4).n_kept == 3
    with pytest.raises(StageError, match="5 conversations in, but 3 kept"):
        split(stage, 0, out, 5)
    with pytest.raises(StageError, match="both kept and dropped: a:2"):
        split(stage, 0, windows("a:1", "a:2#1", dropped=("a:2",)), 3)
    with pytest.raises(StageError, match=r"1 kept row.* have another one's id"):
        split(stage, 0, windows("a:2#1", "a:2#1"), 1)
    with pytest.raises(StageError, match="2 conversations in, but 3 kept"):
        split(CLUSTERS, 0, windows("a:1", "a:2#1", "a:2#2"), 2)  # any other stage has one row for one
