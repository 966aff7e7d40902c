import time

from hypothesis import given
from hypothesis import strategies as st

from pipeline.side_by_side import CONTEXT, MAX_WORDS, side_by_side

role = st.sampled_from(["user", "assistant"])
words = st.lists(st.sampled_from(["a", "b", "the cat", "你好", "，", "\n", "é.", " "]), max_size=30).map(" ".join)
messages = st.lists(st.tuples(role, words), min_size=1, max_size=4)


def test_words_that_differ_are_marked_and_messages_in_step_share_a_line():
    left = [("user", "Who wrote Hamlet?"), ("assistant", "Shakespeare did.")]
    right = [("user", "Who wrote Othello?"), ("assistant", "Shakespeare did.")]
    first, second = side_by_side(left, right)
    assert first.left == (("user: Who wrote ", False), ("Hamlet", True), ("?", False))
    assert first.right == (("user: Who wrote ", False), ("Othello", True), ("?", False))
    assert second.left == second.right == (("\nassistant: Shakespeare did.", False),)


def test_characters_are_words_where_no_spaces_stand_between_them():
    (turn,) = side_by_side([("user", "你好吗")], [("user", "你坏吗")])
    assert turn.left == (("user: 你", False), ("好", True), ("吗", False))
    assert turn.right == (("user: 你", False), ("坏", True), ("吗", False))


def test_white_space_is_no_difference():
    (turn,) = side_by_side([("user", "a  b\nc")], [("user", "a b c")])
    assert (turn.left, turn.right) == ((("user: a  b\nc", False),), (("user: a b c", False),))


def test_a_long_stretch_that_agrees_is_shortened():
    said = " ".join(f"w{i}" for i in range(1, 201))
    (turn,) = side_by_side([("user", f"x {said}")], [("user", f"y {said}")])
    *_, (shown, differs) = turn.left
    assert not differs
    assert shown.startswith("w1 w2 ")
    assert f"w{CONTEXT} … 150 words alike … w176 " in shown
    assert shown.endswith("w199 w200")


def test_what_differs_beyond_the_bound_is_counted_and_not_compared():
    left = " ".join(f"l{i}" for i in range(MAX_WORDS + 500))
    (turn,) = side_by_side([("user", f"{left} end")], [("user", "short end")])
    assert f" … {500:,} more words, not compared … " in "".join(text for text, _ in turn.left)
    assert turn.left[-1] == ("end", False)


def test_the_worst_case_is_bounded():
    start = time.monotonic()
    side_by_side([("user", "a " * 100_000)], [("user", "b " + "a " * 90_000 + "c")])
    assert time.monotonic() - start < 30  # a comparison without bound would take hours


@given(messages, messages)
def test_each_side_says_what_it_said_and_what_is_unmarked_is_alike(left, right):
    turns = side_by_side(left, right)
    for column, said in (("left", left), ("right", right)):
        shown = "".join(text for turn in turns for text, _ in getattr(turn, column))
        if "words alike" not in shown:
            assert shown == "\n".join(f"{name}: {text}" for name, text in said)
    for turn in turns:
        ours, theirs = ([text.split() for text, differs in side if not differs] for side in turn)
        assert ours == theirs


@given(messages)
def test_a_text_does_not_differ_from_itself(said):
    assert not any(differs for turn in side_by_side(said, said) for side in turn for _, differs in side)
