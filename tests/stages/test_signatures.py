"""Signatures of conversations: which texts are compared, under which names, and what else is said of a row."""

from typing import Any

import msgspec
import polars as pl
import pytest

from schemas.conform import conform
from schemas.tables import SIGNED
from stages.signatures import Signatures, sign_conversations
from tests.stages.signing import configured, conversation, measured, signed, units

CHAT = conversation(
    ("system", "be brief"),
    ("user", "first question"),
    ("assistant", "first answer"),
    ("user", "why"),
    ("assistant", "so"),
)
SCOPES = ("conversation", "prompt", "answer", "turns")


def names(*texts: str, **config: Any) -> list[bytes]:
    return signed(*texts, **config)["exact_hash"].to_list()


# --- scopes


def test_fewest_tokens_of_a_scope_that_is_not_compared_are_refused() -> None:
    with pytest.raises(
        msgspec.ValidationError, match=r"min_tokens\.prompt: this scope is not compared; expected one of answer"
    ):
        configured(scope="answer", min_tokens={"prompt": 3})


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, [("conversation", -1, "first question first answer why so")]),
        ({"includes_system": True}, [("conversation", -1, "be brief first question first answer why so")]),
        ({"scope": "prompt"}, [("prompt", 1, "first question")]),
        ({"scope": "prompt", "includes_system": True}, [("prompt", 1, "first question")]),
        ({"scope": "answer"}, [("answer", 4, "so")]),
        ({"scope": "answer", "min_tokens": {"answer": 2}}, []),
        (
            {"scope": ["conversation", "turns"], "min_tokens": {"turns": 2}},
            [
                ("conversation", -1, "first question first answer why so"),
                ("turns", 1, "first question"),
                ("turns", 2, "first answer"),
            ],
        ),
        (
            {"scope": "turns"},
            [("turns", 1, "first question"), ("turns", 2, "first answer"), ("turns", 3, "why"), ("turns", 4, "so")],
        ),
        (
            {"scope": ["turns", "answer", "prompt", "answer"], "includes_system": True},
            [
                ("prompt", 1, "first question"),
                ("answer", 4, "so"),
                ("turns", 0, "be brief"),
                ("turns", 1, "first question"),
                ("turns", 2, "first answer"),
                ("turns", 3, "why"),
                ("turns", 4, "so"),
            ],
        ),
    ],
)
def test_the_scopes_say_which_texts_are_compared(config: dict[str, Any], found: list[tuple[str, int, str]]) -> None:
    frame = measured(conversation(("user", "noise before")), CHAT, conversation(("assistant", "noise after")))
    out = units(frame, **config).filter(pl.col("id") == "a.jsonl:2")
    texts = signed(*[text for _, _, text in found])
    assert list(out.select("scope", "message").iter_rows()) == [(scope, message) for scope, message, _ in found]
    assert out.select("exact_hash", "shingles", "minhash").equals(texts.select("exact_hash", "shingles", "minhash"))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ([], []),
        (conversation(("system", "be brief")), []),
        (conversation(("user", ""), ("assistant", "?!")), []),
        (conversation(("assistant", "hi")), [("conversation", -1), ("answer", 0), ("turns", 0)]),
        (conversation(("user", "hi")), [("conversation", -1), ("prompt", 0), ("turns", 0)]),
        (conversation(("tool", "hi")), [("conversation", -1), ("turns", 0)]),
        # the first message of the user has no token, and no later one takes its place
        (conversation(("user", "..."), ("user", "hi")), [("conversation", -1), ("turns", 1)]),
        (conversation(("user", None), ("assistant", None), ("tool", "hi")), [("conversation", -1), ("turns", 2)]),
    ],
)
def test_only_texts_with_a_token_are_compared(row: list[Any], found: list[tuple[str, int]]) -> None:
    out = sign_conversations(measured(CHAT, row, CHAT), configured(scope=SCOPES))
    assert [(unit["scope"], unit["message"]) for unit in out["units"][1]] == found
    assert (out["text_hash"][1] is not None) == (("conversation", -1) in found)
    assert (out["prompt_hash"][1] is not None) == (("prompt", 0) in found)
    assert out["units"][0].to_list() == out["units"][2].to_list()


def test_empty_texts_have_no_hash_in_common() -> None:
    out = sign_conversations(measured(conversation(("user", "")), conversation(("user", "?!  \n..."))), Signatures())
    assert out["text_hash"].to_list() == out["prompt_hash"].to_list() == [None, None]
    assert out["units"].list.len().to_list() == [0, 0]


