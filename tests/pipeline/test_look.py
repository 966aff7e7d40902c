"""Looking at what clusters and dedup decided: a row stands beside what it was compared with."""

from pathlib import Path

import pytest

from pipeline.look import _short, look
from schemas.tables import DISTINCT, DUPLICATE, MEASURED, dropped_schema
from tests.pipeline.literal_run import conversation, fate, removed, write_run, write_stage


@pytest.fixture
def run(tmp_path: Path) -> Path:
    said = [conversation(f"a:{i}", [("user", text)]) for i, text in enumerate(("cat", "Cat!", "old dog", "quiz"), 1)]
    fates = [
        fate("a:1", "c", 2),
        removed("a:2", "c", 2, "a:1", 0.875, scope="prompt"),
        removed("a:3", "d", 1, "old:1", 0.9, reason="against"),
        fate("a:4", "q", evaluation="eval:1", overlap=0.5),
    ]
    write_run(tmp_path, [said], [fates])
    write_stage(
        tmp_path / "references" / "against", "length", MEASURED, [[conversation("old:1", [("user", "the old dog")])]]
    )
    dropped = [row | fate | {"drop_reason": fate["reason"]} for row, fate in zip(said[1:3], fates[1:3], strict=True)]
    write_stage(tmp_path, "dedup", dropped_schema(DISTINCT, DUPLICATE), [dropped], half="dropped")
    return tmp_path


def shown(run: Path, stage: str, id_: str) -> list[str]:
    return [str(part) for part in look(run, stage, row=0, id=id_, dropped=stage == "dedup", in_colour=False)]


@pytest.mark.parametrize("stage", ["clusters", "dedup"])
@pytest.mark.parametrize(
    ("id_", "keeper", "how", "text", "own"),
    [
        ("a:2", "a:1", "kept in its place (similarity 0.875 in scope prompt)", "cat", "Cat!"),
        ("a:3", "old:1", "of [clusters] against (similarity 0.900 in scope conversation)", "the old dog", "old dog"),
    ],
)
def test_a_removed_row_stands_beside_the_row_that_it_is_like(run, stage, id_, keeper, how, text, own):
    lines = shown(run, stage, id_)
    at = lines.index(f"{how}: {keeper}")
    assert lines[at + 1 : at + 4] == ["user", text, "this one:"]
    assert lines[-2:] == ["user", own]
    assert lines[1].startswith("dedup drops it: " if stage == "clusters" else "dropped: ")


def test_a_kept_row_of_clusters_shows_what_it_says(run):
    lines = shown(run, "clusters", "a:1")
    assert lines[-2:] == ["user", "cat"]
    assert not [line for line in lines if "dropped" in line or "in its place" in line]


def test_a_row_that_contains_an_evaluation_record_names_it(run):
    lines = shown(run, "clusters", "a:4")
    at = lines.index("it contains 0.500 of the evaluation record: eval:1")
    assert lines[at + 1] == "its text is not at hand"


def test_hashes_are_shown_as_other_tools_show_them_wherever_they_lie():
    assert _short(b"\x01\xff") == "01ff"
    assert _short([{"exact_hash": b"\x01\xff", "shingles": [3, 5]}]) == "[{'exact_hash': '01ff', 'shingles': [3, 5]}]"
