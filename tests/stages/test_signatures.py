"""Signatures: a slow, plain reading of the text must give the same tokens, shingles and sketches as the kernels."""

import sys
from collections.abc import Sequence
from unicodedata import category, normalize

import datasketch
import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conform import conform
from schemas.fields import MESSAGE
from schemas.tables import SIGNED
from stages.signatures import Signatures, sign_conversations, sketch_permutations
from stages.signatures.alphabet import KIND_SHIFT, SEPARATOR, SINGLE, UNSPACED, WORD, code_points, entry
from stages.signatures.shingle_kernel import hash_tokens, sort_distinct
from stages.signatures.sketch_kernel import sketch_rows
from stages.signatures.token_kernel import tokenize_message

MESSAGES = pl.List(pl.Struct({field.name: pl.Float32 if field.name == "weight" else pl.String for field in MESSAGE}))
NO_VALUE = 0xFFFFFFFF

# what makes tokenising hard, next to each other more often than chance would have it
HOSTILE = st.sampled_from(
    "aZé9ßİΣ ,.'_-`^¨$+=😀❤👍🏽中文あがｶﾞไทยမြန်한글ᄒ①ﬁＡ　。\U00020000\U0010ffff\n\t\x00"
    "\u0301\u0300\u200d\u200b\ufe0f\u00ad\ufeff"
)
TEXTS = st.text(HOSTILE | st.characters(exclude_categories=["Cs"]), max_size=60)


def conversation(*messages: tuple[str, str | None], **extra: str) -> list[dict[str, str | None]]:
    return [{"role": role, "content": content, **extra} for role, content in messages]


def measured(*rows: list[dict[str, str | None]]) -> pl.DataFrame:
    n_chars = [sum(len(message["content"] or "") for message in row) for row in rows]
    ids = [f"a.jsonl:{i + 1}" for i in range(len(rows))]
    return pl.DataFrame(
        {"id": ids, "messages": rows, "n_chars": n_chars},
        schema={"id": pl.String, "messages": MESSAGES, "n_chars": pl.Int32},
    )


def signed(*texts: str, **config: object) -> pl.DataFrame:
    frame = measured(*[conversation(("user", text)) for text in texts])
    return sign_conversations(frame, msgspec.convert(config, Signatures))


def plain_tokens(text: str) -> list[str]:
    """Cut a text into tokens, one character after another, by nothing but the Unicode database."""
    tokens: list[str] = []
    is_open = is_word = False
    for character in text:
        wide = normalize("NFKC", character)
        wide = wide if len(wide) == 1 else character
        lower = wide.lower() if len(wide.lower()) == 1 else wide
        kind = category(lower)
        if "\u180b" <= lower <= "\u180f" or "\ufe00" <= lower <= "\ufe0f" or "\U000e0100" <= lower <= "\U000e01ef":
            continue
        if kind == "Cf" and lower != "\u200b":
            continue
        is_tone = "\U0001f3fb" <= lower <= "\U0001f3ff"
        if kind[0] in "ZP" or kind in ("Cc", "Cf") or (kind == "Sk" and not is_tone):
            is_open = False
        elif kind[0] == "M" and is_open:
            tokens[-1] += lower
        else:
            continues = kind[0] == "M" or (
                kind[0] in "LN" and not any(start <= ord(lower) < end for start, end in UNSPACED)
            )
            if continues and is_open and is_word:
                tokens[-1] += lower
            else:
                tokens.append(lower)
            is_open, is_word = True, continues
    return tokens


def kernel_tokens(text: str) -> list[tuple[int, int]]:
    data = np.frombuffer(text.encode(), np.uint8)
    tokens = np.zeros((len(data) + 1, 2), np.uint64)
    n = tokenize_message(data, 0, len(data), code_points(), tokens, 0)
    return [(int(a), int(b)) for a, b in tokens[:n]]


def is_same_partition(left: Sequence[object], right: Sequence[object]) -> bool:
    """Say whether two sequences repeat themselves in the same places, that is, map onto each other one to one."""
    return len(left) == len(right) and len(set(zip(left, right, strict=True))) == len(set(left)) == len(set(right))


def oracle(shingles: Sequence[int], num_perm: int, seed: int) -> list[int]:
    sketch = datasketch.MinHash(num_perm=num_perm, seed=seed, hashfunc=int, scheme="affine32")
    sketch.update_batch(shingles)
    return [int(value) for value in sketch.hashvalues]


# --- tokens


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
    ],
)
def test_tokens_are_words_of_spaced_scripts_and_characters_of_others(text: str, tokens: list[str]) -> None:
    assert plain_tokens(text) == tokens
    assert is_same_partition(plain_tokens(text), kernel_tokens(text))


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_the_kernel_reads_the_same_tokens_as_the_plain_reading(left: str, right: str) -> None:
    plain = plain_tokens(left) + plain_tokens(right)
    assert is_same_partition(plain, kernel_tokens(left) + kernel_tokens(right))