@pytest.mark.parametrize("scope", [*SCOPES, SCOPES])
def test_text_and_prompt_have_their_hashes_whatever_is_compared(scope: Any) -> None:
    out = sign_conversations(measured(CHAT), configured(scope=scope))
    assert out["text_hash"].to_list() == names("First question: first answer. Why? So!")
    assert out["prompt_hash"].to_list() == names("First question.")


def test_prompts_have_one_hash_if_and_only_if_they_read_alike() -> None:
    prompts = ["What is 2 + 2?", "what is 2+2", "What is 2 - 2?", "What is ２+２？", "Is what 2 + 2?"]
    rows = [conversation(("system", f"{i}"), ("user", text), ("assistant", f"{i}")) for i, text in enumerate(prompts)]
    hashes = sign_conversations(measured(*rows), Signatures())["prompt_hash"].to_list()
    assert hashes[0] == hashes[1] == hashes[3]
    assert len({hashes[0], hashes[2], hashes[4]}) == 3


def test_reasoning_and_tool_calls_are_part_of_what_a_message_says() -> None:
    calls = conversation(("user", "hi"), ("assistant", None))
    calls[1]["tool_calls"] = '[{"name": "a"}]'
    thinks = conversation(("user", "hi"), ("assistant", "done"))
    thinks[1]["reasoning"] = "let me see"
    only_calls = [{"role": "assistant", "content": None, "tool_calls": '[{"name": "a"}]'}]
    frame = measured(calls, thinks, conversation(("user", "hi"), ("assistant", None)), only_calls)
    assert units(frame)["exact_hash"].to_list() == names("hi name a", "hi let me see done", "hi", "name a")
    assert units(frame, scope="answer")["exact_hash"].to_list() == names("name a", "let me see done", "name a")


def test_no_word_reaches_over_two_messages_but_shingles_do() -> None:
    out = units(measured(conversation(("user", "an"), ("assistant", "swer is"))), ngram=2)
    assert out["exact_hash"].to_list() == names("an swer is")
    assert out["shingles"].list.len().to_list() == [2]


# --- what is left out


def test_what_matches_is_left_out_of_each_message() -> None:
    row = conversation(("user", "Translate: bonjour [ref 1]"), ("assistant", "Sure! Hello[ref 22]there"))
    out = sign_conversations(measured(row), configured(leave_out=[r"\[ref \d+\]", "^(?i:translate:|sure!)"]))
    assert out["text_hash"].to_list() == names("bonjour hello there")
    assert out["prompt_hash"].to_list() == names("bonjour")
    plain = sign_conversations(measured(row), Signatures())
    assert plain["content_hash"].to_list() == out["content_hash"].to_list()
    assert plain["text_hash"].to_list() != out["text_hash"].to_list()


def test_reasoning_can_be_left_out_and_a_message_may_become_empty() -> None:
    row = conversation(("user", "hi"), ("assistant", "<think>a\nb</think>"), ("assistant", "x <think>c</think>"))
    out = sign_conversations(
        measured(row), configured(leave_out=["(?s)<think>.*?</think>"], scope=["conversation", "turns"])
    )
    assert [(unit["scope"], unit["message"]) for unit in out["units"][0]] == [
        ("conversation", -1),
        ("turns", 0),
        ("turns", 2),
    ]
    assert out["text_hash"].to_list() == names("hi x")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"scope": []}, "scope = []: expected at least one"),
        (
            {"leave_out": ["ok", "(unclosed"]},
            r"leave_out\[1\] = '\(unclosed': not a regular expression: unclosed group;",
        ),
        ({"leave_out": [r"(?=x)"]}, r"leave_out\[0\] = .*: not a regular expression: look-around"),
        ({"leave_out": ["x*"]}, r"leave_out\[0\] = 'x\*': matches the empty text"),
        ({"scope": "everything"}, "Invalid enum value 'everything'"),
        ({"ngram": 0}, "Expected `int` >= 1"),
    ],
)
def test_impossible_settings_are_refused_with_what_is_wrong(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=problem.replace("[]", r"\[\]")):
        configured(**settings)


# --- the conversation as it stands


def contents(*rows: list[Any], tools: tuple[str | None, ...] = ()) -> list[int]:
    return sign_conversations(measured(*rows, tools=tools), Signatures())["content_hash"].to_list()


