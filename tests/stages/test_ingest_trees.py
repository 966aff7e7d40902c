import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DropReason
from tests.stages.reading import read, refused, said


def node(text, *replies, **extra):
    """A message; those in capitals are the assistant's."""
    role = "assistant" if text.isupper() else "prompter"
    return {"message_id": f"id-{text}", "text": text, "role": role, "lang": "en", "replies": list(replies), **extra}


def tree(root, **extra):
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root, **extra}


def paths(record, **settings):
    """Of each row, its texts or its reason."""
    return [row["drop_reason"] or " ".join(text for _, text in said(row)) for row in read(record, **settings)]


def test_every_path_from_the_root_to_a_leaf_is_a_conversation():
    rows = read(tree(node("a", node("B", node("c", node("D"), node("E"))), node("F"))))
    assert [row["id"] for row in rows] == ["f.jsonl:1.1", "f.jsonl:1.2", "f.jsonl:1.3"]
    assert [said(row) for row in rows] == [
        [("user", "a"), ("assistant", "B"), ("user", "c"), ("assistant", "D")],
        [("user", "a"), ("assistant", "B"), ("user", "c"), ("assistant", "E")],
        [("user", "a"), ("assistant", "F")],
    ]
    assert {(row["shape"], row["record_id"]) for row in rows} == {("message_tree", "t")}


def test_questions_that_nobody_answered_leave_one_conversation_and_are_counted():
    record = tree(node("a", node("B", node("c"), node("d"), node("e", node("F")))))
    rows = read(record)
    assert [(said(row)[-1][1], row["repairs"]) for row in rows] == [("B", ["trailing:2"]), ("F", [])]
    assert paths(record, trailing="keep") == ["a B c", "a B d", "a B e F"]
    assert paths(record, trailing="quarantine") == ["unanswered", "unanswered", "a B e F"]


def test_answers_of_the_same_words_are_conversations_of_their_own():
    assert paths(tree(node("a", node("B"), node("B")))) == ["a B", "a B"]


def test_a_root_alone_and_a_root_without_a_tree_around_it():
    assert paths(tree(node("a"))) == ["no_answer"]
    assert paths(node("a", node("B"))) == ["a B"]
    assert paths(tree({"text": "a", "role": "prompter"})) == ["no_answer"]


def test_what_is_broken_costs_only_what_follows_it():
    record = tree(
        node(
            "a",
            node("B"),
            node("C", node("d"), deleted=True),
            {"text": None, "role": "assistant"},
            node("E", role="x"),
            3,
        )
    )
    rows = read(record)
    assert [row["drop_reason"] for row in rows] == [None, "bad_shape", "bad_shape", "unknown_role", "bad_shape"]
    assert rows[1]["detail"].startswith("prompt.replies[1]: a message that is marked as deleted")
    assert rows[2]["detail"].startswith("prompt.replies[2].text: expected text, got None")


def test_messages_of_a_tree_that_are_records_of_their_own_are_refused_with_the_remedy():
    row = node("a") | {"parent_id": None, "message_tree_id": "t"}
    del row["replies"]
    reason, detail = refused(row)
    assert (reason, "*.trees.jsonl.gz" in detail) == (DropReason.UNKNOWN_SHAPE, True)


def test_the_weight_of_a_message_holds_in_all_its_paths():
    rows = read(tree(node("a", node("B", node("c", node("D"), node("E")), weight=0.5))))
    assert [[message["weight"] for message in row["messages"]] for row in rows] == [[None, 0.5, None, None]] * 2


trees = st.recursive(
    st.sampled_from("aAbB").map(node),
    lambda inner: (
        st.builds(node, st.sampled_from("aAbB"), inner, inner) | st.builds(node, st.sampled_from("aA"), inner)
    ),
    max_leaves=8,
)


def leaves(root, before=()):
    path = (*before, root["text"])
    for reply in root["replies"]:
        yield from leaves(reply, path)
    if not root["replies"]:
        yield " ".join(path)


@given(trees)
def test_every_leaf_has_its_conversation(root):
    assert paths(tree(root), trailing="keep", same_role="keep") == [
        path if any(text.isupper() for text in path.split()) else "no_answer" for path in leaves(root)
    ]


@pytest.mark.parametrize("depth", [20, 240])
def test_deep_trees_are_read(depth):
    root = node("Z")
    for i in range(depth):
        root = node("a" if i % 2 == 0 else "A", root)
    (row,) = read(tree(root), max_depth=500)
    assert len(row["messages"]) == depth + 1 or row["drop_reason"] == "same_role"


@pytest.mark.parametrize(
    "more", [{"tool_calls": [{"name": "f"}]}, {"reasoning": "r"}, {"images": ["x"]}, {"content": "y"}]
)
def test_what_a_message_of_a_tree_says_beside_its_text_is_not_lost(more):
    reply = {"text": "a", "role": "assistant"}
    reason, detail = refused({"prompt": {"text": "q", "role": "prompter", "replies": [reply | more]}})
    assert reason in ("bad_shape", "unsupported_part")
    assert detail.startswith(f"prompt.replies[0].{next(iter(more))}")
