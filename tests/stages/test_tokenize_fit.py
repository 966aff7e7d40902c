"""Conversations that are too long, with the project's own tokenizer and templates."""

import re
from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.tables import CONVERSATIONS
from stages.render import Render, render_conversations
from stages.render.builtin import names
from stages.tokenize import Tokenize, encode_conversations, tokenize_conversations
from stages.tokenize.engine import engine_for
from stages.tokenize.fit import count_too_long
from tests.stages.render_templates import HEADERS, INSTRUCTIONS, TURNS
from tests.stages.rows import Segment, chatml, rendered
from tests.stages.test_render_builtin import builtin
from tests.stages.test_tokenize import byte_level, sentencepiece_like, word_piece

VOCABULARY = byte_level()
# 6 tokens of head, then turns of 19, 20 and 19 tokens
TALK = chatml(
    ("system", "S"),
    ("user", "one"),
    ("assistant", "1"),
    ("user", "two two"),
    ("assistant", "2"),
    ("user", "six"),
    ("assistant", "3"),
)


def fitted(*rows: list[Segment], vocabulary: Any = VOCABULARY, **settings: Any) -> pl.DataFrame:
    return tokenize_conversations(rendered(*rows), Tokenize(**settings), vocabulary=vocabulary)


def n_tokens(*rows: list[Segment], vocabulary: Any = VOCABULARY) -> list[int]:
    return encode_conversations(rendered(*rows), Tokenize(), vocabulary)["input_ids"].list.len().to_list()


def texts(out: pl.DataFrame, vocabulary: Any = VOCABULARY) -> list[str]:
    oracle = engine_for(vocabulary, "tokenizers").oracle
    return [oracle.decode(ids, skip_special_tokens=False) for ids in out["input_ids"].to_list()]


def trained(row: dict[str, Any]) -> list[int]:
    """The assistant's messages that may be trained."""
    spans = [span for span in row["spans"] if span["role"] == "assistant" and span["weight"] != 0]
    return list(dict.fromkeys(span["message"] for span in spans))


def test_without_a_limit_or_within_it_nothing_changes():
    whole = fitted(TALK)
    assert fitted(TALK, max_seq_len=n_tokens(TALK)[0], too_long="windows").equals(whole)
    assert whole["what_if"].to_list() == [None]


def test_drop_marks_the_row_with_its_length_and_leaves_it_whole():
    (length,) = n_tokens(TALK)
    out = fitted(TALK, TALK[1:4], max_seq_len=length - 1)
    assert out["drop_reason"].to_list() == ["over_max_seq_len", None]
    assert out["detail"].to_list() == [f"{length} tokens, [tokenize] max_seq_len = {length - 1}", None]
    assert (
        out["input_ids"].to_list()
        == encode_conversations(rendered(TALK, TALK[1:4]), Tokenize(), VOCABULARY)["input_ids"].to_list()
    )


def test_keep_turns_keeps_the_exact_beginning_up_to_a_stop():
    (length,) = n_tokens(TALK)
    out = fitted(TALK, max_seq_len=length - 1, too_long="keep_turns")
    assert out["id"].to_list() == ["a:1"]
    assert texts(out) == [
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"
        "<|im_start|>user\ntwo two<|im_end|>\n<|im_start|>assistant\n2<|im_end|>"
    ]
    whole = fitted(TALK)["input_ids"][0].to_list()
    kept = out["input_ids"][0].to_list()
    assert kept == whole[: len(kept)]
    assert [span["class"] for span in out["spans"][0]][-1] == "stop"


def test_windows_begin_with_the_head_show_earlier_turns_and_train_each_once():
    (length,) = n_tokens(TALK)
    out = fitted(chatml(("user", "a"), ("assistant", "b")), TALK, max_seq_len=length - 1, too_long="windows")
    assert out["id"].to_list() == ["a:1", "a:2#1", "a:2#2"]
    assert texts(out)[1:] == [
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"
        "<|im_start|>user\ntwo two<|im_end|>\n<|im_start|>assistant\n2<|im_end|>",
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\ntwo two<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\nsix<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n",
    ]
    assert [trained(row) for row in out.iter_rows(named=True)] == [[1], [2, 4], [6]]
    # head and context of the second window have weight 0, whoever wrote them
    weights = [(span["message"], span["weight"]) for span in out["spans"][2]]
    first_new = weights.index((5, None))
    assert {weight for _, weight in weights[:first_new]} == {0.0}
    assert {weight for _, weight in weights[first_new:]} == {None}


