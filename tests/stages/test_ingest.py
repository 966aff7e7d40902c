import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DropReason
from stages.ingest import Ingest, ingest_lines
from stages.ingest.decode import LineError
from stages.ingest.fast import read_fast
from stages.ingest.messages import HARMLESS
from tests.stages.rows import records, strict

QA = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


def ingest(record: Any, **settings: Any) -> dict[str, Any]:
    raw = record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()
    return ingest_lines(records(raw), Ingest(**settings)).row(0, named=True)


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


def chat(**extra):
    """A conversation whose answer has `extra` beside its role; content is its own to give."""
    return {"messages": [QA[0], {"role": "assistant", **extra}]}


def answer(record, **settings):
    """The last message of `record`, which must be kept."""
    row = ingest(record, **settings)
    assert row["drop_reason"] is None, row["detail"]
    return row["messages"][-1]


def refusal(record):
    row = ingest(record)
    assert row["drop_reason"] is not None, row["messages"]
    return row["drop_reason"], row["detail"]


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
FLAT = {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    ("record", "calls"),
    [
        (chat(content="Wait.", function_call=FLAT), [CALL]),
        (chat(content=None, function_call=json.dumps(FLAT)), [CALL]),
        (chat(tool_calls=[CALL]), [CALL]),
        (chat(content=[{"type": "tool_call", "value": FLAT}]), [CALL]),
        (chat(content=[{"type": "tool_call", "value": {**FLAT, "id": "c1"}}]), [{"id": "c1", **CALL}]),
        (chat(function_call={"name": "f", "parameters": {"x": 1}}), [CALL]),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "tool_calls": [CALL]}]}, [CALL]),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "function_call", "value": json.dumps([FLAT] * 2)},
                ]
            },
            [CALL, CALL],
        ),
    ],
)
def test_a_call_is_kept_wherever_it_stands(record, calls):
    assert json.loads(answer(record)["tool_calls"]) == calls


def test_text_beside_a_call_is_kept():
    message = answer(chat(content="Wait.", function_call=FLAT))
    assert (message["content"], json.loads(message["tool_calls"])) == ("Wait.", [CALL])


@pytest.mark.parametrize(
    "record",
    [
        chat(content="a", thinking="hm"),
        chat(content="a", reasoning="hm", reasoning_content="hm"),
        chat(content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}], reasoning_content=""),
        chat(reasoning_content="hm"),
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "reasoning_content": "hm"}]},
    ],
)
def test_reasoning_is_kept_wherever_it_stands(record):
    assert answer(record)["reasoning"] == "hm"


def test_a_turn_of_function_call_keeps_its_weight():
    turns = [{"from": "human", "value": "q"}, {"from": "function_call", "value": json.dumps(FLAT), "weight": 0}]
    assert answer({"conversations": turns})["weight"] == 0.0


@pytest.mark.parametrize(
    ("record", "system"),
    [
        ({"messages": QA, "system": "s"}, ["s"]),
        ({"messages": [{"role": "system", "content": "s"}, *QA], "system": "s"}, ["s"]),
        ({"messages": [{"role": "system", "content": ""}, *QA], "system": "s"}, ["s"]),
        ({"messages": [{"role": "system", "content": ""}, *QA]}, []),
        ({"messages": QA, "system": ""}, []),
        ({"prompt": QA[:1], "completion": QA[1:], "system": "s"}, ["s"]),
        ({"instruction": "Why?", "output": "Because.", "system": "s"}, ["s"]),
    ],
)
def test_one_rule_for_system_messages(record, system):
    assert said(ingest(record)) == [*(("system", text) for text in system), ("user", "Why?"), ("assistant", "Because.")]