def test_the_content_hash_is_of_everything_that_is_said_and_of_nothing_else() -> None:
    base = conversation(("system", "be brief"), ("user", "hi"), ("assistant", "hello"))
    weighted = [base[0], base[1], {**base[2], "weight": 0.5}]
    assert len(set(contents(base, weighted, [dict(message) for message in base]))) == 1
    variants = [
        conversation(("user", "hi"), ("assistant", "hello")),
        conversation(("system", "be brief."), ("user", "hi"), ("assistant", "hello")),
        conversation(("system", "be brief"), ("user", "Hi"), ("assistant", "hello")),
        conversation(("system", "be brief"), ("tool", "hi"), ("assistant", "hello")),
        conversation(("user", "hi"), ("system", "be brief"), ("assistant", "hello")),
        conversation(("system", "be brief"), ("user", "hih"), ("assistant", "ello")),
        conversation(("system", "be brief"), ("user", "hi"), ("assistant", "hello"), ("user", "")),
        conversation(("system", "be brief"), ("user", "hi"), ("assistant", "hello"), ("user", None)),
        [base[0], base[1], {"role": "assistant", "content": None, "reasoning": "hello"}],
        [base[0], base[1], {"role": "assistant", "content": "", "reasoning": "hello"}],
        [base[0], base[1], {"role": "assistant", "content": "hello", "reasoning": ""}],
        [base[0], base[1], {"role": "assistant", "content": "hel", "reasoning": "lo"}],
        *[[base[0], base[1], {**base[2], name: "x"}] for name in ("reasoning", "tool_calls", "tool_call_id", "name")],
    ]
    assert len(set(contents(base, *variants))) == 1 + len(variants)


def test_the_content_hash_is_of_the_tools_too() -> None:
    row = conversation(("user", "hi"))
    assert len(set(contents(row, row, row, row, tools=(None, "", "[]", "[{}]")))) == 4


@pytest.mark.parametrize("size", [*range(1, 42), 63, 64, 65, 200])
def test_the_content_hash_depends_on_each_byte(size: int) -> None:
    text = "a" * size
    changed = [text[:i] + "b" + text[i + 1 :] for i in range(size)]
    rows = [conversation(("user", each)) for each in (text, text + "a", text + "\0", *changed)]
    assert len(set(contents(*rows))) == len(rows)


def test_the_content_hash_is_the_same_on_every_machine_and_in_every_release() -> None:
    assert contents(CHAT, tools=("[]",)) == [8212347235207813838]


# --- the table


def test_the_output_has_the_schema_of_signed_and_one_row_per_row() -> None:
    frame = measured(conversation(("user", "one two")), [], conversation(("user", "中文")))
    for config in (Signatures(), configured(scope=SCOPES)):
        out = conform(sign_conversations(frame, config).to_arrow(), SIGNED)
        assert out["id"].to_pylist() == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]
        assert [len(value) if value else None for value in out["text_hash"].to_pylist()] == [16, None, 16]
        assert conform(sign_conversations(measured(), config).to_arrow(), SIGNED).num_rows == 0


def test_what_decides_between_copies_is_handed_on() -> None:
    handed = {"source": ["b.jsonl"], "tags": [["source:x"]], "score": [0.5], "n_chars": [7]}
    frame = measured(conversation(("user", "hi"))).with_columns(**{name: pl.Series(v) for name, v in handed.items()})
    frame = frame.with_columns(created=pl.lit("2026-01-02T03:04:05Z").str.to_datetime("%+", time_unit="us"))
    out = sign_conversations(frame, Signatures())
    assert out.select(*handed, "created").equals(frame.select(*handed, "created"))


@pytest.mark.parametrize("config", [{}, {"scope": SCOPES, "leave_out": ["number"], "includes_system": True}])
def test_a_row_is_signed_alike_alone_and_among_others(config: dict[str, Any]) -> None:
    rows = [
        CHAT,
        [],
        *[conversation(("user", f"text number {i} of many more"), ("assistant", "yes " * i)) for i in range(20)],
        [{"role": "assistant", "content": None, "tool_calls": "[1]", "reasoning": "because it is so", "name": "a"}],
        conversation(("user", "中文" * 3_000)),
    ]
    together = sign_conversations(measured(*rows), configured(**config)).drop("id")
    for i, row in enumerate(rows):
        alone = sign_conversations(measured(row), configured(**config)).drop("id")
        assert alone.equals(together[i])


def test_a_slice_of_a_chunked_frame_is_signed_like_its_rows() -> None:
    frame = measured(*[conversation(("user", f"text number {i} of many more")) for i in range(20)], [], CHAT)
    chunked = pl.concat([frame[:7], frame[7:]], rechunk=False)[3:21]
    assert sign_conversations(chunked, Signatures()).equals(sign_conversations(frame, Signatures())[3:21])
