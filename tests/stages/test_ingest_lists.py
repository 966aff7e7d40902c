import json

import pytest

from schemas.reasons import DropReason
from tests.stages.chats import FLAT, QA
from tests.stages.reading import kept, refused, said

SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
ASKED = [("user", "Why?"), ("assistant", "Because.")]


@pytest.mark.parametrize(
    ("record", "shape"),
    [
        ({"messages": QA}, "messages"),
        ({"conversations": QA}, "messages"),
        ({"conversation": QA}, "messages"),
        ({"conversations": SHAREGPT}, "sharegpt"),
        ({"messages": SHAREGPT}, "sharegpt"),
        ({"messages": [QA[0], SHAREGPT[1]]}, "messages"),
        ({"messages": [SHAREGPT[0], QA[1]]}, "sharegpt"),
        ({"messages": [], "conversations": SHAREGPT}, "sharegpt"),
        (QA, "turns"),
        (SHAREGPT, "turns"),
        (
            [{"role": "client", "content": "Why?", "annotation": []}, {"role": "counselor", "content": "Because."}],
            "turns",
        ),
        (
            {"messages": [{"message": "Why?"}, {"message": "Because.", "attrs": [{"name": "x"}]}], "name": "y"},
            "unlabelled",
        ),
        ([{"message": "Why?"}, {"message": "Because."}], "unlabelled"),
        ({"conversations": ["Why?", "Because."], "source": "lima"}, "texts"),
        ({"id": "0", "data": ["Why?", "Because."]}, "texts"),
    ],
)
def test_a_list_is_read_by_what_its_first_turn_has(record, shape):
    row = kept(record)
    assert (row["shape"], said(row)) == (shape, ASKED)


def test_a_list_of_texts_without_a_key_is_a_conversation_only_where_the_config_says_so():
    labels = ["Why?", "Because."]
    assert refused(labels)[0] == DropReason.UNKNOWN_SHAPE
    assert said(kept(labels, shape="texts")) == ASKED


def test_a_turn_without_answer_is_trimmed_and_counted_in_every_list():
    for record in (
        {"messages": [*QA, QA[0]]},
        [*QA, QA[0]],
        {"data": ["Why?", "Because.", "And?"]},
        {"messages": [{"message": text} for text in ("Why?", "Because.", "And?")]},
    ):
        row = kept(record)
        assert (said(row), row["repairs"]) == (ASKED, ["trailing:1"])


@pytest.mark.parametrize("key", ["answers", "response", "output"])
def test_an_answer_beside_turns_that_nothing_answers_is_not_lost(key):
    for turns in ({"messages": [*QA, QA[0]]}, {"data": ["Why?", "Because.", "And?"]}):
        reason, detail = refused({**turns, key: ["So."] if key == "answers" else "So."})
        assert (reason, key in detail) == (DropReason.BAD_SHAPE, True), detail
        assert kept({**turns, key: None})["repairs"] == ["trailing:1"]
    assert said(kept({"messages": QA, key: "So."})) == ASKED


@pytest.mark.parametrize(
    ("record", "reason", "place"),
    [
        ({"messages": [QA[0], "Because."]}, DropReason.BAD_SHAPE, "messages[1]: expected an object"),
        ({"conversations": ["Why?", None]}, DropReason.BAD_SHAPE, "conversations[1]: expected text, got None"),
        ({"data": ["Why?", {"role": "x"}]}, DropReason.BAD_SHAPE, "data[1]"),
        ({"conversations": ["a", "b"], "data": ["c", "d"]}, DropReason.BAD_SHAPE, "conversations, data say different"),
        (["Why?", 3], DropReason.UNKNOWN_SHAPE, 'shape = "texts"'),
        ([QA[0], 3], DropReason.BAD_SHAPE, "[1]: expected an object"),
        ({"messages": [{"message": None}, {"message": "x"}]}, DropReason.BAD_SHAPE, "messages[0].message"),
        ({"messages": [{"message": "a"}, {"speaker": "B", "message": "b"}]}, DropReason.BAD_SHAPE, "'speaker'"),
        (
            {"messages": [{"speaker": "USER", "text": "a"}]},
            DropReason.BAD_SHAPE,
            "keys: speaker, text; [ingest.mapping] role",
        ),
        (
            {"messages": [{"role": "wizard", "content": "a"}]},
            DropReason.UNKNOWN_ROLE,
            "[ingest.mapping] roles adds others",
        ),
        ([], DropReason.UNKNOWN_SHAPE, ""),
        ([[]], DropReason.UNKNOWN_SHAPE, ""),
        ({"conversations": ["Why?"]}, DropReason.NO_ANSWER, ""),
    ],
)
def test_what_is_no_list_of_turns_is_refused_with_its_place(record, reason, place):
    got, detail = refused(record)
    assert (got, place in detail) == (reason, True), detail