@pytest.mark.parametrize(
    ("record", "keys"),
    [
        ({"messages": [{"role": "system", "content": "s"}, *QA], "system": "t"}, ["system", "first message"]),
        ({"messages": QA, "conversations": QA[1:]}, ["messages", "conversations"]),
        (chat(content="a", tool_calls=[CALL], function_call={"name": "g"}), ["tool_calls", "function_call"]),
        (chat(content=[{"type": "tool_call", "value": FLAT}], tool_calls=[CALL, CALL]), ["tool_calls", "content"]),
        (
            chat(content=[{"type": "reasoning", "value": "x"}, "a"], reasoning_content="y"),
            ["reasoning_content", "part"],
        ),
        (chat(content="a", thinking="x", reasoning="y"), ["reasoning", "thinking"]),
        (chat(content="a", weight=1, train=False), ["weight", "train"]),
        (chat(content="a", weight=0, train=True), ["weight", "train"]),
        (chat(content="a", weight=1, loss_weight=2), ["weight", "loss_weight"]),
        (chat(content="a", value="b"), ["content", "value"]),
        (chat(content=[{"type": "text", "text": "a", "value": "b"}]), ["text", "value"]),
        (chat(content=[{"type": "text", "text": "a", "thinking": "b"}]), ["thinking"]),
        ({"messages": [{"role": "system", "content": "s", "tools": [FLAT]}, *QA], "tools": [CALL]}, ["tools"]),
        ({"messages": QA, "tools": [CALL], "functions": [{"name": "g"}]}, ["tools", "functions"]),
        (chat(content="a", refusal="No."), ["refusal"]),
        (chat(content="a", audios_of_it=["x.png"], clip={"id": "1"}), ["audios_of_it", "clip"]),
        (chat(content="a", tools=[FLAT]), ["tools"]),
        ({"prompt": "p", "completion": [{"role": "assistant", "content": "c", "tools": [FLAT]}]}, ["tools"]),
    ],
)
def test_what_contradicts_or_is_not_read_is_quarantined_by_name(record, keys):
    reason, detail = refusal(record)
    assert reason == DropReason.BAD_SHAPE
    assert all(key in detail for key in keys), detail


@pytest.mark.parametrize(
    "record",
    [
        {"messages": QA, "conversations": QA},
        {"messages": QA, "conversations": []},
        chat(content="Because.", annotation="x", id="7", timestamp="now", label="good", metadata={"a": 1}),
        chat(content="Because.", refusal=None, audio=None, images=[], toxic=False, turns=3, annotations=[]),
        chat(content="Because.", tool_calls=None, function_call=None, reasoning_content=None),
        {"messages": QA, "chosen": "x", "unheard_of": {"a": "b"}},
    ],
)
def test_what_says_nothing_or_the_same_does_no_harm(record):
    assert said(ingest(record)) == [("user", "Why?"), ("assistant", "Because.")]


def test_the_keys_that_are_left_out_are_documented():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert {key for key in HARMLESS if f"`{key}`" not in page} == set()


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "q", "output": "a", "tools": [FLAT]},
        {"prompt": "q", "completion": "a", "tools": [FLAT]},
        {"messages": [{"role": "system", "content": "", "tools": [FLAT]}, *QA]},
        {
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
            "tools": json.dumps([FLAT]),
        },
    ],
)
def test_tools_are_kept_in_every_shape(record):
    assert json.loads(ingest(record)["tools"]) == [FLAT]


def test_functions_become_tools():
    row = ingest({"messages": QA, "functions": [{"name": "f", "description": "d"}]})
    assert json.loads(row["tools"]) == [{"type": "function", "function": {"name": "f", "description": "d"}}]


@pytest.mark.parametrize("tools", ["", "  ", "[]", "null", None, [], {}])
def test_empty_tools_are_no_tools(tools):
    row = ingest({"messages": QA, "tools": tools})
    assert (row["drop_reason"], row["tools"]) == (None, None)


