import json

import pytest

from schemas.reasons import DropReason
from tests.stages.chats import CALL, FLAT, HOSTILE, QA, answer, chat
from tests.stages.reading import kept, refused


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
    row = kept(record)
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
    row = kept({"conversations": turns})
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(row["messages"][1]["tool_calls"]) == [
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    ]


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
    assert json.loads(kept(record)["tools"]) == [FLAT]


def test_functions_become_tools():
    row = kept({"messages": QA, "functions": [{"name": "f", "description": "d"}]})
    assert json.loads(row["tools"]) == [{"type": "function", "function": {"name": "f", "description": "d"}}]


@pytest.mark.parametrize("tools", ["", "  ", "[]", "null", None, [], {}])
def test_empty_tools_are_no_tools(tools):
    row = kept({"messages": QA, "tools": tools})
    assert (row["drop_reason"], row["tools"]) == (None, None)


def test_json_values_stay_as_they_were_written():
    raw = (
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [ {"type":"function",'
        b' "function": {"name": "f", "arguments": {"x": 1.10, "y": 1E5, "z": 0.12345678901234567890}}}]},'
        b' {"role": "assistant", "content": null, "function_call": {"name": "g", "arguments": {"x":1.10}}}],'
        b' "tools": [{"max" : 1.50, "e": "\\u00e9"} ]}'
    )
    row = kept(b"\xef\xbb\xbf" + raw, same_role="keep")
    assert row["tools"] == '[{"max" : 1.50, "e": "\\u00e9"} ]'
    assert [message["tool_calls"] for message in row["messages"]] == [
        None,
        '[ {"type":"function", "function": {"name": "f", "arguments": {"x": 1.10, "y": 1E5, "z": 0.12345678901234567890}}}]',
        '[{"type": "function", "function": {"name": "g", "arguments": {"x":1.10}}}]',
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
    assert refused(place(hostile))[0] == reason


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
    assert refused(chat(content="a", tool_calls=calls))[0] == DropReason.BAD_SHAPE


def test_no_text_beside_calls_is_the_same_as_null():
    assert answer(chat(content="", tool_calls=[CALL])) == answer(chat(content=None, tool_calls=[CALL]))
    assert answer(chat(content=" ", tool_calls=[CALL]))["content"] == " "