@pytest.mark.parametrize(
    ("record", "place"),
    [
        (
            {"messages": [{"role": "user", "content": ["a", {"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content[1]",
        ),
        ({"messages": [QA[0], {"role": "assistant", "content": [{"type": "audio"}]}]}, "messages[1].content[0]"),
        ([{"role": "user", "content": "a", "images": ["x.png"]}, QA[1]], "[0].images"),
        ({"messages": [{"message": "a", "image": "x.png"}, {"message": "b"}]}, "messages[0].image"),
        ({"conversations": SHAREGPT, "image": "x.png"}, "image"),
        ({"messages": QA, "videos": ["x.mp4"]}, "videos"),
        ({"instruction": "a", "output": "b", "images": ["x.png"]}, "images"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(record, place):
    reason, detail = refused(record)
    assert reason == DropReason.UNSUPPORTED_PART
    assert detail.startswith(f"{place}: ")


def test_media_that_are_not_there_do_no_harm():
    assert said(kept({"messages": QA, "images": [], "audio": None, "video": ""})) == ASKED


@pytest.mark.parametrize("wrap", [lambda turns: {"messages": turns}, lambda turns: {"conversations": turns}, list])
def test_weights_calls_tools_and_reasoning_are_read_in_every_list_of_turns(wrap):
    turns = [
        {"role": "system", "content": "s", "tools": [FLAT]},
        {"role": "user", "content": "q", "train": False},
        {"role": "tool_call", "content": '{"name": "f", "arguments": {"x": 1.10}}'},
        {"role": "tool_response", "content": "r"},
        {"role": "assistant", "content": "a", "thinking": "hm", "loss_weight": 0.5},
    ]
    raw = json.dumps(wrap(turns)).replace('[{"name": "f", "arguments": {"x": 1}}]', '[ {"name":"f"}]').encode()
    row = kept(raw)
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert [message["weight"] for message in row["messages"]] == [None, 0.0, None, None, 0.5]
    assert (
        row["messages"][2]["tool_calls"]
        == '[{"type": "function", "function": {"name": "f", "arguments": {"x": 1.10}}}]'
    )
    assert (row["messages"][4]["reasoning"], row["tools"]) == ("hm", '[ {"name":"f"}]')


def test_weights_of_parts_and_of_turns_without_roles():
    turns = [
        {"role": "user", "content": ["q"], "loss_weight": 0},
        {"role": "assistant", "content": ["a"], "train": True},
    ]
    assert [message["weight"] for message in kept({"messages": turns})["messages"]] == [0.0, 1.0]
    bare = {"messages": [{"message": "q"}, {"message": "a", "weight": 2}]}
    assert [message["weight"] for message in kept(bare)["messages"]] == [None, 2.0]
    assert refused({"messages": [{"message": "q"}, {"message": "a", "mask": 1}]})[0] == DropReason.BAD_SHAPE


def test_roles_of_the_mapping_hold_for_known_shapes_and_before_the_known_ones():
    roles = {"Patient": "user", "bot": "user", "Doctor": "assistant"}
    for first in ("Patient", "bot"):
        record = {"conversations": [{"from": first, "value": "Why?"}, {"from": "Doctor", "value": "Because."}]}
        assert said(kept(record, mapping={"roles": roles})) == ASKED


def test_calls_beside_each_other_in_sharegpt_stay_as_they_were_written():
    raw = b'{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "tool_calls": [ {"function": {"name":"f"}} ]}]}'
    row = kept(raw)
    assert (row["shape"], row["messages"][1]["tool_calls"]) == ("sharegpt", '[ {"function": {"name":"f"}} ]')
