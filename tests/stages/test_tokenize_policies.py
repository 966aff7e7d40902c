from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.tokenize.policies import POLICIES, Ending, Loss, Outline, Turn, Window, lost, outline

# one letter a span: s(ystem), u(ser), a(ssistant), t(ool), and - for what the template writes
ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "-": ""}


def outlined(spans: str, sizes: list[int] | None = None, messages: list[int] | None = None) -> Outline:
    """Return the outline of `spans`, each of one token unless `sizes` says otherwise."""
    numbers = messages or [-1 if letter == "-" else sum(c != "-" for c in spans[:i]) for i, letter in enumerate(spans)]
    tokens = [0]
    for size in sizes or [1] * len(spans):
        tokens.append(tokens[-1] + size)
    return outline([ROLES[letter] for letter in spans], numbers, tokens)


@pytest.mark.parametrize(
    ("spans", "turns"),
    [
        ("-s-u-aa-u-aa-", ["u-aa", "u-aa-"]),
        ("-u-a-t-a-u-a", ["u-a-t-a", "u-a"]),  # a tool's result belongs to the turn that called it
        ("-u-u-a-", ["u-u-a-"]),  # two questions, one answer
        ("-u-a-s-u-a-", ["u-a-s-u-a-"]),  # what the system says in between is never left out
        ("-u-a-t-u-a-", ["u-a-t-u-a-"]),  # nobody answered the tool
        ("-s-a-u-a-", ["u-a-"]),  # a greeting is part of the head
        ("-u-a-u-", ["u-a"]),  # nobody answers the last question
        ("-u-a-t-", ["u-a"]),
        ("-s-a-", []),
        ("-u-", []),
        ("", []),
    ],
)
def test_a_turn_reaches_from_a_question_to_the_end_of_its_last_answer(spans, turns):
    assert [spans[first:last] for first, last in outlined(spans).turns] == turns


def test_a_conversation_whose_system_prompt_stands_in_the_last_question_has_no_turns():
    # as Mistral's template has it: no other turn could be kept with its system prompt
    assert outlined("-u-a-su-a", messages=[-1, 1, -1, 2, -1, 0, 3, -1, 4]).turns == ()


# head of 2 tokens, turns of 3, 4 and 5
THREE = Outline([0, 2, 5, 9, 14], [Turn(1, 2), Turn(2, 3), Turn(3, 4)])


@pytest.mark.parametrize(
    ("policy", "limit", "kept", "loss"),
    [
        ("drop", 13, [], Loss(1, 3, 14)),
        ("keep_turns", 13, [Window(0, 0, 2)], Loss(0, 1, 5)),
        ("keep_turns", 9, [Window(0, 0, 2)], Loss(0, 1, 5)),
        ("keep_turns", 8, [Window(0, 0, 1)], Loss(0, 2, 9)),
        ("keep_turns", 4, [], Loss(1, 3, 14)),
        ("windows", 13, [Window(0, 0, 2), Window(1, 2, 3)], Loss(0, 0, 0)),  # 2 + 4 + 5 tokens: turn 1 is context
        ("windows", 10, [Window(0, 0, 2), Window(2, 2, 3)], Loss(0, 0, 0)),
        ("windows", 8, [Window(0, 0, 1), Window(1, 1, 2), Window(2, 2, 3)], Loss(0, 0, 0)),
        ("windows", 6, [Window(0, 0, 1), Window(1, 1, 2)], Loss(0, 1, 5)),  # the last turn fits in none
        ("windows", 4, [], Loss(1, 3, 14)),
        ("truncate_head", 13, [Window(1, 1, 3)], Loss(0, 1, 3)),
        ("truncate_head", 8, [Window(2, 2, 3)], Loss(0, 2, 7)),
        ("truncate_head", 6, [Window(2, 2, 3, cut=1)], Loss(0, 2, 8)),
        ("truncate_head", 2, [], Loss(1, 3, 14)),  # nothing of the question would be left
    ],
)
def test_what_each_policy_keeps_and_loses(policy, limit, kept, loss):
    assert POLICIES[policy](THREE, limit) == kept
    assert lost(THREE, kept) == loss