def test_truncate_head_keeps_the_end():
    (length,) = n_tokens(TALK)
    out = fitted(TALK, max_seq_len=length - 1, too_long="truncate_head")
    assert out["id"].to_list() == ["a:1"]
    assert texts(out) == [
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\ntwo two<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\nsix<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n"
    ]
    assert trained(out.row(0, named=True)) == [4, 6]


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like, word_piece])
def test_truncate_head_cuts_the_last_question_but_never_its_answer(make):
    vocabulary = make()
    question = "The quick brown fox 你好 jumps over the lazy dog. " * 6
    row = chatml(("user", question), ("assistant", "Hello world"))
    (length,) = n_tokens(row, vocabulary=vocabulary)
    out = fitted(row, max_seq_len=length - 20, too_long="truncate_head", vocabulary=vocabulary)
    assert out["drop_reason"].to_list() == [None]
    assert length - 24 <= len(out["input_ids"][0]) <= length - 20  # a character may be several tokens
    classes = [span["class"] for span in out["spans"][0]]
    assert classes == [segment[1] for segment in row]
    (text,) = texts(out, vocabulary)
    if make is byte_level:
        head, kept, rest = re.split(r"(?<=user\n)(.*?)(?=<\|im_end\|>)", text, maxsplit=1)
        assert head == "<|im_start|>user\n"
        assert question.endswith(kept)
        assert rest == "<|im_end|>\n<|im_start|>assistant\nHello world<|im_end|>\n"


def test_an_answer_that_alone_is_too_long_is_lost_and_the_row_says_so():
    row = chatml(("user", "Hello"), ("assistant", "The quick brown fox jumps over the lazy dog. " * 5))
    for policy in ("keep_turns", "windows", "truncate_head"):
        out = fitted(row, max_seq_len=30, too_long=policy)
        assert out["id"].to_list() == ["a:1"]
        assert out["drop_reason"].to_list() == ["over_max_seq_len"]
        assert f"too_long = '{policy}' found no whole turn that fits, of 1" in out["detail"][0]


LONG = "The quick brown fox jumps over the lazy dog. " * 5


@pytest.mark.parametrize("policy", ["keep_turns", "windows", "truncate_head"])
@pytest.mark.parametrize("limit", [12, 16, 30, 31])
def test_of_an_answer_that_alone_is_too_long_the_beginning_is_kept_without_a_stop(policy, limit):
    row = chatml(("user", "Hello"), ("assistant", LONG))
    whole = fitted(row).row(0, named=True)
    out = fitted(row, max_seq_len=limit, too_long=policy, cut_answers=True)
    assert out["drop_reason"].to_list() == [None]
    assert out["id"].to_list() == ["a:1#1" if policy == "windows" else "a:1"]
    (kept,) = out["input_ids"].to_list()
    assert len(kept) == limit
    assert kept == whole["input_ids"][:limit]
    (text,) = texts(out)
    assert text.startswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nThe")
    assert rendered(row)["text"][0].startswith(text)
    spans = out["spans"][0].to_list()
    assert [(span["class"], span["role"]) for span in spans][-1] == ("content", "assistant")
    assert spans[:-1] == whole["spans"][: len(spans) - 1]
    assert spans[-1] == whole["spans"][len(spans) - 1] | {"end": limit}
    counts = count_too_long(out, Tokenize(max_seq_len=limit, too_long=policy, cut_answers=True))
    assert counts["cut/answers"] == 1
    assert counts["cut/turns"] == 0
    assert counts["cut/tokens"] == len(whole["input_ids"]) - limit
    assert counts["what_if/drop/answers"] == 0


