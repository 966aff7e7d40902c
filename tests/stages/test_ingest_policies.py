import json
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DropReason
from stages.ingest import Ingest, count_records, ingest_lines
from stages.ingest.decode import LineError
from stages.ingest.messages import Message
from stages.ingest.policies import Policies, settle
from tests.stages.chats import CALL
from tests.stages.reading import kept, read, refused, said
from tests.stages.rows import records

ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def chat(form: str, **extra):
    """A record whose messages have the roles of the letters in `form`; an empty one's letter is upper case."""
    turns = [
        {"role": ROLES[letter.lower()], "content": "" if letter.isupper() else f"{letter}{i}"}
        for i, letter in enumerate(form)
    ]
    return {"messages": turns} | extra


def outcome(form, **settings):
    """What becomes of it: (the contents left, repairs), or the reason."""
    (row,) = read(chat(form), **settings)
    return row["drop_reason"] or (" ".join(content for _, content in said(row)), row["repairs"])


@pytest.mark.parametrize(
    ("form", "settings", "expected"),
    [
        ("uau", {}, ("u0 a1", ["trailing:1"])),
        ("uauu", {}, ("u0 a1", ["trailing:2"])),
        ("uaut", {}, ("u0 a1", ["trailing:2"])),
        ("uaU", {}, ("u0 a1", ["trailing:1"])),
        ("uau", {"trailing": "quarantine"}, DropReason.UNANSWERED),
        ("uau", {"trailing": "keep"}, ("u0 a1 u2", [])),
        ("uaU", {"trailing": "keep"}, DropReason.EMPTY_MESSAGE),
        ("uaU", {"trailing": "keep", "empty": "remove"}, ("u0 a1", ["empty:1"])),
        ("u", {}, DropReason.NO_ANSWER),
        ("suu", {"same_role": "merge"}, DropReason.NO_ANSWER),
        ("aua", {}, ("a0 u1 a2", [])),
        ("aua", {"first_assistant": "trim"}, ("u1 a2", ["first_assistant:1"])),
        ("saua", {"first_assistant": "trim"}, ("s0 u2 a3", ["first_assistant:1"])),
        ("aataua", {"first_assistant": "trim"}, ("u4 a5", ["first_assistant:4"])),
        ("saua", {"first_assistant": "quarantine"}, DropReason.FIRST_ASSISTANT),
        ("au", {"first_assistant": "trim"}, DropReason.NO_ANSWER),
        ("auu", {"first_assistant": "trim", "trailing": "keep", "same_role": "keep"}, DropReason.NO_ANSWER),
        ("uua", {}, DropReason.SAME_ROLE),
        ("uaa", {}, DropReason.SAME_ROLE),
        ("uatta", {}, ("u0 a1 t2 t3 a4", [])),
        ("uuaaua", {"same_role": "merge"}, ("u0\nu1 a2\na3 u4 a5", ["same_role:2"])),
        ("uuua", {"same_role": "merge", "merge_with": "|"}, ("u0|u1|u2 a3", ["same_role:2"])),
        ("uua", {"same_role": "keep"}, ("u0 u1 a2", [])),
        ("ssua", {}, ("s0 s1 u2 a3", [])),
        ("Ua", {}, DropReason.EMPTY_MESSAGE),
        ("uA", {}, DropReason.EMPTY_MESSAGE),
        ("uaTa", {}, DropReason.EMPTY_MESSAGE),
        ("uA", {"empty": "remove"}, DropReason.NO_ANSWER),
        ("Ua", {"empty": "remove"}, ("a1", ["empty:1"])),
        ("Ua", {"empty": "remove", "first_assistant": "quarantine"}, DropReason.FIRST_ASSISTANT),
        ("uaUa", {"empty": "remove"}, DropReason.SAME_ROLE),
        ("uaUa", {"empty": "remove", "same_role": "merge"}, ("u0 a1\na3", ["empty:1", "same_role:1"])),
        ("uauA", {"empty": "remove"}, ("u0 a1", ["trailing:1", "empty:1"])),
        ("uauA", {"empty": "remove", "trailing": "quarantine"}, DropReason.UNANSWERED),
        ("SuaS", {}, ("u1 a2", [])),
    ],
)
def test_each_policy_does_what_it_says_and_counts_it(form, settings, expected):
    assert outcome(form, **settings) == expected


