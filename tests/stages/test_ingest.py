import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DropReason
from stages.ingest import Ingest, ingest_lines
from tests.stages.chats import HOSTILE, QA, chat
from tests.stages.reading import Row, read, refused, said
from tests.stages.rows import records


def ingest(record: Any, **settings: Any) -> Row:
    """Return the one row of a record, kept or not."""
    (row,) = read(record, **settings)
    return row


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": QA}, [("user", "Why?"), ("assistant", "Because.")]),
        ({"conversations": QA}, [("user", "Why?"), ("assistant", "Because.")]),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
            [("system", "s"), ("user", "a"), ("assistant", "b")],
        ),
        ({"instruction": "Add", "input": "1 2", "output": "3"}, [("user", "Add\n1 2"), ("assistant", "3")]),
        ({"instruction": "Add", "input": "", "output": "3"}, [("user", "Add"), ("assistant", "3")]),
        (
            {"instruction": "q2", "output": "a2", "history": [["q1", "a1"]]},
            [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")],
        ),
        ({"prompt": "p", "completion": "c"}, [("user", "p"), ("assistant", "c")]),
        ({"prompt": QA[:1], "completion": QA[1:]}, [("user", "Why?"), ("assistant", "Because.")]),
        (
            {
                "messages": [
                    {"role": "User", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                    QA[1],
                ]
            },
            [("user", "ab"), ("assistant", "Because.")],
        ),
    ],
)
def test_each_shape_becomes_messages(record, expected):
    row = ingest(record)
    assert row["drop_reason"] is None, row["detail"]
    assert said(row) == expected
    assert row["id"] == "f.jsonl:1"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"messages": [', DropReason.BAD_JSON),
        (b"hello", DropReason.BAD_JSON),
        (b'{"a": NaN}', DropReason.BAD_JSON),
        (b'{"messages": "\xff"}', DropReason.BAD_UTF8),
        (b'{"prompt": "\\ud800", "completion": "x"}', DropReason.LONE_SURROGATE),
        (b'{"prompt": "\xed\xa0\x80", "completion": "x"}', DropReason.BAD_UTF8),
        (b'{"prompt": "a", "prompt": "b", "completion": "c"}', DropReason.DUPLICATE_KEY),
        (b'{"prompt": "a", "prompt" : "b", "completion": "c"}', DropReason.DUPLICATE_KEY),
        (b'{"prompt": "a", "pro\\u006dpt": "b", "completion": "c"}', DropReason.DUPLICATE_KEY),
        (b'{"messages": [{"role": "user", "content": "a", "role": "assistant"}]}', DropReason.DUPLICATE_KEY),
        (b'{"prompt": "a\\u0000b", "completion": "c"}', DropReason.NUL_CHARACTER),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", DropReason.TOO_DEEP),
        (b"[" * 100_000, DropReason.TOO_DEEP),
        (b"[1, 2]", DropReason.UNKNOWN_SHAPE),
        (b"3", DropReason.UNKNOWN_SHAPE),
        (b'{"text": "plain"}', DropReason.UNKNOWN_SHAPE),
        (b'{"messages": {}}', DropReason.UNKNOWN_SHAPE),
        (b'{"messages": [3]}', DropReason.BAD_SHAPE),
        (b'{"prompt": 3, "completion": "c"}', DropReason.BAD_SHAPE),
        (b'{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}', DropReason.UNSUPPORTED_PART),
        (b'{"messages": [{"role": "wizard", "content": "a"}]}', DropReason.UNKNOWN_ROLE),
        (
            b'{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}]}',
            DropReason.EMPTY_MESSAGE,
        ),
        (
            b'{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "b"}]}',
            DropReason.EMPTY_MESSAGE,
        ),
        (b'{"messages": [{"role": "user", "content": "a"}]}', DropReason.NO_ANSWER),
        (None, DropReason.LINE_TOO_LONG),
    ],
)
def test_a_bad_line_is_quarantined_with_its_place_and_reason(raw, reason):
    good = json.dumps({"messages": QA}).encode()
    out = ingest_lines(records(good, raw, good), Ingest())
    assert out["drop_reason"].to_list() == [None, reason.value, None]
    bad = out.row(1, named=True)
    assert (bad["id"], bad["line"], bad["offset"]) == ("f.jsonl:2", 2, 100)
    assert bad["detail"]
    assert bad["messages"] == []


def test_the_excerpt_is_bounded_and_printable():
    row = ingest(b"\x1b[31m" + b"x" * 10_000)
    assert row["excerpt"].startswith("\\x1b[31m")
    assert len(row["excerpt"]) < 250
    assert row["excerpt"].isprintable()


def test_what_looks_like_a_repeated_key_inside_text_is_not_one():
    content = 'He said {"role": "x", "role": "y"} and "role" : 3'
    row = ingest({"messages": [{"role": "user", "content": content}, QA[1]]})
    assert said(row)[0] == ("user", content)


def test_byte_order_mark_and_carriage_return_do_no_harm():
    row = ingest(b"\xef\xbb\xbf" + json.dumps({"messages": QA}).encode() + b"\r\n")
    assert said(row) == [("user", "Why?"), ("assistant", "Because.")]