def test_json_values_stay_as_they_were_written():
    raw = (
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [ {"type":"function",'
        b' "function": {"name": "f", "arguments": {"x": 1.10, "y": 1E5, "z": 0.12345678901234567890}}}]},'
        b' {"role": "assistant", "content": null, "function_call": {"name": "g", "arguments": {"x":1.10}}}],'
        b' "tools": [{"max" : 1.50, "e": "\\u00e9"} ]}'
    )
    row = ingest(b"\xef\xbb\xbf" + raw, same_role="keep")
    assert row["tools"] == '[{"max" : 1.50, "e": "\\u00e9"} ]'
    assert [message["tool_calls"] for message in row["messages"]] == [
        None,
        '[ {"type":"function", "function": {"name": "f", "arguments": {"x": 1.10, "y": 1E5, "z": 0.12345678901234567890}}}]',
        '[{"type": "function", "function": {"name": "g", "arguments": {"x":1.10}}}]',
    ]


DEEP = "[" * 5_000 + "]" * 5_000
HOSTILE = [
    (DEEP, DropReason.TOO_DEEP),
    ("[" * 5_000, DropReason.TOO_DEEP),
    ('[{"a": "\\ud83d"}]', DropReason.LONE_SURROGATE),
    ('[{"a": 1, "a": 2}]', DropReason.DUPLICATE_KEY),
    ('[{"a": 1, "a"  : 2}]', DropReason.DUPLICATE_KEY),
    ('[{"a": "\\u0000"}]', DropReason.NUL_CHARACTER),
    ('[{"a": NaN}]', DropReason.BAD_JSON),
    ('[{"a": 1e400}]', DropReason.BAD_JSON),
]


@pytest.mark.parametrize(("hostile", "reason"), HOSTILE)
@pytest.mark.parametrize(
    "place",
    [
        lambda hostile: {"messages": QA, "tools": hostile},
        lambda hostile: {"messages": [{**QA[0], "tools": hostile}, QA[1]]},
        lambda hostile: chat(tool_calls=hostile),
        lambda hostile: chat(function_call=hostile),
        lambda hostile: chat(tool_calls=[{"function": {"name": "f", "arguments": hostile}}]),
        lambda hostile: chat(tool_calls=json.dumps([{"name": "f", "arguments": hostile}])),
        lambda hostile: chat(function_call={"name": "f", "arguments": hostile}),
        lambda hostile: chat(content=[{"type": "tool_call", "value": hostile}]),
        lambda hostile: {"conversations": [QA[0], {"from": "function_call", "value": hostile}]},
    ],
)
def test_json_text_inside_a_line_is_read_as_strictly_as_the_line(place, hostile, reason):
    assert refusal(place(hostile))[0] == reason


@pytest.mark.parametrize(
    "arguments", ["print('hi')", '{"x": 1', "", "{'x': 1}", '{"x": "\\ud83d', "[1,]", '{"x": 1.50}', "3"]
)
def test_arguments_stay_the_text_they_are_json_or_not(arguments):
    for record in (
        chat(tool_calls=[{"function": {"name": "f", "arguments": arguments}}]),
        chat(function_call={"name": "f", "arguments": arguments}),
    ):
        (call,) = json.loads(answer(record)["tool_calls"])
        assert call["function"]["arguments"] == arguments


@pytest.mark.parametrize("calls", [{"name": "f"}, "3", ["f"], [{"arguments": {}}], [{"function": "f"}], 7])
def test_what_is_no_list_of_calls_is_quarantined(calls):
    assert refusal(chat(content="a", tool_calls=calls))[0] == DropReason.BAD_SHAPE


@pytest.mark.parametrize(
    "weight", ["1e39", "1000000.1", "-0.5", "1" + "0" * 400, "-1" + "0" * 400, "true", '"1"', "[]"]
)
def test_a_weight_out_of_bounds_is_quarantined(weight):
    raw = json.dumps(chat(content="a", weight="W")).replace('"W"', weight).encode()
    assert refusal(raw)[0] == DropReason.BAD_SHAPE


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({"weight": 1e6}, 1e6),
        ({"loss_weight": 0}, 0.0),
        ({"train": True}, 1.0),
        ({"train": True, "weight": 0.5}, 0.5),
        ({"train": False, "weight": 0}, 0.0),
        ({"weight": 1, "loss_weight": 1.0}, 1.0),
        ({"weight": None}, None),
    ],
)
def test_weights_that_agree_are_kept(keys, weight):
    assert answer(chat(content="a", **keys))["weight"] == weight