def test_what_refuses_names_the_place_in_the_record():
    assert refused(chat("suua"))[1].startswith("message 2 is the user's")
    assert refused(chat("SuAua"))[1].startswith("message 2 (assistant) has neither text")
    assert refused(chat("Saua"), first_assistant="quarantine")[1].startswith("message 1 is the assistant's")


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"content": "a", "weight": 1}, {"content": "b", "weight": 0}, "weight"),
        ({"content": "a", "name": "x"}, {"content": "b", "name": "y"}, "name"),
        ({"tool_calls": [CALL]}, {"content": "b"}, "after a call"),
        ({"content": "a"}, {"content": "b", "reasoning": "r"}, "after an answer"),
    ],
)
def test_messages_are_joined_only_where_nothing_changes_places(first, second, why):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", **first}, {"role": "assistant", **second}]
    reason, detail = refused({"messages": turns}, same_role="merge")
    assert (reason, why in detail) == (DropReason.SAME_ROLE, True)


def test_joined_messages_keep_text_reasoning_and_calls_in_order():
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "reasoning": "r"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b", "tool_calls": '[ {"name": "f"}]'},
        {"role": "assistant", "tool_calls": '[{"name":"g"} ]'},
    ]
    (row,) = read({"messages": turns}, same_role="merge")
    message = row["messages"][1]
    assert (message["reasoning"], message["content"]) == ("r", "a\nb")
    assert message["tool_calls"] == '[{"name": "f"}, {"name":"g"}]'
    assert row["repairs"] == ["same_role:3"]


def test_a_run_of_many_messages_and_an_answer_of_many_end_texts_are_made_of_each_once():
    calls = [{"role": "assistant", "tool_calls": [CALL]}] * 20_000
    row = kept({"messages": [{"role": "user", "content": "q"}] * 20_000 + calls}, same_role="merge", merge_with="|")
    assert said(row)[0] == ("user", "|".join("q" * 20_000))
    assert json.loads(row["messages"][1]["tool_calls"]) == [CALL] * 20_000
    row = kept({"prompt": "q", "completion": "a" + "<|end|></s>" * 100_000}, end_texts=("</s>", "<|end|>"))
    assert (said(row)[1][1], row["repairs"]) == ("a", ["end_texts:1"])


def test_the_manifest_counts_each_repair():
    frame = records(*(json.dumps(chat(form)).encode() for form in ("uau", "uauu", "ua", "uua", "u")))
    config = Ingest(same_role="merge")
    counts = count_records(ingest_lines(frame, config), frame, config)
    assert {name: n for name, n in counts.items() if name.startswith("repaired/")} == {
        "repaired/same_role": 1,
        "repaired/trailing": 3,
    }


message = st.builds(
    Message,
    st.sampled_from(["system", "user", "user", "assistant", "assistant", "tool"]),
    st.sampled_from(["x", "y", "z", "", None]),
    st.sampled_from([None, None, "r"]),
    st.sampled_from([None, None, '[{"name": "f"}]']),
    weight=st.sampled_from([None, None, 0.5]),
)
POLICIES = [
    Policies(trailing=trailing, first_assistant=first, same_role=same, empty=empty)
    for trailing, first, same, empty in product(
        ("trim", "quarantine", "keep"),
        ("keep", "trim", "quarantine"),
        ("quarantine", "merge", "keep"),
        ("quarantine", "remove"),
    )
]


