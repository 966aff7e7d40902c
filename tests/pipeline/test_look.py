"""Looking at what clusters and dedup decided: a row stands beside what it was compared with."""

from pathlib import Path

import pytest

from pipeline.look import _short, look
from schemas.settings import ConfigError
from schemas.tables import CONVERSATIONS, DISTINCT, DUPLICATE, MEASURED, QUARANTINE, dropped_schema
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


def ingested(id_: str, **more: object) -> dict[str, object]:
    """Return a row of schemas.tables.CONVERSATIONS."""
    (said,) = conversation(id_, [("user", "hi")])["messages"]
    return {
        "id": id_,
        "source": "a",
        "shape": "alpaca",
        "line": 3,
        "tags": [],
        "messages": [said],
        "repairs": [],
    } | more


@pytest.fixture
def several(tmp_path: Path) -> Path:
    odd = ["x, y", "a\n\x1b[31m"]
    rows = [
        ingested("a:3.1", tags=odd, repairs=["trailing:2", "same_role:1"], line=1003, offset=20_480, record_id="r-7"),
        ingested("a:3.2"),
        ingested("a:31"),
        ingested("a:5.2"),
    ]
    write_stage(tmp_path, "ingest", CONVERSATIONS, [rows])
    return tmp_path


def test_where_a_record_is_from_and_what_was_changed_is_said_in_words(several):
    lines = shown(several, "ingest", "a:3.1")
    assert lines[1:] == [
        "id: a:3.1",
        "record_id: r-7",
        "source: a",
        "line: 1,003",
        "offset: byte 20,480",
        "shape: alpaca",
        r"tags: 'x, y', 'a\n\x1b[31m'",
        "repairs: 2 trailing turn(s) that nothing answers, left out ([ingest] trailing); "
        "1 message(s) joined to the one before, which is of the same role ([ingest] same_role)",
        "user",
        "hi",
    ]


@pytest.mark.parametrize(("id_", "found"), [("a:3.2", "a:3.2"), ("a:3", "a:3.1"), ("a:31", "a:31"), ("a:5", "a:5.2")])
def test_a_conversation_is_found_by_its_id_and_by_that_of_its_record(several, id_, found):
    assert f"id: {found}" in shown(several, "ingest", id_)


def test_what_became_of_one_of_several_conversations_is_said(tmp_path):
    rows = [ingested(id_, drop_reason="empty_message") for id_ in ("a:5.1", "a:9.2")]
    write_stage(tmp_path, "ingest", dropped_schema(CONVERSATIONS, QUARANTINE), [rows], half="dropped")
    for id_, real in (("a:5.1", "a:5.1"), ("a:9", "a:9.2")):
        with pytest.raises(ConfigError, match=f"dropped by ingest: empty_message .* --dropped --id '{real}'"):
            shown(tmp_path, "ingest", id_)
    with pytest.raises(ConfigError, match="no kept row has the id 'a:7'"):
        shown(tmp_path, "ingest", "a:7")


def test_rows_that_were_dropped_for_one_reason_are_counted_among_themselves(tmp_path):
    why = ["bad_json", "same_role", "bad_json", "bad_json", "same_role"]
    rows = [ingested(f"a:{i}", drop_reason=reason) for i, reason in enumerate(why)]
    write_stage(tmp_path, "ingest", dropped_schema(CONVERSATIONS, QUARANTINE), [rows[:3], rows[3:]], half="dropped")

    def at(reason: str, row: int, id_: str | None = None) -> list[str]:
        parts = look(tmp_path, "ingest", row=row, id=id_, dropped=False, reason=reason, in_colour=False)
        return [str(part) for part in parts]

    assert "id: a:1" in at("same_role", 0)
    assert "id: a:4" in at("same_role", 1)
    assert at("bad_json", 2)[0] == "ingest, row 2 of the 3 dropped as bad_json"
    assert "id: a:3" in at("bad_json", 2)
    for wrong, said in {
        ("bad_json", 3, None): "rows dropped as bad_json are numbered 0 to 2; got 3",
        ("bad_json", -1, None): "got -1",
        ("bad_jsn", 0, None): "no row was dropped as 'bad_jsn'; reasons here: bad_json 3, same_role 2",
        ("bad_json", 0, "a:1"): "give one of them",
    }.items():
        with pytest.raises(ConfigError, match=said):
            at(*wrong)
