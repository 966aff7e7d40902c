import json
from pathlib import Path

import pytest

from schemas.reasons import DropReason
from stages.ingest.messages import HARMLESS
from tests.stages.chats import CALL, FLAT, QA, answer, chat
from tests.stages.reading import kept, refused, said


def test_weights_and_reasoning_and_tags_are_kept():
    record = {
        "messages": [
            {"role": "user", "content": "q", "train": False},
            {"role": "assistant", "content": "a", "reasoning_content": "hm", "weight": 0.5},
        ],
        "tags": ["maths"],
        "source": "mine",
    }
    row = kept(record)
    assert [message["weight"] for message in row["messages"]] == [0.0, 0.5]
    assert row["messages"][1]["reasoning"] == "hm"
    assert row["tags"] == ["maths", "source:mine"]


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
    assert said(kept(record)) == [*(("system", text) for text in system), ("user", "Why?"), ("assistant", "Because.")]


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
    reason, detail = refused(record)
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
    assert said(kept(record)) == [("user", "Why?"), ("assistant", "Because.")]


def test_the_keys_that_are_left_out_are_documented():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert {key for key in HARMLESS if f"`{key}`" not in page} == set()


@pytest.mark.parametrize(
    "weight", ["1e39", "1000000.1", "-0.5", "1" + "0" * 400, "-1" + "0" * 400, "true", '"1"', "[]"]
)
def test_a_weight_out_of_bounds_is_quarantined(weight):
    raw = json.dumps(chat(content="a", weight="W")).replace('"W"', weight).encode()
    assert refused(raw)[0] == DropReason.BAD_SHAPE


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
    reason, detail = refused(json.dumps(chat(content="a", **flag)).encode())[:2]
    assert reason == DropReason.BAD_SHAPE
    assert f"messages[1].{next(iter(flag))}: expected train (true or false) or weight (a number)" in detail
    assert answer(chat(content="a", loss=None))["weight"] is None