def test_a_stated_shape_is_not_guessed():
    row = ingest({"messages": QA, "prompt": "p", "completion": "c"}, shape="prompt_completion")
    assert said(row) == [("user", "p"), ("assistant", "c")]


@pytest.mark.parametrize("gap", [" ", "  ", " \t", "\n", "\r\n", "\t \r\n"])
def test_a_repeated_key_is_found_whatever_stands_before_its_colon(gap):
    raw = '{"messages": [{"role": "user", "content": "x", "content"GAP: "q"}, {"role": "assistant", "content": "a"}]}'
    assert refused(raw.replace("GAP", gap).encode())[0] == DropReason.DUPLICATE_KEY
    once = '{"messages": [{"role": "user", "content"GAP: "q"}, {"role": "assistant", "content": "a \\" : b"}]}'
    assert said(ingest(once.replace("GAP", gap).encode())) == [("user", "q"), ("assistant", 'a " : b')]


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("Why?", QA[1:]), ("Why?", QA[1]), (QA[:1], "Because."), (QA[:1], QA[1]), (QA[0], "Because."), (QA[0], QA[1:])],
)
def test_prompt_and_completion_pair_in_any_form(prompt, completion):
    assert said(ingest({"prompt": prompt, "completion": completion})) == [("user", "Why?"), ("assistant", "Because.")]


def test_the_greatest_depth_is_read_without_running_out_of_stack():
    deep = b"[" * 490 + b'"a\\u0000"' + b"]" * 490
    raw = b'{"prompt": "p", "completion": "c", "x" : ' + deep + b"}"
    assert ingest(raw, max_depth=500)["drop_reason"] == DropReason.NUL_CHARACTER
    assert ingest(raw.replace(b"\\u0000", b""), max_depth=500)["drop_reason"] is None
    assert ingest(raw, max_depth=400)["drop_reason"] == DropReason.TOO_DEEP


def test_brackets_in_strings_are_no_depth():
    assert said(ingest({"prompt": '\\"[{' * 100, "completion": "["})) == [("user", '\\"[{' * 100), ("assistant", "[")]


def test_a_detail_is_bounded():
    assert len(refused({"k" * 100_000: 1})[1]) <= 500
    assert len(refused(chat(content="a", **{"k" * 100_000: "x"}))[1]) <= 500


text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=40)


NAMES = ["messages", "conversations", "prompt", "completion", "instruction", "output", "history", "system", "tools"]


NAMES += ["role", "from", "content", "value", "weight", "train", "tool_calls", "function_call", "functions", "type"]


NAMES += ["name", "arguments", "function", "reasoning", "thinking", "tool_call"]


VALUES = [
    "user",
    "assistant",
    "function_call",
    "text",
    "tool_call",
    '{"name": "f", "arguments": {}}',
    "[]",
    "[1]",
    10**400,
]


VALUES += [hostile for hostile, _ in HOSTILE]


@given(st.lists(st.tuples(text, text), min_size=1, max_size=4), st.booleans())
def test_any_text_comes_out_as_it_went_in(turns, escape):
    messages = [
        {"role": role, "content": content}
        for pair in turns
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    row = ingest(json.dumps({"messages": messages}, ensure_ascii=escape).encode())
    assert said(row) == [(message["role"], message["content"]) for message in messages]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda v: json.dumps(v).encode(),
                st.recursive(
                    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(VALUES) | text,
                    lambda inner: (
                        st.lists(inner, max_size=3)
                        | st.dictionaries(
                            st.sampled_from(NAMES),
                            inner,
                            max_size=4,
                        )
                    ),
                    max_leaves=8,
                ),
            ),
        ),
        max_size=8,
    )
)
def test_whatever_the_bytes_every_line_becomes_one_row_with_messages_or_a_reason(raws):
    out = ingest_lines(records(*raws), Ingest())
    assert out.height == len(raws)
    for row in out.iter_rows(named=True):
        assert (row["drop_reason"] is None) == bool(row["messages"])
        assert row["drop_reason"] is None or DropReason(row["drop_reason"])


hostile = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(VALUES) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=6,
)


hostile_turn = st.builds(
    lambda base, more: base | more,
    st.sampled_from([{"role": "user", "content": "q"}, {"role": "assistant"}, {"from": "gpt", "value": "a"}]),
    st.dictionaries(st.sampled_from(NAMES[9:]), hostile, max_size=2),
)


@given(st.lists(hostile_turn, max_size=4), st.dictionaries(st.sampled_from(["system", "tools", "functions"]), hostile))
def test_whatever_a_turn_holds_what_is_kept_can_be_trained_on(turns, more):
    row = ingest(json.dumps({"messages": turns} | more).encode())
    for message in row["messages"]:
        assert message["content"] or message["tool_calls"] or message["reasoning"]
        assert message["weight"] is None or 0 <= message["weight"] <= 1e6
        for text in (message["tool_calls"], row["tools"]):
            assert text is None or json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False).encode()