@given(st.lists(message, max_size=8), st.sampled_from(POLICIES))
def test_to_settle_what_is_settled_changes_nothing(read, policies):
    try:
        settled, _ = settle(read, policies)
    except LineError:
        return
    assert settle(settled, policies) == (settled, ())


@given(st.lists(message, max_size=8), st.sampled_from(POLICIES))
def test_every_message_is_kept_as_it_is_or_counted(read, policies):
    try:
        settled, repairs = settle(read, policies)
    except LineError:
        return
    counts = {name: int(n) for name, n in (repair.split(":") for repair in repairs)}
    assert all(counts.values())
    heard = [said for said in read if said.role != "system" or said.content or said.reasoning]
    assert len(heard) - len(settled) == sum(counts.values())
    assert any(said.role == "assistant" for said in settled)
    if not counts:
        assert settled == heard
    if "same_role" not in counts:
        left = iter(heard)
        assert all(said in left for said in settled)  # the same messages, in the same order
    if policies.same_role != "keep":
        pairs = list(pairwise(settled))
        assert not any(a.role == b.role and a.role in ("user", "assistant") for a, b in pairs)
    if policies.trailing != "keep":
        assert settled[-1].role == "assistant"
    contents = iter([said.content for said in heard])
    assert all(piece in contents for said in settled if said.content for piece in said.content.split("\n"))


@pytest.mark.parametrize(
    "record", [chat("ua"), {"prompt": "q", "completion": "a"}, {"instruction": "q", "output": "a"}]
)
@pytest.mark.parametrize("key", ["label", "kto_tag"])
def test_an_answer_that_people_disliked_is_trained_only_if_the_config_says_so(record, key):
    (row,) = read(record | {key: False})
    assert (row["drop_reason"], row["detail"].partition(":")[0]) == (DropReason.DISLIKED, f"{key} is false")
    for value, settings in ((False, {"disliked": "keep"}), (True, {}), (0, {}), ("false", {}), (None, {})):
        (row,) = read(record | {key: value}, **settings)
        assert row["drop_reason"] is None


@pytest.mark.parametrize(
    ("answer", "left", "n"),
    [
        ("a<|endoftext|>", "a", 1),
        ("a</s><|endoftext|>", "a", 1),
        ("a", "a", 0),
        ("<|endoftext|>a", "<|endoftext|>a", 0),
        ("a <|endoftext|>\n", "a <|endoftext|>\n", 0),
    ],
)
def test_texts_at_the_end_of_an_answer_are_cut_off_where_the_config_names_them(answer, left, n):
    record = {"prompt": "q</s>", "completion": answer}
    (row,) = read(record, end_texts=("<|endoftext|>", "</s>"))
    assert said(row) == [("user", "q</s>"), ("assistant", left)]
    assert row["repairs"] == ([f"end_texts:{n}"] if n else [])
    (row,) = read(record)
    assert said(row)[1] == ("assistant", answer)


def test_an_answer_of_nothing_but_end_texts_is_empty():
    (row,) = read({"prompt": "q", "completion": "</s>"}, end_texts=("</s>",))
    assert row["drop_reason"] == DropReason.EMPTY_MESSAGE


@pytest.mark.parametrize(
    ("flag", "harmless"), [({"train": False}, {"train": True}), ({"loss_weight": 0}, {"loss_weight": 1})]
)
def test_how_a_record_is_trained_is_not_overlooked(flag, harmless):
    for record in ({"prompt": "q", "completion": "a"}, {"messages": chat("ua")["messages"]}, {"data": ["q", "a"]}):
        reason, detail = refused(record | flag)
        assert (reason, detail.startswith(next(iter(flag)))) == (DropReason.BAD_SHAPE, True)
        assert kept(record | harmless)["messages"][1]["weight"] is None
    mapping = {"user": "prompt", "assistant": "completion", "weight": "loss_weight"}
    row = kept({"prompt": "q", "completion": "a", "loss_weight": 0.5}, mapping=mapping)
    assert row["messages"][1]["weight"] == 0.5