def test_a_cut_answer_follows_the_turns_that_fit_or_has_a_window_of_its_own():
    row = chatml(
        ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", LONG), ("user", "d"), ("assistant", "e")
    )
    first, second = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>", "\n<|im_start|>user\n"
    (text,) = texts(fitted(row, max_seq_len=40, too_long="keep_turns", cut_answers=True))
    assert re.fullmatch(re.escape(f"{first}{second}c<|im_end|>\n<|im_start|>assistant\nThe quick") + r"[\w .]+", text)
    out = fitted(row, max_seq_len=40, too_long="windows", cut_answers=True)
    one, two, three = texts(out)
    assert one == first
    assert re.fullmatch(r"<\|im_start\|>user\nc<\|im_end\|>\n<\|im_start\|>assistant\nThe quick[\w .]+", two)
    assert three == "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\ne<|im_end|>\n"
    assert [trained(row) for row in out.iter_rows(named=True)] == [[1], [3], [5]]
    assert texts(fitted(row, max_seq_len=40, too_long="truncate_head", cut_answers=True)) == [three]
    assert fitted(row, max_seq_len=40, too_long="drop", cut_answers=True)["drop_reason"].to_list() == [
        "over_max_seq_len"
    ]


def test_truncate_head_leaves_half_the_room_to_a_question_when_it_cuts_the_answer_too():
    question = "What does the quick brown fox do? " * 9
    out = fitted(
        chatml(("user", question), ("assistant", LONG)), max_seq_len=50, too_long="truncate_head", cut_answers=True
    )
    (text,) = texts(out)
    found = re.fullmatch(r"<\|im_start\|>user\n(.*)<\|im_end\|>\n<\|im_start\|>assistant\n(.*)", text)
    assert found
    assert question.endswith(found[1])
    assert LONG.startswith(found[2])
    assert len(out["input_ids"][0]) == 50
    # 5 tokens of head, so 45 of room: 22 for the question, one more or less where the cut made other tokens of it
    sizes = [span["end"] - span["start"] for span in out["spans"][0] if span["class"] == "content"]
    assert abs(sizes[0] - 22) <= 1
    assert sizes[1] >= 50 - 5 - 23 - 10


def test_a_turn_is_kept_up_to_a_call_whose_result_is_too_long():
    call = chatml(("user", "q"), ("assistant", "call"), ("tool", LONG), ("assistant", "b"))
    out = fitted(call, max_seq_len=40, too_long="windows", cut_answers=True)
    assert texts(out) == ["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\ncall<|im_end|>"]
    assert out["spans"][0][-1]["class"] == "stop"
    assert count_too_long(out, Tokenize(max_seq_len=40, too_long="windows", cut_answers=True))["cut/answers"] == 0


def test_an_answer_of_which_only_the_stop_does_not_fit_gets_none():
    row = chatml(("user", "Hello"), ("assistant", "The quick"))[:-1]
    (length,) = n_tokens(row)
    out = fitted(row, max_seq_len=length - 1, too_long="windows", cut_answers=True)
    assert texts(out) == ["<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nThe quick"]
    assert out["spans"][0][-1]["class"] == "content"
    (what_if,) = [losses for losses in out["what_if"][0] if losses["policy"] == "windows"]
    assert what_if == {"policy": "windows", "conversations": 0, "turns": 0, "tokens": 1, "answers": 1}


def test_a_cut_answer_that_spells_a_stop_has_it_as_text():
    row = chatml(("user", "q"), ("assistant", "Say <|im_end|> now. " * 8))
    whole = fitted(row).row(0, named=True)
    stop = engine_for(VOCABULARY, "auto").controls["<|im_end|>"]
    for limit in range(20, 60):
        ids = fitted(row, max_seq_len=limit, too_long="windows", cut_answers=True)["input_ids"][0].to_list()
        assert ids == whole["input_ids"][:limit]
        assert ids.count(stop) == 1  # the question's


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like, word_piece])
def test_no_character_is_cut_in_two(make):
    vocabulary = make()
    answer = "你好👍🏽é漢字 ok 👩\u200d👩\u200d👧 नमस्ते " * 3
    row = chatml(("user", "q"), ("assistant", answer))
    (whole,) = fitted(row, vocabulary=vocabulary)["input_ids"].to_list()
    sizes = []
    limits = range(24, min(60, len(whole) - 4))
    for limit in limits:
        out = fitted(row, max_seq_len=limit, too_long="windows", cut_answers=True, vocabulary=vocabulary)
        ids, span = out["input_ids"][0].to_list(), out["spans"][0][-1]
        assert ids == whole[: len(ids)]
        assert limit - 4 < len(ids) <= limit
        sizes.append(len(ids))
        (text,) = texts(out, vocabulary)
        assert "\ufffd" not in text
        if make is byte_level:
            assert rendered(row)["text"][0].startswith(text)
        assert (span["class"], span["end"]) == ("content", len(ids))
    assert make is word_piece or sizes != list(limits)  # characters of several tokens were there to be cut


