import unicodedata
from itertools import groupby
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.fields import MESSAGE
from stages.length import Length, Noise, Pattern, ScriptShare, Side, mark_length

NOISY = st.text(st.sampled_from("a.。中é \t\n-…👍\u0301\u200b") | st.characters(codec="utf-8"), max_size=40)


def talk(*said: tuple[str, str | None], calls: str | None = None) -> dict[str, Any]:
    """Return a conversation; `calls` are the tool calls of its messages without content."""
    empty = dict.fromkeys(field.name for field in MESSAGE)
    return {
        "messages": [
            {**empty, "role": role, "content": content, "tool_calls": calls if content is None else None}
            for role, content in said
        ]
    }


SCHEMA = {"messages": pl.List(pl.Struct(dict.fromkeys((field.name for field in MESSAGE), pl.String())))}


def mark(config: Length, *rows: dict[str, Any]) -> list[tuple[str | None, str | None]]:
    return mark_length(pl.DataFrame(rows, SCHEMA), config).select("drop_reason", "detail").rows()


def test_a_side_s_bounds_are_of_each_message_inclusive_and_name_the_first_that_breaks_them():
    config = Length(user=Side(min_chars=2, max_chars=4), assistant=Side(max_bytes=6))
    rows = [
        talk(("user", "ab"), ("assistant", "你好"), ("user", "abcd"), ("assistant", "x")),
        talk(("user", "a"), ("assistant", "12345")),
        talk(("user", "abcd"), ("assistant", "x"), ("user", "abcde"), ("assistant", "x"), ("user", "abcdef")),
        talk(("user", "ab"), ("assistant", "你好!")),
    ]
    assert mark(config, *rows) == [
        (None, None),
        ("message_too_short", "message 0 (user): 1 characters, at least 2"),
        ("message_too_long", "message 2 (user): 5 characters, at most 4"),
        ("message_too_long", "message 1 (assistant): 7 bytes, at most 6"),
    ]


def test_a_side_s_turns_are_counted():
    rows = [
        talk(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")),
        talk(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Bye")),
    ]
    assert mark(Length(system=Side(max_turns=0)), *rows) == [
        ("too_many_turns", "1 messages of role system, at most 0"),
        (None, None),
    ]
    assert mark(Length(user=Side(min_turns=2)), *rows)[0] == ("too_few_turns", "1 messages of role user, at least 2")


def test_bytes_of_a_conversation_are_bounded():
    row = talk(("user", "你好"), ("assistant", "é"))
    assert mark(Length(min_bytes=8, max_bytes=8), row) == [(None, None)]
    assert mark(Length(max_bytes=7), row) == [("too_long", "8 bytes, at most 7")]


def test_no_text_is_asked_of_a_message_that_only_calls_a_tool():
    config = Length(assistant=Side(min_chars=5), noise=(Noise(max_symbols=0.1),))
    row = talk(
        ("user", "How warm is it"), ("assistant", None), ("tool", "17 degrees"), ("assistant", "17 degrees"), calls="[]"
    )
    assert mark(config, row) == [(None, None)]
    assert mark(config, talk(("user", "How warm is it"), ("assistant", ""))) == [
        ("message_too_short", "message 1 (assistant): 0 characters, at least 5")
    ]


def test_exactly_half_is_not_more_than_half_and_nothing_has_no_share():
    config = Length(scripts=(ScriptShare(script="han", role="user", more_than=0.5),))
    rows = [
        talk(("user", "中文ab"), ("assistant", "ok")),
        talk(("user", "中文a"), ("assistant", "ok")),
        talk(("user", ""), ("assistant", "中文")),
        talk(("assistant", "no user at all")),
        talk(("user", "abc"), ("assistant", "ok"), ("user", "中文中文"), ("assistant", "ok")),  # four of seven
    ]
    assert mark(config, *rows) == [
        ("script_share", "user: 2 of 4 characters are han (0.500), wanted more than 0.5"),
        (None, None),
        ("script_share", "user: 0 of 0 characters are han, wanted more than 0.5"),
        (None, None),
        (None, None),
    ]


def test_a_share_that_is_too_large_drops_and_the_bound_itself_does_not():
    config = Length(scripts=(ScriptShare(script="cyrillic", at_most=0.25),))
    rows = [talk(("user", "да"), ("assistant", "abcdef")), talk(("user", "да!"), ("assistant", "abcd"))]
    assert mark(config, *rows) == [
        (None, None),
        ("script_share", "all messages: 2 of 7 characters are cyrillic (0.286), wanted at most 0.25"),
    ]


@pytest.mark.parametrize(
    ("script", "inside", "outside"),
    [
        ("han", "一鿿", "㐀〇あ，"),
        ("cjk", "一㐀〇あア한，。Ａ𠀀", "aя—"),
        ("kana", "あアｱ", "一한"),
        ("hangul", "한ㄱ", "あ一"),
        ("latin", "aZéßœ", "1 ,+я×"),
        ("cyrillic", "яЁі", "aα1"),
        ("greek", "αΩά", "aя;"),
        ("arabic", "سپ", "؟٣a"),
        ("hebrew", "את", "a"),
        ("devanagari", "कि", "१a"),
        ("thai", "กำ", "๑a"),
    ],
)
def test_scripts_have_their_characters_and_no_others(script: Any, inside: str, outside: str):
    config = Length(min_chars=0, scripts=(ScriptShare(script=script, more_than=0.5),))
    reasons = [reason for reason, _ in mark(config, *(talk(("assistant", c)) for c in inside + outside))]
    assert reasons == [None] * len(inside) + ["script_share"] * len(outside)


@settings(deadline=None)  # the first call compiles
@given(NOISY, NOISY)
def test_what_is_counted_is_what_the_definitions_say(question: str, answer: str):
    """Han as minimind counts it; symbols, runs and lines by the plainest code there is."""
    texts = (question, answer)
    row = talk(("user", question), ("assistant", answer))
    # bounds that only a text without any such thing meets: the evidence says what was counted
    han = Length(min_chars=0, scripts=(ScriptShare(script="han", at_most=0.0),))
    n_han = sum("\u4e00" <= c <= "\u9fff" for c in question + answer)
    assert (mark(han, row)[0][1] or "all messages: 0 of").startswith(f"all messages: {n_han:,} of")
    symbols = Length(min_chars=0, noise=(Noise(max_symbols=0.0),))
    n_symbols = [sum(unicodedata.category(c)[0] not in "LNMZ" and not c.isspace() for c in text) for text in texts]
    first = next((i for i, n in enumerate(n_symbols) if n), None)
    told = mark(symbols, row)[0][1]
    assert (told is None) == (first is None)
    if told is not None and first is not None:
        assert told.startswith(f"message {first} ({('user', 'assistant')[first]}): {n_symbols[first]:,} of ")
    longest = [max((len(list(run)) for c, run in groupby(text) if not c.isspace()), default=0) for text in texts]
    for limit in (1, 2, 3):
        reason, _ = mark(Length(min_chars=0, noise=(Noise(max_run=limit),)), row)[0]
        assert (reason == "long_run") == (max(longest) > limit)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.sampled_from(["a", " a ", "b", "", "\t", "c\r", "长"]), max_size=80))
