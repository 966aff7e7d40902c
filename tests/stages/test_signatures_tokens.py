"""Tokens: a slow, plain reading of the text must give the same as the kernel, for every setting."""

import itertools
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.signatures.alphabet import KIND_SHIFT, SEPARATOR, SINGLE, WORD, Alphabet, Rules, alphabet, entry
from stages.signatures.token_kernel import SCRATCH, open_reader, tokenize_text
from tests.corpus import ROOT
from tests.stages.signing import RUNS, TEXTS, configured, is_same_partition, plain_tokens

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "case": st.just("keep"),
        "width": st.just("keep"),
        "punctuation": st.just("keep"),
        "white_space": st.just("keep"),
        "token": st.just("character"),
    },
)


def read_tokens(address: int, size: int, table: Alphabet) -> list[int]:
    tokens, scratch = np.zeros(size + 1, np.uint64), np.full(SCRATCH, ord("z"), np.uint8)
    n = tokenize_text(np.uint64(address), size, open_reader(table, scratch, tokens), 0)
    return [int(token) for token in tokens[:n]]


def kernel_tokens(text: str, **config: str) -> list[int]:
    data = np.frombuffer(text.encode(), np.uint8)
    return read_tokens(data.ctypes.data, len(data), alphabet(configured(**config).rules))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("don't re-use snake_case", ["don", "t", "re", "use", "snake", "case"]),
        ("我用Python写代码。", ["我", "用", "python", "写", "代", "码"]),
        ("ＡＢＣ　１２３", ["abc", "123"]),
        ("ﾃｽﾄ", ["テ", "ス", "ト"]),
        ("ทำ", ["ท", "ำ"]),
        ("นี้", ["นี้"]),
        ("한국어 모델", ["한국어", "모델"]),
        ("cafe\u0301 au lait", ["cafe\u0301", "au", "lait"]),
        ("x+y=2€", ["x", "+", "y", "=", "2", "€"]),
        ("ok👍🏽❤\ufe0f", ["ok", "👍", "🏽", "❤"]),
        ("soft\u00adhyphen می\u200cخواهم", ["softhyphen", "میخواهم"]),
        ("zero\u200bwidth", ["zero", "width"]),
        ("`code` ^ ...", ["code"]),
        ("𝐁𝐨𝐥𝐝 𠀀𠀁", ["bold", "𠀀", "𠀁"]),
        ("\u0301x", ["\u0301x"]),
        ("x =\u0338 y", ["x", "=\u0338", "y"]),
    ],
)
def test_tokens_are_words_of_spaced_scripts_and_characters_of_others(text: str, tokens: list[str]) -> None:
    assert plain_tokens(text) == tokens
    assert is_same_partition(plain_tokens(text), kernel_tokens(text))


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({}, ["hello", "world", "ab", "中"]),
        ({"case": "keep"}, ["Hello", "World", "Ab", "中"]),
        ({"width": "keep"}, ["hello", "world", "ａb", "中"]),
        ({"punctuation": "keep"}, ["hello", ",", "world", "!", "ab", "中"]),
        ({"white_space": "keep"}, ["hello", " ", " ", "world", "\n", "ab", "中"]),
        ({"token": "character"}, [*"helloworldab", "中"]),
        ({"token": "character", "white_space": "keep"}, [*"hello  world\nab", "中"]),
        (
            {"token": "character", "punctuation": "keep", "white_space": "keep", "case": "keep"},
            [*"Hello,  World!\nAb中"],
        ),
    ],
)
def test_settings_say_what_a_token_is(config: dict[str, str], tokens: list[str]) -> None:
    text = "Hello,  World!\nＡb中"
    assert plain_tokens(text, **config) == tokens
    assert is_same_partition(tokens, kernel_tokens(text, **config))


