import json

import pytest

from schemas.reasons import DropReason
from tests.stages.chats import FLAT, QA
from tests.stages.reading import kept, refused, said

ASKED = [("user", "Why?"), ("assistant", "Because.")]
BAD = {"role": "assistant", "content": "No."}
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "No."}},
        {"messages": QA[:1], "chosen": QA[1:], "rejected": [BAD]},
        {"prompt": QA[:1], "chosen": QA[1:], "rejected": [BAD]},
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": "Why?", "question": "Why?", "chosen": QA, "rejected": [QA[0], BAD]},
        {"prompt": "Why?", "messages": QA, "chosen": QA, "rejected": [QA[0], BAD], "score_chosen": 9.0},
        {"chosen": QA, "rejected": [QA[0], BAD]},
        {"question": "Why?", "chosen": "Because.", "rejected": "No."},
        {"instruction": "Why?", "input": "", "output": "Since.", "chosen": "Because.", "rejected": "No."},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "Because.", "rejected": " No."},
        {"prompt": "\n\nHuman: Why?", "chosen": "Because.", "rejected": " No."},
    ],
)
def test_the_chosen_side_is_the_conversation_and_the_rejected_one_is_kept(record):
    row = kept(record)
    assert (row["shape"], said(row)) == ("preference", ASKED)
    assert json.loads(row["rejected"]) == record["rejected"]


def test_the_rejected_side_is_kept_byte_for_byte():
    raw = b'{"prompt": "Why?", "chosen": "Because.", "rejected":  [{"role":"assistant", "content": "\\u00e9\\/" , "n": 1.50}] }'
    assert kept(raw)["rejected"] == '[{"role":"assistant", "content": "\\u00e9\\/" , "n": 1.50}]'


def test_instruction_and_input_are_the_question_and_system_and_tools_are_read():
    record = {"instruction": "Add", "input": "1 2", "system": "s", "tools": [FLAT], "chosen": "3", "rejected": "4"}
    row = kept(record)
    assert said(row) == [("system", "s"), ("user", "Add\n1 2"), ("assistant", "3")]
    assert json.loads(row["tools"]) == [FLAT]


def test_tools_on_the_first_message_are_read_where_it_is_the_first():
    system = {"role": "system", "content": "s", "tools": [FLAT]}
    assert json.loads(kept({"chosen": [system, *QA], "rejected": "x"})["tools"]) == [FLAT]
    assert json.loads(kept({"prompt": [system, QA[0]], "chosen": QA[1], "rejected": "x"})["tools"]) == [FLAT]


@pytest.mark.parametrize(
    ("record", "reason", "place"),
    [
        ({"chosen": "a", "rejected": "b"}, DropReason.BAD_SHAPE, "what was asked"),
        ({"prompt": "q", "chosen": 3, "rejected": "b"}, DropReason.BAD_SHAPE, "chosen: expected text, got 3"),
        ({"prompt": "q", "chosen": [3], "rejected": "b"}, DropReason.BAD_SHAPE, "chosen[0]"),
        ({"prompt": "q", "chosen": "", "rejected": "b"}, DropReason.EMPTY_MESSAGE, "message 1"),
        ({"prompt": "Other?", "chosen": QA, "rejected": "b"}, DropReason.BAD_SHAPE, "'Other?'"),
        (
            {"messages": [*QA, QA[0]], "chosen": GPT | {"value": "x", "images": ["y"]}, "rejected": "b"},
            "unsupported_part",
            "",
        ),
        ({"conversations": [HUMAN, GPT], "chosen": GPT, "rejected": GPT}, DropReason.SAME_ROLE, "message 2"),
    ],
)
def test_what_is_not_plain_is_refused(record, reason, place):
    got, detail = refused(record)
    assert (got, place in detail) == (reason, True), detail


@pytest.mark.parametrize(
    ("more", "repairs"),
    [
        ({"output": "Since."}, ["other_answers:1"]),
        ({"output": "Because."}, []),
        ({"output": "Since.", "response": "As."}, ["other_answers:2"]),
        ({"completions": [{"text": "Since."}, {"text": "As."}]}, ["other_answers:2"]),
        ({"text": "Question: Why? Answer: Because."}, []),
        ({"score_chosen": 9.0, "margin": 1, "model": "x"}, []),
    ],
)
def test_answers_beside_the_chosen_one_are_counted(more, repairs):
    row = kept({"instruction": "Why?", "chosen": "Because.", "rejected": "No.", **more})
    assert (said(row), row["repairs"]) == (ASKED, repairs)


@pytest.mark.parametrize("more", [{"choices": ["a"]}, {"document": "d"}, {"text": "t"}, {"question": "Other?"}])
def test_what_would_be_lost_beside_the_sides_is_refused(more):
    reason, detail = refused({"prompt": "Why?", "chosen": "Because.", "rejected": "No.", **more})
    assert (reason, next(iter(more)) in detail) == (DropReason.BAD_SHAPE, True)


@pytest.mark.parametrize(
    "record", [{"messages": QA, "chosen": "x"}, {"messages": QA, "chosen": None, "rejected": None}]
)
def test_one_side_alone_is_no_preference(record):
    assert kept(record)["shape"] == "messages"


def test_a_history_is_said_before_what_is_asked():
    said_before = {"history": [["Who?", "Ada."]]}
    before = [("user", "Who?"), ("assistant", "Ada.")]
    sides = {"chosen": "Because.", "rejected": "No."}
    for asked in ({"instruction": "Why?"}, {"prompt": "Why?"}, {"prompt": QA[:1]}):
        assert said(kept(asked | sides | said_before)) == [*before, *ASKED]
    for asked in ({"messages": QA[:1]}, {"prompt": "Why?", "chosen": QA}):
        assert refused(sides | asked | said_before)[0] == DropReason.BAD_SHAPE


def test_long_conversations_on_both_sides_are_compared_once():
    turns = [{"role": role, "content": f"{role} {i}"} for i in range(20_000) for role in ("user", "assistant")]
    assert len(kept({"messages": turns, "chosen": turns, "rejected": "No."})["messages"]) == len(turns)
