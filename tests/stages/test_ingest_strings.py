"""Records that are no conversations, read as one text."""

import json

import polars as pl
import pytest

from stages.ingest import Ingest, ingest_lines
from tests.stages.rows import records

TEXT = Ingest(unknown="text")


def ingest(*raws: bytes | object, source: str = "a.jsonl", config: Ingest = TEXT) -> pl.DataFrame:
    lines = [raw if isinstance(raw, bytes) else json.dumps(raw).encode() for raw in raws]
    return ingest_lines(records(*lines, source=source), config)


def said(out: pl.DataFrame) -> list[list[tuple[str, str]]]:
    return [[(message["role"], message["content"]) for message in row] for row in out["messages"].to_list()]


def test_all_strings_in_their_order_are_one_user_message():
    record = {"id": 7, "question": "Why?", "choices": ["a", {"b": ["c", None, True]}], "n": 1.5, "answer": " d "}
    assert said(ingest(record, ["x", 3, "y"], "just text")) == [
        [("user", "Why?\na\nc\n d ")],
        [("user", "x\ny")],
        [("user", "just text")],
    ]


def test_who_speaks_is_no_part_of_what_is_said():
    turns = [{"role": "user", "content": "Who?"}, {"from": "human", "value": "Me"}]
    parts = {"role": "user", "content": [{"type": "text", "text": "Where?"}]}
    assert said(ingest({"messages": turns[:1]}, {"dialogue": turns}, {"input": [parts], "role": "judge"})) == [
        [("user", "Who?")],
        [("user", "Who?\nMe")],
        [("user", "Where?\njudge")],
    ]


def test_a_conversation_stays_one():
    record = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
    assert said(ingest(record)) == [[("user", "2+2?"), ("assistant", "4")]]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"instruction": "Sing", "input": "", "output": ""}, "Sing"),
        ({"prompt": "Sing", "completion": ["la", "la"]}, "Sing\nla\nla"),
        ({"messages": [{"role": "narrator", "content": "Once"}]}, "Once"),
        ({"messages": "Once"}, "Once"),
    ],
    ids=["no answer", "bad shape", "unknown role", "no turns"],
)
def test_a_record_that_only_resembles_a_conversation_counts_as_text(record, text):
    out = ingest(record)
    assert said(out) == [[("user", text)]]
    assert out["drop_reason"].to_list() == [None]
    assert ingest(record, config=Ingest())["drop_reason"][0] is not None


def test_what_holds_no_text_or_cannot_be_read_stays_quarantined():
    out = ingest({"n": 3}, {"a": " "}, [], 7, b"{broken", b'{"a": "\\u0000"}', b'{"a": "\xff"}', b'{"a":"b","a":"c"}')
    assert out["drop_reason"].to_list() == [
        *["unknown_shape"] * 4,
        "bad_json",
        "nul_character",
        "bad_utf8",
        "duplicate_key",
    ]
    assert said(out) == [[]] * 8


def test_lines_of_a_text_file_are_taken_as_they_are():
    out = ingest(b"\xef\xbb\xbf[1] What?\r\n", b'{"a": "b"}\n', b"\xff\n", b"a\0b\n", source="eval/lines.txt")
    assert said(out) == [[("user", "[1] What?")], [("user", '{"a": "b"}')], [], []]
    assert out["drop_reason"].to_list() == [None, None, "bad_utf8", "nul_character"]
    packed = ingest(b"What?\n", source="lines.txt.gz")
    assert said(packed) == [[("user", "What?")]]
    assert ingest(b"What?\n", source="lines.txt", config=Ingest())["drop_reason"].to_list() == ["bad_json"]


def test_the_deepest_record_is_read():
    depth = 500
    assert said(ingest(b"[" * depth + b'"deep"' + b"]" * depth, config=Ingest(unknown="text", max_depth=depth))) == [
        [("user", "deep")]
    ]