@pytest.mark.parametrize(
    ("config", "left", "right"),
    [
        ({"case": "fold"}, "Hello WORLD Éa", "hello world éa"),
        ({"width": "fold"}, "ＡＢ① ﾃ", "ab1 テ"),
        ({"punctuation": "ignore"}, "a, b! (c)", "a b c"),
        ({"white_space": "ignore"}, "a  b\n\tc", "a b c"),
        ({"token": "character"}, "a b c", "abc"),
    ],
)
def test_each_setting_makes_of_two_texts_one_or_two(config: dict[str, str], left: str, right: str) -> None:
    other = {"fold": "keep", "ignore": "keep", "character": "word"}
    opposite = {name: other[value] for name, value in config.items()}
    assert kernel_tokens(left, **config) == kernel_tokens(right, **config)
    assert kernel_tokens(left, **opposite) != kernel_tokens(right, **opposite)


@settings(max_examples=400, deadline=None)
@given(TEXTS | RUNS, TEXTS | RUNS, OPTIONS)
def test_the_kernel_reads_the_same_tokens_as_the_plain_reading(left: str, right: str, config: dict[str, str]) -> None:
    plain = plain_tokens(left, **config) + plain_tokens(right, **config)
    assert is_same_partition(plain, kernel_tokens(left, **config) + kernel_tokens(right, **config))


@settings(max_examples=100, deadline=None)
@given(TEXTS | RUNS, st.integers(0, 100))
def test_a_text_reads_alike_wherever_it_lies_in_memory(text: str, before: int) -> None:
    data = text.encode()
    pages = np.full(3 * 4096 + len(data), ord("z"), np.uint8)
    start = (
        4096 - (pages.ctypes.data + len(data)) % 4096 + 4096 - before
    )  # so that it ends `before` bytes before a page
    pages[start : start + len(data)] = list(data)
    assert read_tokens(pages.ctypes.data + start, len(data), alphabet()) == kernel_tokens(text)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 56, 63, 64, 65, 127, 128, 129, 1_000])
def test_a_word_of_any_length_is_one_token_that_depends_on_each_letter(length: int) -> None:
    word = "a" * length
    changed = [word[:i] + "b" + word[i + 1 :] for i in {0, length // 2, length - 1}]
    hashes = [kernel_tokens(text) for text in (word, word + "a", *changed)]
    assert [len(found) for found in hashes] == [1] * len(hashes)
    assert len({found[0] for found in hashes}) == len(hashes)
    assert kernel_tokens(f", {word}. {word}\u00ad {word.upper()}") == hashes[0] * 3


@pytest.mark.parametrize(
    "config", [{}, {"case": "keep", "punctuation": "keep"}, {"width": "keep", "token": "character"}]
)
def test_the_table_agrees_with_the_definition_at_every_code_point(config: dict[str, str]) -> None:
    rules = configured(**config).rules
    table = alphabet(rules).entries
    assert table.tolist() == [entry(point, rules) for point in range(sys.maxunicode + 1)]
    folded = table & ((1 << KIND_SHIFT) - 1)
    assert (folded[folded] == folded).all()  # folding twice is folding once


def test_the_kinds_of_the_default_alphabet() -> None:
    table = alphabet(Rules()).entries
    assert {table[ord(c)] >> KIND_SHIFT for c in "aé한ж1٣"} == {WORD}
    assert {table[ord(c)] >> KIND_SHIFT for c in "中あไ😀+\ue000"} == {SINGLE}
    assert {table[ord(c)] >> KIND_SHIFT for c in " ,。\n_`"} == {SEPARATOR}


def rows_of(page: str, header: str) -> list[list[str]]:
    """Return the cells of the table under a header line."""
    lines = page.split(header, 1)[1].splitlines()[2:]
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    return [[cell.strip(" ") for cell in line.strip("|").split(" | ")] for line in table]


def test_the_tables_of_the_page_on_signatures_are_right() -> None:
    page = (ROOT / "docs" / "signatures.md").read_text(encoding="utf-8")
    texts = rows_of(page, "| text | tokens | why |")
    assert len(texts) > 6
    for text, tokens, _ in texts:
        assert plain_tokens(text.split("`")[1]) == re.findall("`([^`]*)`", tokens)
    options = rows_of(page, "| setting | tokens |")
    assert len(options) == 5
    for option, tokens in options:
        name, value = re.findall('`(.*) = "(.*)"`', option)[0]
        found = re.findall("`([^`]*)`", tokens.split(",  but")[0].split(", but")[0])
        assert plain_tokens("Hello,  World!", **{name: value}) == found