def test_the_room_of_a_window_is_filled_with_earlier_turns():
    # head 1, turns of 5, 1, 1, 5: the last fits with two turns before it, not with three
    conversation = Outline([0, 1, 6, 7, 8, 13], [Turn(1, 2), Turn(2, 3), Turn(3, 4), Turn(4, 5)])
    assert POLICIES["windows"](conversation, 8) == [Window(0, 0, 3), Window(1, 3, 4)]


def test_a_turn_too_long_for_any_window_is_lost_and_never_context():
    conversation = Outline([0, 1, 3, 13, 15], [Turn(1, 2), Turn(2, 3), Turn(3, 4)])
    assert POLICIES["windows"](conversation, 5) == [Window(0, 0, 1), Window(2, 2, 3)]
    assert lost(conversation, POLICIES["windows"](conversation, 5)) == Loss(0, 1, 10)


# head of 2, then per turn a question, the header of the answer (1), the answer, its stop (1)
def answered(*turns: tuple[int, int]) -> Outline:
    sizes = [2, *(size for question, answer in turns for size in (question, 1, answer, 1))]
    cuttable = [Ending.NOWHERE, Ending.NOWHERE, Ending.INSIDE, Ending.BEHIND]
    found = [Turn(1 + 4 * i, 5 + 4 * i) for i in range(len(turns))]
    return Outline([sum(sizes[:i]) for i in range(len(sizes) + 1)], found, [Ending.NOWHERE, *cuttable * len(turns)])


@pytest.mark.parametrize(
    ("policy", "turns", "limit", "kept", "loss"),
    [
        ("drop", [(3, 20)], 10, [], Loss(1, 1, 27)),
        # 2 of head, 3 of question, 1 of header, and 4 of 20 of the answer
        ("keep_turns", [(3, 20)], 10, [Window(0, 0, 1, rest=17, is_unfinished=True)], Loss(0, 0, 17, 1)),
        ("windows", [(3, 20)], 10, [Window(0, 0, 1, rest=17, is_unfinished=True)], Loss(0, 0, 17, 1)),
        ("truncate_head", [(3, 20)], 10, [Window(0, 0, 1, rest=17, is_unfinished=True)], Loss(0, 0, 17, 1)),
        # all but the stop fits: even then there is no stop
        ("windows", [(3, 4)], 10, [Window(0, 0, 1, rest=1, is_unfinished=True)], Loss(0, 0, 1, 1)),
        ("windows", [(3, 3)], 10, [Window(0, 0, 1)], Loss(0, 0, 0)),
        # the question leaves no room for an answer: only truncate_head cuts it, to half of the 8 tokens of room
        ("keep_turns", [(7, 20)], 10, [], Loss(1, 1, 31)),
        ("windows", [(7, 20)], 10, [], Loss(1, 1, 31)),
        ("truncate_head", [(7, 20)], 10, [Window(0, 0, 1, 3, 18, True)], Loss(0, 0, 21, 1)),
        # an answer that fits once its question is cut stays whole
        ("truncate_head", [(7, 3)], 10, [Window(0, 0, 1, 4)], Loss(0, 0, 4)),
        ("truncate_head", [(9, 9)], 3, [], Loss(1, 1, 22)),
        ("truncate_head", [(9, 9)], 1, [], Loss(1, 1, 22)),
        # after whole turns: the room that is left; a turn that would fit alone is not begun
        ("keep_turns", [(1, 1), (1, 20)], 10, [Window(0, 0, 2, rest=19, is_unfinished=True)], Loss(0, 0, 19, 1)),
        ("keep_turns", [(1, 1), (1, 5)], 10, [Window(0, 0, 1)], Loss(0, 1, 8)),
        ("keep_turns", [(1, 1), (3, 20)], 10, [Window(0, 0, 1)], Loss(0, 1, 25)),
        # a window of its own, without context
        (
            "windows",
            [(1, 1), (1, 20), (1, 1)],
            10,
            [Window(0, 0, 1), Window(1, 1, 2, rest=15, is_unfinished=True), Window(2, 2, 3)],
            Loss(0, 0, 15, 1),
        ),
        ("truncate_head", [(1, 1), (1, 20)], 10, [Window(1, 1, 2, rest=15, is_unfinished=True)], Loss(0, 1, 19, 1)),
    ],
)
def test_the_beginning_of_an_answer_is_kept_where_its_turn_would_be_lost(policy, turns, limit, kept, loss):
    assert POLICIES[policy](answered(*turns), limit) == kept
    assert lost(answered(*turns), kept) == loss