def test_the_table_agrees_with_the_definition_at_every_code_point() -> None:
    table = code_points()
    assert table.tolist() == [entry(point) for point in range(sys.maxunicode + 1)]
    folded = table & ((1 << KIND_SHIFT) - 1)
    assert (folded[folded] == folded).all()  # folding twice is folding once
    assert {table[ord(c)] >> KIND_SHIFT for c in "aé한ж1٣"} == {WORD}
    assert {table[ord(c)] >> KIND_SHIFT for c in "中あไ😀+\ue000"} == {SINGLE}
    assert {table[ord(c)] >> KIND_SHIFT for c in " ,。\n_`"} == {SEPARATOR}


# --- shingles


def plain_shingles(texts: Sequence[str], ngram: int) -> set[tuple[str, ...]]:
    tokens = [token for text in texts for token in plain_tokens(text)]
    width = min(ngram, len(tokens))
    return {tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)} if tokens else set()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(TEXTS, max_size=3), max_size=5), st.integers(1, 6))
def test_rows_share_exactly_the_shingles_that_their_tokens_share(rows: list[list[str]], ngram: int) -> None:
    frame = measured(*[conversation(*[("user", text) for text in row]) for row in rows])
    out = sign_conversations(frame, Signatures(ngram=ngram))
    hashed = [set(values) for values in out["shingles"].to_list()]
    plain = [plain_shingles(row, ngram) for row in rows]
    assert [len(values) for values in hashed] == [len(values) for values in plain]
    for i, left in enumerate(plain):
        for j, right in enumerate(plain):
            assert len(hashed[i] & hashed[j]) == len(left & right)
            sequences = [[t for text in row for t in plain_tokens(text)] for row in (rows[i], rows[j])]
            assert (out["exact_hash"][i] == out["exact_hash"][j]) == (sequences[0] == sequences[1])


def test_a_short_text_has_one_shingle_of_all_its_tokens() -> None:
    out = signed("hello there", "Hello, there!", "hello", "hello there general")
    assert out["shingles"].list.len().to_list() == [1, 1, 1, 1]
    assert out["shingles"][0].to_list() == out["shingles"][1].to_list()
    assert out["shingles"].n_unique() == 3


def test_a_text_without_tokens_has_no_shingle_and_the_empty_sketch() -> None:
    out = signed("", "?!  \n...")
    assert out["shingles"].to_list() == [[], []]
    assert out["minhash"].to_list() == [[NO_VALUE] * 128] * 2


def test_shingles_are_ascending_and_distinct_in_long_and_repetitive_texts() -> None:
    words = [f"w{i % 700}" for i in range(5_000)]
    out = signed(" ".join(words), "again " * 10_000, " ".join(map(str, range(3_000))))
    assert out["shingles"].list.len().to_list() == [700, 1, 2_996]
    assert all((np.diff(values.to_numpy().astype(np.int64)) > 0).all() for values in out["shingles"])


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 9), max_size=300))
def test_sorting_is_right_for_any_values_even_those_that_are_not_uniform(values: list[int]) -> None:
    hashes = np.array(values, np.uint32)
    n = sort_distinct(hashes, len(values), np.empty(len(values), np.uint32), np.empty(2 * len(values) + 3, np.int32))
    assert hashes[:n].tolist() == sorted(set(values))


def test_a_shingle_is_hashed_alike_wherever_it_stands() -> None:
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, 2**64, (50, 2), np.uint64)
    rolled, alone, exact = np.zeros(50, np.uint32), np.zeros(50, np.uint32), np.zeros(2, np.uint64)
    assert hash_tokens(tokens, 50, 5, rolled, exact) == 46
    for i in range(46):
        assert hash_tokens(tokens[i : i + 5].copy(), 5, 5, alone, exact) == 1
        assert alone[0] == rolled[i]


def test_shingle_hashes_collide_no_more_than_chance_allows() -> None:
    text = " ".join(f"{a}{b}{c}" for a in "abcdefghij" for b in range(100) for c in "klmnopqrst")
    n = 10_000
    distinct = signed(text, ngram=1)["shingles"].list.len()[0]
    assert n - distinct <= 2  # n * n / 2 / 2**32 = 0.012 collisions are expected


def test_hashes_are_the_same_on_every_machine_and_in_every_release() -> None:
    out = signed("The quick brown fox jumps, 先生!")
    assert out["exact_hash"][0].hex() == "86c1ea200a6ff9aede10e964507cebac"
    assert out["shingles"][0].to_list() == [241843208, 3638567177, 3733827413]
    assert out["minhash"][0].to_list()[:3] == [412034862, 1350819179, 1217019103]