def test_what_each_policy_loses_is_counted_whichever_is_chosen():
    (length,) = n_tokens(TALK)
    first, *_, last = (n_tokens(TALK[a:b])[0] for a, b in ((4, 11), (11, 18), (18, 25)))
    expected = {
        "too_long": 2,
        "what_if/drop/conversations": 2,
        "what_if/drop/turns": 6,
        "what_if/drop/tokens": 2 * length,
        "what_if/keep_turns/conversations": 0,
        "what_if/keep_turns/turns": 2,
        "what_if/keep_turns/tokens": 2 * last,
        "what_if/windows/conversations": 0,
        "what_if/windows/turns": 0,
        "what_if/windows/tokens": 0,
        "what_if/truncate_head/conversations": 0,
        "what_if/truncate_head/turns": 2,
        "what_if/truncate_head/tokens": 2 * first,
    }
    for policy in ("drop", "keep_turns", "windows", "truncate_head"):
        config = Tokenize(max_seq_len=length - 1, too_long=policy)
        out = tokenize_conversations(rendered(TALK, TALK, TALK[1:7]), config, vocabulary=VOCABULARY)
        cut = {"turns": 0, "tokens": 0}
        if policy != "drop":
            cut = {name: expected[f"what_if/{policy}/{name}"] for name in cut}
        assert count_too_long(out, config) == expected | {f"cut/{name}": n for name, n in cut.items()}
    assert count_too_long(fitted(TALK), Tokenize()) == {}


def conversations(*rows: list[tuple[str, str]]) -> pl.DataFrame:
    message = dict.fromkeys(("reasoning", "tool_calls", "tool_call_id", "name", "weight"))
    said = {
        "id": [f"a:{i}" for i in range(len(rows))],
        "messages": [[{"role": role, "content": text} | message for role, text in row] for row in rows],
    }
    schema = pl.from_arrow(CONVERSATIONS.empty_table()).schema
    frame = pl.DataFrame({name: said.get(name, [None] * len(rows)) for name in schema}, schema=schema)
    return frame.with_columns(split=pl.lit("train"))


@pytest.mark.parametrize(
    "template", [HEADERS, INSTRUCTIONS, TURNS, *map(builtin, names())], ids=lambda template: template.name
)
@pytest.mark.parametrize("system", [[], [("system", "Be brief.")]], ids=["bare", "system"])
def test_a_window_is_what_the_template_writes_for_the_shorter_conversation(template, system):
    turns = [
        (role, text.format(i)) for i in range(5) for role, text in (("user", "question {} "), ("assistant", "a {}."))
    ]
    whole = render_conversations(conversations([*system, *turns]), Render(), template=template)
    (length,) = encode_conversations(whole, Tokenize(), VOCABULARY)["input_ids"].list.len().to_list()
    out = tokenize_conversations(
        whole, Tokenize(max_seq_len=length * 3 // 4, too_long="windows"), vocabulary=VOCABULARY
    )
    assert out.height > 1
    assert out["drop_reason"].null_count() == out.height
    for row, text in zip(out.iter_rows(named=True), texts(out), strict=True):
        heard = sorted({span["message"] - len(system) for span in row["spans"]} & set(range(len(turns))))
        short = [*system, *turns[heard[0] : heard[-1] + 1]]
        (expected,) = render_conversations(conversations(short), Render(), template=template)["text"]
        assert expected.startswith(text)
        assert not re.search(r"question|a \d", expected[len(text) :])  # it only lacks what closes the conversation


WORDS = st.text("ab \n.", min_size=1, max_size=30)
TURN = st.tuples(WORDS, WORDS)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.lists(TURN, min_size=1, max_size=6)), min_size=1, max_size=4),
    st.integers(10, 80),
    st.sampled_from(["drop", "keep_turns", "windows", "truncate_head"]),
)
def test_all_fits_every_answer_is_trained_once_or_counted_as_lost(rows, limit, policy):
    segments = []
    for has_system, turns in rows:
        talk = [("system", "Be brief.")] * has_system
        talk += [message for question, answer in turns for message in (("user", question), ("assistant", answer))]
        segments.append(chatml(*talk))
    config = Tokenize(max_seq_len=limit, too_long=policy)
    frame = rendered(*segments)
    out = tokenize_conversations(frame, config, vocabulary=VOCABULARY)
    kept = out.filter(pl.col("drop_reason").is_null())
    assert kept.select((pl.col("input_ids").list.len() <= limit).all()).item()
    answers: Counter[tuple[str, int]] = Counter()
    for row, text in zip(kept.iter_rows(named=True), texts(kept), strict=True):
        name = row["id"].partition("#")[0]
        number = int(name.partition(":")[2]) - 1
        answers.update((name, message) for message in trained(row))
        head = frame["text"][number].partition("user\n")[0] + "user\n"
        assert text.startswith(head)
        assert re.search(r"<\|im_end\|>\n?$", text)
        # no answer is in part there: each one that is heard is whole
        messages = [segment for segment in segments[number] if segment[1] == "content" and segment[2] == "assistant"]
        heard = {span["message"] for span in row["spans"] if span["role"] == "assistant"}
        assert all(f"assistant\n{content}<|im_end|>" in text for content, _, _, at in messages if at in heard)
    assert set(answers.values()) <= {1}
    names = [name.partition("#")[0] for name in out["id"]]
    assert list(dict.fromkeys(names)) == frame["id"].to_list()
    n_turns = sum(len(turns) for _, turns in rows)
    counts = count_too_long(out, config)
    lost = counts.get(f"what_if/{policy}/turns", 0)
    assert len(answers) == n_turns - lost


