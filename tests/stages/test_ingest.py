import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DropReason
from stages.ingest import Ingest, ingest_lines
from stages.ingest.decode import decode_line
from stages.ingest.fast import read_fast
from stages.ingest.shapes import adapt

QA = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


def lines(*raws: bytes | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "source": ["f.jsonl"] * len(raws),
            "line": range(1, len(raws) + 1),
            "offset": [100 * i for i in range(len(raws))],
            "raw": list(raws),
        },
        schema={"source": pl.String, "line": pl.Int64, "offset": pl.Int64, "raw": pl.Binary},
    )


def ingest(record: Any, **settings: Any) -> dict[str, Any]:
    raw = record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()
    return ingest_lines(lines(raw), Ingest(**settings)).row(0, named=True)


def said(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row["messages"]]


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
        (b'{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}', DropReason.BAD_SHAPE),
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
    out = ingest_lines(lines(good, raw, good), Ingest())
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


def test_tool_calls_survive_as_json_text():
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.50}'}}]
    record = {
        "messages": [
            QA[0],
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "3", "tool_call_id": "1", "name": "f"},
            QA[1],
        ],
        "tools": '[{"name": "f",  "b": 1, "a": 2}]',
    }
    row = ingest(record)
    assert json.loads(row["messages"][1]["tool_calls"]) == calls
    assert row["messages"][1]["content"] is None
    assert (row["messages"][2]["tool_call_id"], row["messages"][2]["name"]) == ("1", "f")
    assert row["tools"] == record["tools"]


def test_a_sharegpt_function_call_becomes_a_tool_call():
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "r"},
        {"from": "gpt", "value": "a"},
    ]
    row = ingest({"conversations": turns})
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(row["messages"][1]["tool_calls"]) == [
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    ]


def test_weights_and_reasoning_and_tags_are_kept():
    record = {
        "messages": [
            {"role": "user", "content": "q", "train": False},
            {"role": "assistant", "content": "a", "reasoning_content": "hm", "weight": 0.5},
        ],
        "tags": ["maths"],
        "source": "mine",
    }
    row = ingest(record)
    assert [message["weight"] for message in row["messages"]] == [0.0, 0.5]
    assert row["messages"][1]["reasoning"] == "hm"
    assert row["tags"] == ["maths", "source:mine"]


def test_a_stated_shape_is_not_guessed():
    row = ingest({"messages": QA, "prompt": "p", "completion": "c"}, shape="prompt_completion")
    assert said(row) == [("user", "p"), ("assistant", "c")]


text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=40)


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
                    st.none() | st.booleans() | st.floats() | text,
                    lambda inner: (
                        st.lists(inner, max_size=3)
                        | st.dictionaries(
                            st.sampled_from(["messages", "role", "content", "prompt", "completion", "from", "value"]),
                            inner,
                            max_size=3,
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
    out = ingest_lines(lines(*raws), Ingest())
    assert out.height == len(raws)
    for row in out.iter_rows(named=True):
        assert (row["drop_reason"] is None) == bool(row["messages"])
        assert row["drop_reason"] is None or DropReason(row["drop_reason"])


key = st.sampled_from(["messages", "conversations", "role", "content", "id", "source", "tags", "prompt"])
role_name = st.sampled_from(["user", "assistant", "User", "gpt", "wizard", ""])
said_text = text | st.sampled_from(['"role": 1', "\\u0000", "\0", "\ud800", "", '" :'])
turn = st.dictionaries(key, said_text, max_size=3) | st.fixed_dictionaries({"role": role_name, "content": said_text})
line = st.lists(st.tuples(key, st.lists(turn, max_size=3) | said_text | st.integers()), max_size=3)


def spelled(pairs, gap, escape):
    """JSON text of key-value pairs that may repeat a key, with a chosen gap before the colons."""
    body = ", ".join(f"{json.dumps(name)}{gap}: {json.dumps(value, ensure_ascii=escape)}" for name, value in pairs)
    return ("{" + body + "}").encode("utf-8", "surrogatepass")


@given(line, st.sampled_from(["", "", " ", "\t", "\n"]), st.booleans())
def test_the_fast_lane_never_disagrees_with_the_strict_one(pairs, gap, escape):
    raw = spelled(pairs, gap, escape)
    fast = read_fast(raw)
    if fast is not None:
        assert adapt(decode_line(raw, max_depth=64), "auto") == fast


def test_the_fast_lane_takes_ordinary_lines():
    raw = json.dumps({"id": "1", "source": "s", "conversations": QA}).encode()
    assert read_fast(raw) == adapt(decode_line(raw, max_depth=64), "auto")
    assert read_fast(raw) is not None


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "c"}]}',
        b'{"id": 1, "id"\n: 2, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}',
        b'{"messages": [{"role": "user", "content": "a\\":"}, {"role": "assistant", "content": "c"}]}',
        b'{"messages": [{"role": "assistant", "content": "c", "weight": 0}]}',
    ],
)
def test_the_fast_lane_leaves_doubtful_lines_to_the_strict_one(raw):
    assert read_fast(raw) is None