def test_a_turn_is_cut_behind_a_stop_where_what_follows_it_is_not_the_assistants():
    # head, question, a call and its stop, a long result of the tool, the answer and its stop
    kinds = (Ending.NOWHERE, Ending.NOWHERE, Ending.INSIDE, Ending.BEHIND, Ending.NOWHERE, Ending.INSIDE, Ending.BEHIND)
    conversation = Outline([0, 1, 3, 6, 7, 20, 30, 31], [Turn(1, 7)], kinds)
    for limit in (7, 8, 20):
        kept = POLICIES["windows"](conversation, limit)
        assert kept == [Window(0, 0, 1, rest=24)]
        assert lost(conversation, kept) == Loss(0, 0, 24, 0)
    assert POLICIES["windows"](conversation, 21) == [Window(0, 0, 1, rest=10, is_unfinished=True)]
    assert POLICIES["windows"](conversation, 6) == [Window(0, 0, 1, rest=25, is_unfinished=True)]
    assert POLICIES["windows"](conversation, 3) == []


QUESTIONS_AND_ANSWERS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5)


@given(QUESTIONS_AND_ANSWERS, st.integers(1, 40), st.sampled_from(sorted(POLICIES)))
def test_cutting_answers_only_adds_to_what_is_kept(turns, limit, policy):
    conversation = answered(*turns)
    kept = POLICIES[policy](conversation, limit)
    whole = POLICIES[policy](conversation._replace(endings=()), limit)
    cut = [window for window in kept if window.rest]
    if policy == "windows":
        assert [window for window in kept if not window.rest] == whole
    else:
        assert kept == (cut or whole)
    assert lost(conversation, kept).answers == len(cut)
    assert lost(conversation, kept).turns <= lost(conversation, whole).turns
    assert lost(conversation, kept).tokens <= lost(conversation, whole).tokens
    for window in cut:
        assert window.is_unfinished
        question, answer = turns[window.last - 1]
        assert 2 + question + 1 + answer + 1 > limit  # alone it is too long
        assert 1 <= window.rest <= answer  # the stop, and at most all but one token of the answer
        assert 2 + conversation.cost(window.first, window.last) - window.cut - window.rest == limit


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@given(st.integers(0, 6), SIZES, st.integers(1, 40), st.sampled_from(sorted(POLICIES)))
def test_every_window_fits_and_every_turn_is_new_once_or_lost(head, sizes, limit, policy):
    tokens = [0, head]
    for size in sizes:
        tokens.append(tokens[-1] + size)
    conversation = Outline(tokens, [Turn(i + 1, i + 2) for i in range(len(sizes))])
    kept = POLICIES[policy](conversation, limit)
    for window in kept:
        assert 0 <= window.first <= window.new < window.last <= len(sizes)
        assert head + conversation.cost(window.first, window.last) - window.cut <= limit
    new = [turn for window in kept for turn in range(window.new, window.last)]
    assert new == sorted(set(new))
    missing = set(range(len(sizes))) - set(new)
    assert lost(conversation, kept).turns == len(missing)
    fits = {turn for turn, size in enumerate(sizes) if head + size <= limit}
    if policy == "windows":
        assert set(new) == fits  # nothing is lost that could be kept
        assert all(head + conversation.cost(a.new, b.new + 1) > limit or a.last < b.new for a, b in pairwise(kept))
    if policy == "keep_turns":
        assert (0 in fits) == bool(kept)
    if kept:
        n_kept = head * (policy != "drop") + sum(sizes[turn] for turn in new) - sum(window.cut for window in kept)
        assert lost(conversation, kept).tokens == tokens[-1] - n_kept