ANSWER = st.one_of(WORDS, st.text("ab é漢👍 .\n", min_size=20, max_size=90))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.tuples(WORDS, ANSWER), min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(10, 60),
    st.sampled_from(["drop", "keep_turns", "windows", "truncate_head"]),
)
def test_a_cut_answer_is_the_beginning_of_the_whole_one_and_every_other_window_ends_on_a_stop(rows, limit, policy):
    segments = [
        chatml(*(message for asked, said in turns for message in (("user", asked), ("assistant", said))))
        for turns in rows
    ]
    config = Tokenize(max_seq_len=limit, too_long=policy, cut_answers=True)
    frame = rendered(*segments)
    out = tokenize_conversations(frame, config, vocabulary=VOCABULARY)
    without = tokenize_conversations(frame, Tokenize(max_seq_len=limit, too_long=policy), vocabulary=VOCABULARY)
    whole = tokenize_conversations(frame, Tokenize(), vocabulary=VOCABULARY)
    kept = out.filter(pl.col("drop_reason").is_null())
    stop = engine_for(VOCABULARY, "auto").controls["<|im_end|>"]
    n_cut = 0
    for row in kept.iter_rows(named=True):
        ids, spans = row["input_ids"], row["spans"]
        assert len(ids) <= limit
        assert [spans[0]["start"], *(span["end"] for span in spans)] == [0, *(span["end"] for span in spans)]
        last = spans[-1]
        assert last["end"] == len(ids)
        if last["class"] == "content":
            n_cut += 1
            number = int(row["id"].partition("#")[0].partition(":")[2]) - 1
            source = whole.row(number, named=True)
            (own,) = [s for s in source["spans"] if (s["message"], s["class"]) == (last["message"], "content")]
            answer = source["input_ids"][own["start"] : own["end"]]
            begun = ids[last["start"] :]
            assert begun
            assert stop not in begun
            assert begun == answer[: len(begun)]
            assert len(ids) > limit - 4  # up to the limit, but for a character of several tokens
        else:
            assert stop in ids[-3:]
            assert "stop" in [span["class"] for span in spans[-2:]]
    counts = count_too_long(out, config)
    assert counts.get("cut/answers", 0) == n_cut
    assert set(without.filter(pl.col("drop_reason").is_null())["id"]) <= set(kept["id"]) or policy == "windows"
    assert without.filter(pl.col("drop_reason").is_null()).height <= kept.height
    whole_before = count_too_long(without, Tokenize(max_seq_len=limit, too_long=policy))
    for name in ("conversations", "turns", "tokens"):
        key = f"what_if/{policy}/{name}"
        assert counts.get(key, 0) <= whole_before.get(key, 0)