# --- scope


CHAT = conversation(
    ("system", "be brief"),
    ("user", "first question"),
    ("assistant", "first answer"),
    ("user", "why"),
    ("assistant", "so"),
)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "first question first answer why so"),
        ({"includes_system": True}, "be brief first question first answer why so"),
        ({"scope": "prompt"}, "first question"),
        ({"scope": "answer"}, "so"),
    ],
)
def test_the_scope_says_which_messages_count(config: dict[str, object], text: str) -> None:
    frame = measured(conversation(("user", "noise before")), CHAT, conversation(("assistant", "noise after")))
    out = sign_conversations(frame, msgspec.convert(config, Signatures))
    assert out["exact_hash"][1] == signed(text)["exact_hash"][0]


def test_a_conversation_without_the_message_asked_for_has_no_shingles() -> None:
    only_answer, only_prompt = conversation(("assistant", "hello")), conversation(("user", "hello"))
    frame = measured(only_answer, only_prompt)
    for scope, lengths in (("prompt", [0, 1]), ("answer", [1, 0])):
        out = sign_conversations(frame, msgspec.convert({"scope": scope}, Signatures))
        assert out["shingles"].list.len().to_list() == lengths


def test_reasoning_and_tool_calls_are_part_of_what_a_message_says() -> None:
    plain = conversation(("user", "hi"), ("assistant", "done"))
    calls = conversation(("user", "hi"), ("assistant", None))
    calls[1]["tool_calls"] = '[{"name": "a"}]'
    thinks = conversation(("user", "hi"), ("assistant", "done"))
    thinks[1]["reasoning"] = "let me see"
    out = sign_conversations(
        measured(plain, calls, thinks, conversation(("user", "hi"), ("assistant", None))), Signatures()
    )
    assert (
        out["exact_hash"].to_list()
        == signed("hi done", "hi name a", "hi let me see done", "hi")["exact_hash"].to_list()
    )


def test_no_word_reaches_over_two_messages() -> None:
    out = sign_conversations(measured(conversation(("user", "an"), ("assistant", "swer"))), Signatures())
    assert out["exact_hash"][0] == signed("an swer")["exact_hash"][0]


# --- sketch


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from([16, 128, 256]), st.integers(0, 2**32 - 1))
def test_sketches_equal_datasketch_bit_for_bit(texts: list[str], num_perm: int, seed: int) -> None:
    out = signed(*texts, num_perm=num_perm, seed=seed)
    for shingles, minhash in out.select("shingles", "minhash").iter_rows():
        assert minhash == oracle(shingles, num_perm, seed)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_sketches_equal_datasketch_for_any_hashes(values: list[int]) -> None:
    a, b = sketch_permutations(128, 1)
    out = sketch_rows(np.array(values, np.uint32), np.array([0, len(values)]), a, b)
    assert out[0].tolist() == oracle(values, 128, 1)


def test_a_sketch_loads_into_datasketch_and_its_index_finds_planted_pairs() -> None:
    words = [f"word{i}" for i in range(400)]
    texts = [" ".join(words[100 * k : 100 * k + 100]) for k in range(4)]
    near = [text.rsplit(" ", 2)[0] + " other end" for text in texts]
    permutations = sketch_permutations(128, 1)
    sketches = [
        datasketch.MinHash(hashvalues=row.to_numpy(), seed=1, scheme="affine32", permutations=permutations)
        for row in signed(*texts, *near)["minhash"]
    ]
    index = datasketch.MinHashLSH(threshold=0.8, num_perm=128)
    for i in range(4):
        index.insert(i, sketches[i])
    assert [index.query(sketch) for sketch in sketches] == [[0], [1], [2], [3]] * 2
    assert sketches[0].jaccard(sketches[4]) == pytest.approx(94 / 98, abs=0.08)


# --- the table


def test_the_output_has_the_schema_of_signed_and_one_row_per_row() -> None:
    frame = measured(conversation(("user", "one two")), [], conversation(("user", "中文")))
    out = conform(sign_conversations(frame, Signatures()).to_arrow(), SIGNED)
    assert out["id"].to_pylist() == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]
    assert [len(value) for value in out["exact_hash"].to_pylist()] == [16, 16, 16]
    assert conform(sign_conversations(measured(), Signatures()).to_arrow(), SIGNED).num_rows == 0


def test_a_slice_of_a_chunked_frame_is_signed_like_its_rows_alone() -> None:
    frame = measured(*[conversation(("user", f"text number {i} of many more")) for i in range(20)])
    chunked = pl.concat([frame[:7], frame[7:]], rechunk=False)[3:15]
    assert sign_conversations(chunked, Signatures()).equals(sign_conversations(frame, Signatures())[3:15])
