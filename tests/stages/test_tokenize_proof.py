"""What proves the tokens of a row: the bytes they stand for, or else the offsets, held to the normalised text."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from schemas.assets import Vocabulary
from stages.tokenize import Tokenize, encode_conversations
from stages.tokenize.engine import Engine, engine_for
from stages.tokenize.offsets import misspelling
from stages.tokenize.spelling import spellings
from tests.stages.rows import chatml, rendered
from tests.stages.vocabularies import (
    KINDS,
    SPECIALS,
    added,
    byte_level,
    changed,
    gemma_like,
    sentencepiece_like,
    spelled_out,
    unigram,
    with_added,
    word_piece,
)

VOCABULARIES = {name: make() for name, make in KINDS.items()}
"""Made once: a vocabulary is a value, by which engines are remembered."""


def encoded(content: str, vocabulary: Vocabulary, **config: str) -> dict:
    frame = rendered(chatml(("user", content), ("assistant", "ok")))
    return encode_conversations(frame, Tokenize(**config), vocabulary).row(0, named=True)


def spelled(engine: Engine, row: dict) -> list[str]:
    ids = row["input_ids"]
    return [engine.spellings.spell(ids[span["start"] : span["end"]]).decode() for span in row["spans"]]


@pytest.mark.parametrize("name", KINDS)
def test_every_token_is_spelled_as_the_decoder_writes_it(name):
    vocabulary = VOCABULARIES[name]
    engine = engine_for(vocabulary, "tokenizers")
    settings = json.loads(vocabulary.tokenizer_json)
    for i in range(len(engine.spellings.lengths)):
        token = engine.oracle.id_to_token(i)
        if engine.spellings.lengths[i] < 0:
            assert token == (settings["model"].get("unk_token") or "<unk>")
            continue
        ours = engine.spellings.spell([i])
        if name.startswith("word_piece"):
            assert ours.decode() == token.removeprefix("##")
        elif token.startswith("<0x"):
            assert ours == bytes([int(token[3:5], 16)])
        elif name == "byte_level":
            # a character that is cut in two decodes to U+FFFD
            assert ours.decode(errors="replace") == engine.oracle.decode([i], skip_special_tokens=False)
        else:
            assert ours.decode() == token.replace("▁", " ")


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize(
    "content", ["Hello world", "  two  spaces\n\n", "你好 👍🏽 é e\u0301", "\u0000\u200b\ufeff", " "]
)
def test_a_tokenizer_that_changes_nothing_is_proven_byte_by_byte(name, content):
    engine = engine_for(VOCABULARIES[name], "auto")
    row = encoded(content, VOCABULARIES[name])
    assert row["proof"]["is_proven"]
    own = [engine.spellings.spell(row["input_ids"][s["start"] : s["end"]]).decode() for s in row["spans"]]
    expected = [segment[0] for segment in chatml(("user", content), ("assistant", "ok"))]
    if name == "byte_level":
        assert own == expected
    else:  # each stretch after a control token begins with a space that the text has not
        assert [text.replace(" ", "") for text in own] == [text.replace(" ", "") for text in expected]


@pytest.mark.parametrize(
    ("vocabulary", "content", "is_proven"),
    [
        (changed(byte_level(), normalizer={"type": "NFC"}), "caf\xe9", True),
        (changed(byte_level(), normalizer={"type": "NFC"}), "cafe\u0301", False),
        (gemma_like(), "a b  c", True),
        (gemma_like(), "a▁b", False),
        (unigram(), "Hello world", False),  # it has no line breaks
        (unigram(), "\ufb01ne", False),  # a ligature becomes two letters
        (word_piece(), "Hello", False),  # the line break of the template is dropped
    ],
)
def test_what_the_normaliser_changes_is_placed_by_offsets(vocabulary, content, is_proven):
    row = encoded(content, vocabulary)
    assert row["drop_reason"] is None
    assert row["proof"]["is_proven"] is is_proven
    oracle = engine_for(vocabulary, "auto").oracle
    text = "".join(segment[0] for segment in chatml(("user", content), ("assistant", "ok")))
    encoding = oracle.encode(text, add_special_tokens=False)
    assert row["input_ids"] == encoding.ids
    at = len("<|im_start|>user\n")
    span = row["spans"][1]
    inside = [i for i, (first, _) in enumerate(encoding.offsets) if at <= first < at + len(content)]
    if inside and not is_proven:
        assert (span["start"], span["end"]) == (inside[0], inside[-1] + 1)


@pytest.mark.parametrize(
    "scheme", [{"prepend_scheme": scheme} for scheme in ("always", "first", "never")], ids=lambda s: s["prepend_scheme"]
)
@pytest.mark.parametrize("content", ["Hello", " Hello", "  Hello", "Hello <|im_end|> Hello"])
def test_a_metaspace_is_proven_with_and_without_a_space_in_front(scheme, content):
    part = {"type": "Metaspace", "replacement": "▁", "split": True} | scheme
    vocabulary = changed(sentencepiece_like(), normalizer=None, pre_tokenizer=part)
    frame = rendered([(content, "template", "", -1), (" world", "content", "user", 0)])
    row = encode_conversations(frame, Tokenize(), vocabulary).row(0, named=True)
    assert row["proof"]["is_proven"]


def test_a_byte_level_tokenizer_that_puts_a_space_in_front_is_proven():
    part = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    row = encoded("Hello", changed(byte_level(), pre_tokenizer=part))
    assert row["proof"]["is_proven"]
    assert row["drop_reason"] is None


def test_tokens_that_lose_text_drop_the_row_and_say_what_was_lost():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(",", "removed")
    vocabulary = Vocabulary(tokenizer_json=tokenizer.to_str().encode())
    frame = rendered([("a,b", "content", "user", 0)], [("a", "content", "user", 0)])
    out = encode_conversations(frame, Tokenize(), vocabulary)
    assert out["drop_reason"].to_list() == ["unproven", None]
    assert out["detail"][0] == "characters 0 to 3 are 'a,b', but their tokens spell 'ab'"
    assert out["input_ids"].to_list() == [[], [0]]


def test_bytes_that_a_vocabulary_lacks_are_noticed():
    # a byte-level BPE without an unknown token leaves out what it has no token for, without a word
    vocabulary = spelled_out(["a", "b"], [])
    out = encode_conversations(rendered([("axb", "content", "user", 0)]), Tokenize(), vocabulary)
    assert out["drop_reason"].to_list() == ["unproven"]


def test_offsets_that_do_not_ascend_are_refused():
    engine = engine_for(word_piece(), "auto")
    ids = np.asarray(engine.oracle.encode("Hello world", add_special_tokens=False).ids, np.int32)
    assert misspelling(engine, "Hello world", ids, engine.oracle.encode("Hello world").offsets) is None
    assert "do not ascend" in str(misspelling(engine, "Hello world", ids, [(0, 5), *[(6, 99)] * (len(ids) - 1)]))
    assert "but" in str(misspelling(engine, "Hallo world", ids, engine.oracle.encode("Hello world").offsets))


def test_sums_of_lengths_that_agree_by_chance_prove_nothing():
    # an NFKC normaliser turns a full-width letter (3 bytes) into one of 1, and 2 letters (2 bytes each) are 2 longer
    settings = json.loads(byte_level().tokenizer_json)
    settings["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Replace", "pattern": {"String": "b"}, "content": "c"}],
    }
    vocabulary = Vocabulary(tokenizer_json=json.dumps(settings).encode())
    row = encoded("abba", vocabulary)
    assert not row["proof"]["is_proven"]
    assert row["drop_reason"] is None
    assert spelled(engine_for(vocabulary, "auto"), row)[1] == "acca"


def test_unknown_and_added_tokens_have_no_bytes_that_could_lie():
    engine = engine_for(sentencepiece_like(), "auto")
    assert engine.spellings.lengths[engine.oracle.token_to_id("<unk>")] == -1
    vocabulary = with_added(added("x▁y"), vocabulary=sentencepiece_like())
    engine = engine_for(vocabulary, "auto")
    assert engine.spellings.spell([engine.oracle.token_to_id("x▁y")]) == "x▁y".encode()
    assert spellings(engine.definition, {"": 900, "a": 901}, {}).lengths[900:902].tolist() == [-1, 1]
    bert = engine_for(word_piece(), "auto").definition
    assert spellings(bert, {"##": 900, "##a": 901}, {}).lengths[900:902].tolist() == [-1, 1]


@pytest.mark.parametrize("name", KINDS)
def test_beginning_and_end_are_where_the_template_writes_them_and_nowhere_else(name):
    end = SPECIALS[0]
    plain = VOCABULARIES[name]
    i = engine_for(plain, "auto").controls[end]
    adds = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": end, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {end: {"id": end, "ids": [i], "tokens": [end]}},
    }
    vocabulary = changed(plain, post_processor=adds)
    assert Tokenizer.from_str(vocabulary.tokenizer_json.decode()).encode("Hello").ids[0] == i
    bare = [("Hello", "content", "user", 0)]
    frame = rendered(bare, [(end, "template", "", -1), *bare], [*bare, (end, "stop", "assistant", 0)])
    without, before, after = encode_conversations(frame, Tokenize(), vocabulary)["input_ids"].to_list()
    assert before == [i, *without]
    assert after == [*without, i]
    assert i not in without


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("position", ["{}", "{} at", "at {}", "at {} at", "{}{}"])
def test_no_added_token_in_content_becomes_a_control_token(name, position):
    vocabulary = VOCABULARIES[name]
    engine = engine_for(vocabulary, "auto")
    frame = rendered(
        *(
            chatml(("user", position.replace("{}", text)), ("assistant", "ok"))
            for text in engine.definition.added_tokens
        )
    )
    out = encode_conversations(frame, Tokenize(), vocabulary)
    for row, text in zip(out.iter_rows(named=True), engine.definition.added_tokens, strict=True):
        assert row["drop_reason"] is None
        assert sum(bool(engine.is_control[i]) for i in row["input_ids"]) == 4
        assert row["proof"]["is_guarded"] is (text in engine.controls)


piece = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(
    [*SPECIALS, "<|im_", "end|>", "<unk>", "[UNK]", "<0x41>", "▁", "##a", "\n", "  ", "e\u0301", "\ufb01", "\u3000"]
)
said = st.lists(piece, min_size=1, max_size=6).map("".join).filter(bool)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(said, said), min_size=1, max_size=2))
def test_whatever_is_said_is_kept_and_holds_no_control_with_every_kind_of_tokenizer(name, turns):
    vocabulary = VOCABULARIES[name]
    engine = engine_for(vocabulary, "auto")
    segments = chatml(*((role, text) for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)))
    frame = rendered(segments)
    row = encode_conversations(frame, Tokenize(verify="all"), vocabulary).row(0, named=True)
    assert row["drop_reason"] is None, row["detail"]
    assert not row["proof"]["is_by_oracle"]
    edges = [(span["start"], span["end"]) for span in row["spans"]]
    assert (edges[0][0], edges[-1][1]) == (0, len(row["input_ids"]))
    assert all(a[0] <= a[1] == b[0] for a, b in pairwise(edges))
    assert sum(bool(engine.is_control[i]) for i in row["input_ids"]) == 4 * len(turns)
    for span, (_, name_of_class, *_) in zip(row["spans"], segments, strict=True):
        if name_of_class == "content":
            assert not engine.is_control[row["input_ids"][span["start"] : span["end"]]].any()
    if not row["proof"]["is_guarded"]:
        assert row["input_ids"] == engine.oracle.encode(frame["text"][0], add_special_tokens=False).ids


@pytest.mark.parametrize("engine", ["gigatoken", "tokenizers"])
def test_long_and_short_rows_come_out_in_order(engine):
    texts = ["a", "b " * 200_000, "c", "", "d" * 3000, *("e f" for _ in range(600)), "g " * 150_000]
    frame = rendered(*([(text, "content", "user", 0)] for text in texts))
    out = encode_conversations(frame, Tokenize(engine=engine), byte_level())
    oracle = engine_for(byte_level(), "auto").oracle
    assert [oracle.decode(ids) for ids in out["input_ids"].to_list()] == texts


def test_normalizer_and_pre_tokenizer_of_bytes_are_read_alike():
    vocabulary = changed(byte_level(), normalizer=None, pre_tokenizer=None)
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer_json.decode())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.ByteLevel()])
    vocabulary = Vocabulary(tokenizer_json=tokenizer.to_str().encode())
    assert encoded("naïve 👍", vocabulary)["proof"]["is_proven"]
    row = encoded("nai\u0308ve 👍", vocabulary)
    assert (row["proof"]["is_proven"], row["drop_reason"]) == (False, None)