@pytest.mark.parametrize("flag", [{"loss": False}, {"mask": 1}, {"training": True}, {"weights": [0, 1]}])
def test_a_flag_by_which_others_leave_a_message_untrained_is_not_overlooked(flag):
    reason, detail = refusal(json.dumps(chat(content="a", **flag)).encode())[:2]
    assert reason == DropReason.BAD_SHAPE
    assert f"messages[1].{next(iter(flag))}: expected train (true or false) or weight (a number)" in detail
    assert answer(chat(content="a", loss=None))["weight"] is None


def test_no_text_beside_calls_is_the_same_as_null():
    assert answer(chat(content="", tool_calls=[CALL])) == answer(chat(content=None, tool_calls=[CALL]))
    assert answer(chat(content=" ", tool_calls=[CALL]))["content"] == " "


@pytest.mark.parametrize("gap", [" ", "  ", " \t", "\n", "\r\n", "\t \r\n"])
def test_a_repeated_key_is_found_whatever_stands_before_its_colon(gap):
    raw = '{"messages": [{"role": "user", "content": "x", "content"GAP: "q"}, {"role": "assistant", "content": "a"}]}'
    assert refusal(raw.replace("GAP", gap).encode())[0] == DropReason.DUPLICATE_KEY
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
    assert len(refusal({"k" * 100_000: 1})[1]) <= 500
    assert len(refusal(chat(content="a", **{"k" * 100_000: "x"}))[1]) <= 500


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


key = st.sampled_from(
    ["messages", "conversations", "role", "content", "id", "source", "tags", "prompt", "system", "tools"]
)
role_name = st.sampled_from(["user", "assistant", "User", "gpt", "wizard", ""])
said_text = text | st.sampled_from(['"role": 1', "\\u0000", "\0", "\ud800", "", '" :'])
turn = st.dictionaries(key, said_text, max_size=3) | st.fixed_dictionaries({"role": role_name, "content": said_text})
line = st.lists(st.tuples(key, st.lists(turn, max_size=3) | said_text | st.integers()), max_size=3)


def spelled(pairs, gap, escape):
    """JSON text of key-value pairs that may repeat a key, with a chosen gap before the colons."""
    body = ", ".join(f"{json.dumps(name)}{gap}: {json.dumps(value, ensure_ascii=escape)}" for name, value in pairs)
    return ("{" + body + "}").encode("utf-8", "surrogatepass")


@given(line, st.sampled_from(["", "", " ", "\t", "\n", "  ", " \t", "\r\n"]), st.booleans())
def test_the_fast_lane_never_disagrees_with_the_strict_one(pairs, gap, escape):
    raw = spelled(pairs, gap, escape)
    fast = read_fast(raw)
    if fast is not None:
        assert strict(raw) == fast


plain_turn = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["assistant", "gpt", "user", "system"]),
        "content": text | text | text | st.just('"role" :'),
    }
)
plain_line = st.tuples(
    st.tuples(st.sampled_from(["messages", "conversations"]), st.lists(plain_turn, min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["id", "source", "system", "weight"]), st.none() | st.just(1) | text),
)


@given(plain_line, st.sampled_from(["", "", "", "  "]), st.booleans(), st.sampled_from([True, True, False]))
def test_whichever_lane_reads_an_ordinary_line_it_says_the_same(pairs, gap, escape, bare):
    raw = spelled(pairs[:1] if bare else pairs, gap, escape)
    fast = read_fast(raw)
    row = ingest(raw)
    if row["drop_reason"] is not None:
        assert fast is None
        with pytest.raises(LineError, match=row["drop_reason"]):
            strict(raw)
        return
    lawful = strict(raw)
    assert fast in (None, lawful)
    assert said(row) == [(message.role, message.content) for message in lawful.messages]
    assert (row["tools"], tuple(row["tags"])) == (lawful.tools, lawful.tags)


def test_the_fast_lane_takes_ordinary_records():
    raw = json.dumps({"id": "1", "source": "s", "conversations": QA}).encode()
    assert read_fast(raw) == strict(raw)
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
