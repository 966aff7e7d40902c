import numpy as np
import pytest

from pipeline.rows import conversations, files_of, find, need_manifest, row_at, settings, take
from schemas.settings import ConfigError
from schemas.tables import MEASURED
from tests.pipeline.literal_run import conversation, write_stage

IDS = [["a:1", "a:2"], [], ["b:1"]]


@pytest.fixture
def run(tmp_path):
    shards = [[conversation(id_, [("user", id_.upper())]) for id_ in ids] for ids in IDS]
    write_stage(tmp_path, "length", MEASURED, shards)
    return tmp_path


def test_rows_are_found_by_number_and_by_id_over_all_shards(run):
    files = files_of(need_manifest(run, "length"))
    assert [row_at(run / "length", files, i)[1]["id"] for i in range(3)] == ["a:1", "a:2", "b:1"]
    assert row_at(run / "length", files, 3) is None
    assert row_at(run / "length", files, -1) is None
    number, values = find(run / "length", files, "b:1")
    assert (number, values["source"]) == (2, "b")
    assert find(run / "length", files, "b:2") is None


@pytest.mark.parametrize("rows", [[0], [1, 2], [0, 1, 2], [2], []])
def test_columns_of_chosen_rows_are_taken_in_order(run, rows):
    taken = list(take(run / "length", files_of(need_manifest(run, "length")), np.array(rows, np.int64), ["id"]))
    assert [row for part, _ in taken for row in rows[part]] == rows
    assert [id_ for _, frame in taken for id_ in frame["id"]] == [["a:1", "a:2", "b:1"][row] for row in rows]


def test_conversations_come_from_the_run_its_references_and_the_runs_it_names(run, tmp_path):
    other = tmp_path / "other"
    write_stage(other, "length", MEASURED, [[conversation("c:1", [("user", "C")])]])
    write_stage(run / "references" / "against", "length", MEASURED, [[conversation("d:1", [("user", "D")])]])
    (run / "config.toml").write_text(f'[clusters]\nagainst = ["nothing/here.jsonl", "{other}"]\n')
    found = conversations(run, ["b:1", "c:1", "d:1", "e:1"])
    assert {id_: row["messages"][0]["content"] for id_, row in found.items()} == {"b:1": "B:1", "c:1": "C", "d:1": "D"}
    assert conversations(run, []) == {}


@pytest.mark.parametrize("text", [None, "not toml", "clusters = 3", ""])
def test_settings_that_cannot_be_read_are_none(run, text):
    if text is not None:
        (run / "config.toml").write_text(text)
    assert dict(settings(run, "clusters")) == {}


def test_a_stage_that_is_not_finished_is_named_with_what_builds_it(run):
    with pytest.raises(ConfigError, match=r"`chatloom data CONFIG --run .* --until mask` builds it"):
        need_manifest(run, "mask")
