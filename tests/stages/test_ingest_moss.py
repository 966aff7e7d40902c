import json

import pytest

from schemas.reasons import DropReason
from tests.stages.reading import kept, refused

INSTRUCTION = (
    "You are MOSS.\n- Calculator: enabled. API: Calculate(expression)\n- Web search: enabled. API: Search(query)\n"
)


def turn(human="q", thoughts="None", commands="None", results="None", moss="a"):
    """A turn as MOSS publishes it."""
    return {
        "Human": f"<|Human|>: {human}<eoh>\n",
        "Inner Thoughts": f"<|Inner Thoughts|>: {thoughts}<eot>\n",
        "Commands": f"<|Commands|>: {commands}<eoc>\n",
        "Tool Responses": f"<|Results|>:\n{results}\n<eor>\n",
        "MOSS": f"<|MOSS|>: {moss}<eom>\n",
    }


def record(*turns):
    chat = {f"turn_{i}": one for i, one in enumerate(turns, 1)}
    return {"conversation_id": 7, "meta_instruction": INSTRUCTION, "num_turns": len(turns), "chat": chat}


def parts(row):
    """(role, content, reasoning, calls) of each message after the instruction."""
    assert (row["messages"][0]["role"], row["messages"][0]["content"]) == ("system", INSTRUCTION)
    return [(m["role"], m["content"], m["reasoning"], m["tool_calls"]) for m in row["messages"][1:]]


def test_thoughts_and_commands_that_are_none_are_none():
    row = kept(record(turn(), turn("r", thoughts="hm", commands="None.", moss="None")))
    assert (row["shape"], row["record_id"]) == ("moss", "7")
    assert parts(row) == [
        ("user", "q", None, None),
        ("assistant", "a", None, None),
        ("user", "r", None, None),
        ("assistant", "None", "hm", None),
    ]


def test_commands_become_calls_and_results_a_message_of_the_tool():
    commands = 'Search("1.10 \\u00e9"), \nCalculate("6 * \\"7\\""),'
    results = "Search(\"1.10\") =>\n<|1|>: 'x'"
    row = kept(record(turn(thoughts="hm", commands=commands, results=results, moss="a<sup><|1|></sup>")))
    assert parts(row) == [
        ("user", "q", None, None),
        (
            "assistant",
            None,
            "hm",
            '[{"type": "function", "function": {"name": "Search", "arguments": {"query": "1.10 \\u00e9"}}}, '
            '{"type": "function", "function": {"name": "Calculate", "arguments": {"expression": "6 * \\"7\\""}}}]',
        ),
        ("tool", results, None, None),
        ("assistant", "a<sup><|1|></sup>", None, None),
    ]


@pytest.mark.parametrize(
    "commands",
    [
        'Calculate("{} - 1".format(3))',
        'Calculate("1", "x")',
        'Solve("x = 1")',
        'Search("x"), None',
        'Calculate("a\nb")',
        "Calculate('1')",
        'Search("x"',
        'Calculate("\\ud800")',
    ],
)
def test_commands_that_are_not_plainly_declared_calls_stay_as_they_are_written(commands):
    row = kept(record(turn(thoughts="hm", commands=commands, results="None")))
    assert parts(row)[1:3] == [("assistant", commands, "hm", None), ("tool", "None", None, None)]


def test_text_without_markers_and_parts_that_are_absent_are_read_too():
    row = kept(record({"Human": "q", "Inner Thoughts": None, "MOSS": " a\n"}))
    assert parts(row) == [("user", "q", None, None), ("assistant", "a", None, None)]


def test_a_weight_holds_for_all_of_its_turn():
    row = kept(record(turn() | {"train": False}, turn()))
    assert [message["weight"] for message in row["messages"]] == [None, 0.0, 0.0, None, None]


@pytest.mark.parametrize(
    ("broken", "detail"),
    [
        (record(turn() | {"MOSS": "<|MOSS|>: a"}), "chat.turn_1.MOSS: expected <|MOSS|>: before it and <eom> after it"),
        (record(turn() | {"Human": "q<eoh>"}), "chat.turn_1.Human"),
        (record(turn() | {"MOSS": 3}), "chat.turn_1.MOSS: expected text, got 3"),
        (record(turn() | {"Image": "x"}), "'Image'"),
        (record({"Human": "q", "Inner Thoughts": "hm"}), "Inner Thoughts: expected commands or an answer after them"),
        (record(turn(), "x"), "chat.turn_2: expected an object"),
        ({"chat": {"turn_2": turn(), "turn_1": turn()}}, "chat: expected turn_1, turn_2"),
        (record(turn()) | {"meta_instruction": 3}, "meta_instruction"),
    ],
)
def test_what_is_broken_is_refused_with_its_place(broken, detail):
    reason, got = refused(broken)
    assert (reason, detail in got) == (DropReason.BAD_SHAPE, True), got


def test_arguments_of_calls_are_json():
    row = kept(record(turn(commands='Calculate("1\\n\\t\\\\2")', results="x")))
    (call,) = json.loads(parts(row)[1][3])
    assert call["function"]["arguments"] == {"expression": "1\n\t\\2"}