def test_repeated_lines_are_those_that_stood_before(lines: list[str]):
    shown = [line.strip() for line in lines if line.strip()]
    share = (len(shown) - len(set(shown))) / len(shown) if shown else 0.0
    row = talk(("assistant", "\n".join(lines)))
    for limit in (0.0, 0.25, 0.5, 0.75):
        reason, _ = mark(Length(min_chars=0, noise=(Noise(max_repeated_lines=limit),)), row)[0]
        assert (reason == "repeated_lines") == (share > limit)


def test_noise_is_judged_of_the_role_alone_and_the_bound_itself_is_kept():
    noise = Noise(role="assistant", max_symbols=0.5, max_run=3, max_repeated_lines=0.5)
    rows = [
        talk(("user", "!!!!!!"), ("assistant", "ab!?")),
        talk(("user", "Hi"), ("assistant", "ab!?!")),
        talk(("user", "Hi"), ("assistant", "so aaaa")),
        talk(("user", "Hi"), ("assistant", "no\nno\nno")),
        talk(("user", "Hi"), ("assistant", "no\nno\nyes\nyes\n")),
    ]
    assert mark(Length(noise=(noise,)), *rows) == [
        (None, None),
        ("too_many_symbols", "message 1 (assistant): 3 of 5 characters are symbols (0.600), at most 0.5"),
        ("long_run", "message 1 (assistant): one character 4 times in a row, at most 3"),
        ("repeated_lines", "message 1 (assistant): 2 of 3 lines repeat one before (0.667), at most 0.5"),
        (None, None),
    ]


def test_a_pattern_drops_and_shows_what_it_found():
    config = Length(patterns=(Pattern(pattern="(?i)as an (ai|llm)", role="assistant"),))
    rows = [
        talk(("user", "As an AI, speak."), ("assistant", "No.")),
        talk(("user", "Speak."), ("assistant", "Yes."), ("user", "More."), ("assistant", "Well, as an AI, I can't.")),
    ]
    assert mark(config, *rows) == [
        (None, None),
        ("pattern", "message 3 (assistant): has 'as an AI', which '(?i)as an (ai|llm)' matches"),
    ]


def test_the_first_rule_that_a_row_fails_is_its_reason():
    config = Length(
        max_chars=10,
        user=Side(max_chars=3),
        scripts=(ScriptShare(script="han", more_than=0.5),),
        patterns=(Pattern(pattern="x"),),
    )
    rows = [
        talk(("user", "x" * 20), ("assistant", "x")),
        talk(("user", "xxxx"), ("assistant", "x")),
        talk(("user", "x"), ("assistant", "x")),
    ]
    assert [reason for reason, _ in mark(config, *rows)] == ["too_long", "message_too_long", "script_share"]


def test_a_shard_of_nothing_has_nothing_to_mark():
    config = Length(
        user=Side(min_chars=1), scripts=(ScriptShare(script="han", more_than=0.5),), noise=(Noise(max_run=1),)
    )
    assert mark(config) == []


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"user": {"min_chars": 9, "max_chars": 3}}, "min_chars=9 exceeds max_chars=3"),
        ({"scripts": [{"script": "han"}]}, "neither more_than nor at_most"),
        ({"scripts": [{"script": "han", "more_than": 0.5, "at_most": 0.5}]}, "leaves nothing"),
        ({"noise": [{"role": "user"}]}, "none of max_symbols"),
        (
            {"patterns": [{"pattern": "a("}]},
            r"no regular expression of Rust's regex:\n +a\(\n +\^\nerror: unclosed group",
        ),
        ({"patterns": [{"pattern": "a*"}]}, "matches the empty text"),
        ({"patterns": [{"pattern": "(?=a)"}]}, "look-around"),
    ],
)
def test_rules_that_nothing_or_everything_meets_are_refused(section: dict[str, Any], problem: str):
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.convert(section, Length)
