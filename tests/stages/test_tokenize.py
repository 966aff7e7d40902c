import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from schemas import tables
from schemas.assets import Vocabulary
from stages.tokenize import Tokenize, report_tokens, tokenize_conversations
from stages.tokenize.definition import TokenizerError
from stages.tokenize.engine import engine_for
from stages.tokenize.guard import MARKS, encode_guarded
from tests.stages.rows import chatml, rendered
from tests.stages.vocabularies import (
    SPECIALS,
    added,
    byte_level,
    gemma_like,
    sentencepiece_like,
    with_added,
    word_piece,
)

VOCABULARIES = {"byte_level": byte_level, "sentencepiece": sentencepiece_like, "word_piece": word_piece}
CONVERSATION = chatml(("system", "Be brief."), ("user", "Hello world 你好"), ("assistant", "The quick 👍 fox."))


def span_texts(vocabulary: Vocabulary, row: dict) -> list[str]:
    oracle = engine_for(vocabulary, "tokenizers").oracle
    return [oracle.decode(row["input_ids"][s["start"] : s["end"]], skip_special_tokens=False) for s in row["spans"]]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_ids_are_those_of_tokenizers_on_the_whole_text(name):
    vocabulary = VOCABULARIES[name]()
    frame = rendered(CONVERSATION, chatml(("user", "a"), ("assistant", "b")))
    out = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary)
    settings = json.loads(vocabulary.tokenizer_json) | {"post_processor": None}
    oracle = Tokenizer.from_str(json.dumps(settings))
    for text, ids in zip(frame["text"], out["input_ids"].to_list(), strict=True):
        assert ids == oracle.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", VOCABULARIES)
def test_spans_partition_the_tokens(name):
    out = tokenize_conversations(rendered(CONVERSATION), Tokenize(), vocabulary=VOCABULARIES[name]())
    row = out.row(0, named=True)
    edges = [(span["start"], span["end"]) for span in row["spans"]]
    assert edges[0][0] == 0
    assert edges[-1][1] == len(row["input_ids"])
    assert all(a[1] == b[0] for a, b in pairwise(edges))


def test_tokens_of_a_span_decode_to_its_text():
    vocabulary = byte_level()
    row = tokenize_conversations(rendered(CONVERSATION), Tokenize(), vocabulary=vocabulary).row(0, named=True)
    assert span_texts(vocabulary, row) == [segment[0] for segment in CONVERSATION]


def test_a_token_over_an_edge_belongs_to_the_span_it_starts_in():
    vocabulary = byte_level()
    oracle = engine_for(vocabulary, "tokenizers").oracle
    text = "<|im_start|>assistant\nThe quick brown fox"
    encoding = oracle.encode(text, add_special_tokens=False)
    ids = encoding.ids
    straddling = max(range(2, len(ids)), key=lambda i: (encoding.offsets[i][1] - encoding.offsets[i][0], i))
    start, end = encoding.offsets[straddling]
    assert end - start >= 3
    cut = start + 1
    segments = [(text[:cut], "template", "", -1), (text[cut:], "content", "assistant", 0)]
    row = tokenize_conversations(rendered(segments), Tokenize(), vocabulary=vocabulary).row(0, named=True)
    assert row["input_ids"] == ids
    assert [(s["start"], s["end"]) for s in row["spans"]] == [
        (0, straddling + 1),
        (straddling + 1, len(ids)),
    ]


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("position", ["{}", "{} at the start", "at the end {}", "in the {} middle", "{}{}"])
@pytest.mark.parametrize("token", SPECIALS)
def test_content_never_becomes_a_control_token(name, position, token):
    vocabulary = VOCABULARIES[name]()
    content = position.replace("{}", token)
    honest = chatml(("user", "plain"), ("assistant", "plain"))
    frame = rendered(chatml(("user", content), ("assistant", f"I see {content}.")), honest)
    out = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary)
    assert out["drop_reason"].to_list() == [None, None]
    controls = set(engine_for(vocabulary, "auto").controls.values())
    row = out.row(0, named=True)
    for span, text in zip(row["spans"], span_texts(vocabulary, row), strict=True):
        inside = [i for i in row["input_ids"][span["start"] : span["end"]] if i in controls]
        if span["class"] == "content":
            assert not inside
            expected = content if span["role"] == "user" else f"I see {content}."
            assert text.strip() == expected
    # the template's own control tokens are all there
    template_tokens = sum(i in controls for i in row["input_ids"])
    assert template_tokens == sum(i in controls for i in out["input_ids"][1])


def test_a_control_string_split_over_two_spans_stays_text():
    vocabulary = byte_level()
    segments = [
        ("<|im_start|>user\n", "template", "", -1),
        ("<|im_", "content", "user", 0),
        ("end|>", "content", "user", 1),
        ("<|im_end|>\n", "template", "", -1),
    ]
    out = tokenize_conversations(rendered(segments), Tokenize(), vocabulary=vocabulary)
    end = engine_for(vocabulary, "auto").controls["<|im_end|>"]
    assert out["input_ids"][0].to_list().count(end) == 1


def test_both_engines_give_the_same_table():
    vocabulary = byte_level()
    frame = rendered(CONVERSATION, chatml(("user", "  x\n\n "), ("assistant", "\tдом é e\u0301")))
    tables = [
        tokenize_conversations(frame, Tokenize(engine=engine), vocabulary=vocabulary)
        for engine in ("gigatoken", "tokenizers")
    ]
    assert tables[0].equals(tables[1])


def test_the_fast_engine_is_used_where_it_can_be_and_refused_where_it_cannot():
    assert engine_for(byte_level(), "auto").fast is not None
    assert engine_for(word_piece(), "auto").fast is None
    with pytest.raises(TokenizerError, match="use engine = 'auto'"):
        engine_for(word_piece(), "gigatoken")


def test_texts_on_which_the_fast_engine_errs_are_encoded_by_the_oracle_and_no_others():
    engine = engine_for(Vocabulary(tokenizer_json=byte_level().tokenizer_json + b" "), "auto")
    other = engine_for(sentencepiece_like(), "auto")
    engine.fast = other.fast  # gives other ids
    offsets, ids, differs = engine.encode(["Hello world"], verify=1)
    assert differs
    assert ids.tolist() == engine.oracle.encode("Hello world").ids
    assert offsets.tolist() == [0, len(ids)]
    # another shard is encoded as if this one had never been: the order of shards changes no byte
    assert engine.encode(["Hello world"], verify=0)[1].tolist() == other.fast.encode("Hello world").tolist()


def test_a_mismatch_is_counted_and_changes_no_byte():
    vocabulary = Vocabulary(tokenizer_json=byte_level().tokenizer_json + b"  ")
    engine_for(vocabulary, "auto").fast = engine_for(sentencepiece_like(), "auto").fast  # gives other ids
    frame = rendered(CONVERSATION)
    out = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary)
    assert report_tokens(out, frame, Tokenize())["mismatched_shards"] == 1
    expected = tokenize_conversations(frame, Tokenize(engine="tokenizers"), vocabulary=vocabulary)
    written = [*tables.TOKENIZED.names, *tables.WEIGHED.names]
    assert out.select(written).equals(expected.select(written))
    assert report_tokens(expected, frame, Tokenize())["mismatched_shards"] == 0


def test_a_broken_tokenizer_is_named_as_such():
    with pytest.raises(TokenizerError, match="not a valid tokenizer"):
        engine_for(Vocabulary(tokenizer_json=b"{"), "auto")
    with pytest.raises(TokenizerError, match="cannot be loaded"):
        engine_for(Vocabulary(tokenizer_json=b'{"model": {"type": "Nope"}}'), "auto")


def test_an_empty_frame_stays_empty():
    out = tokenize_conversations(rendered(CONVERSATION).clear(), Tokenize(), vocabulary=byte_level())
    assert out.height == 0


piece = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(
    [*SPECIALS, "<|im_", "end|>", "\n", " "]
)
content = st.lists(piece, min_size=1, max_size=6).map("".join).filter(bool)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(content, content), min_size=1, max_size=3))
def test_whatever_is_said_decodes_to_itself_and_holds_no_control(turns):
    vocabulary = byte_level()
    engine = engine_for(vocabulary, "auto")
    segments = chatml(*((role, text) for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)))
    frame = rendered(segments)
    row = tokenize_conversations(frame, Tokenize(verify="all"), vocabulary=vocabulary).row(0, named=True)
    assert engine.oracle.decode(row["input_ids"], skip_special_tokens=False) == frame["text"][0]
    n_controls = sum(bool(engine.is_control[i]) for i in row["input_ids"])
    assert n_controls == 4 * len(turns)


def test_plain_added_tokens_keep_their_ids_beside_a_control_token_in_content():
    vocabulary = with_added(added("<u1>"), *(added(f"<u{i}>", special=False) for i in (2, 3, 4)))
    engine = engine_for(vocabulary, "auto")
    frame = rendered([("<u1>", "template", "", -1), ("say <u1> and <u3>, <u2>", "content", "user", 0)])
    out = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary)
    assert out["drop_reason"].to_list() == [None]
    ids = out["input_ids"][0].to_list()
    by_name = {text: token.id for text, token in engine.definition.added_tokens.items()}
    named = [i for i in ids if i in set(by_name.values())]
    assert named == [by_name["<u1>"], by_name["<u3>"], by_name["<u2>"]]
    assert ids[0] == by_name["<u1>"]
    assert engine.oracle.decode(ids, skip_special_tokens=False) == frame["text"][0]


FLAGS = ({}, {"rstrip": True}, {"lstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True})
NORMAL = ({}, {"normalized": True})


@pytest.mark.parametrize("base", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("flags", [a | b for a in FLAGS for b in NORMAL], ids=lambda flags: "+".join(flags) or "plain")
@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(["<|user|>", "BOS", "<u2>", " ", "\n", "a", "é", "世", "  b", "Hello world"]), max_size=8
    )
)
def test_the_guarded_path_gives_the_plain_ids_where_content_spells_no_control(base, flags, pieces):
    vocabulary = with_added(
        added("<|user|>", **flags),
        added("BOS", **flags),
        added("<u2>", special=False, single_word=True),
        vocabulary=VOCABULARIES[base](),
    )
    engine = engine_for(vocabulary, "tokenizers")
    text = "".join(pieces)
    plain = engine.oracle.encode(text, add_special_tokens=False)
    guarded = encode_guarded(engine, text, [0], [False])
    assert guarded == (plain.ids, plain.offsets)


def test_a_token_takes_the_spaces_beside_it_on_the_guarded_path_as_on_the_plain_one():
    vocabulary = with_added(added("<|user|>", rstrip=True), added("<|end|>", rstrip=True))
    engine = engine_for(vocabulary, "auto")

    def ids(content: str) -> list[int]:
        segments = [("<|user|>", "template", "", -1), (" \n ", "template", "", -1), (content, "content", "user", 0)]
        out = tokenize_conversations(
            rendered([*segments, ("<|end|>\n", "template", "", -1)]), Tokenize(), vocabulary=vocabulary
        )
        assert out["drop_reason"].to_list() == [None]
        return out["input_ids"][0].to_list()

    user, end = engine.controls["<|user|>"], engine.controls["<|end|>"]
    hello = engine.oracle.encode("hello", add_special_tokens=False).ids
    assert ids("hello") == [user, *hello, end]
    spelled = ids("hello <|end|>\n")
    assert spelled[: 1 + len(hello)] == [user, *hello]
    assert (spelled[-1], spelled.count(end)) == (end, 1)
    assert engine.oracle.decode(spelled[1:-1], skip_special_tokens=False) == "hello <|end|>\n"


def test_spaces_of_content_that_a_control_token_takes_make_no_row_unclean():
    vocabulary = with_added(added("<|user|>", rstrip=True))
    engine = engine_for(vocabulary, "auto")
    frame = rendered([("<|user|>", "template", "", -1), ("  hello", "content", "user", 0)])
    row = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary).row(0, named=True)
    assert row["input_ids"] == engine.oracle.encode("<|user|>hello", add_special_tokens=False).ids
    assert [(span["start"], span["end"]) for span in row["spans"]] == [(0, 1), (1, len(row["input_ids"]))]


def test_content_may_hold_the_marks_of_the_guard():
    vocabulary = byte_level()
    engine = engine_for(vocabulary, "auto")
    marks = MARKS[:3]
    content = "".join(f"{mark}{number}{mark}" for mark in marks for number in range(4)) + "<|im_end|>"
    frame = rendered(chatml(("user", content), ("assistant", "ok")))
    row = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary).row(0, named=True)
    assert row["drop_reason"] is None
    assert sum(bool(engine.is_control[i]) for i in row["input_ids"]) == 4
    assert engine.oracle.decode(row["input_ids"], skip_special_tokens=False) == frame["text"][0]
    everything = rendered(chatml(("user", "".join(MARKS) + "<|im_end|>"), ("assistant", "ok")))
    out = tokenize_conversations(everything, Tokenize(), vocabulary=vocabulary)
    assert out["drop_reason"].to_list() == ["control_token"]


def test_a_row_that_spells_the_metaspace_is_aligned_by_the_oracle():
    vocabulary = gemma_like()
    engine = engine_for(vocabulary, "auto")
    # counted as spaces the two ▁ are four bytes short; counted as spelled, the token of two spaces is four too long
    texts = ["▁a▁", "ab  ", "c"]
    segments = [(text, "content", "user", number) for number, text in enumerate(texts)]
    row = tokenize_conversations(rendered(segments), Tokenize(), vocabulary=vocabulary).row(0, named=True)
    assert span_texts(vocabulary, row) == [" a ", "ab  ", "c"]
    assert row["proof"]["is_proven"] is False
    assert engine.spellings.spell([engine.definition.added_tokens["▁▁"].id]) == b"  "


def test_an_added_token_behind_a_gap_of_ids_is_refused():
    tokens = (added("<|user|>"), added("<|end|>"))
    assert "<|end|>" in engine_for(with_added(*tokens), "auto").controls
    size = Tokenizer.from_str(byte_level().tokenizer_json.decode()).get_vocab_size()
    with pytest.raises(TokenizerError, match=rf"'<\|user\|>' has the id {size + 9}.* gives it {size}.*placeholder"):
        engine_for(with_added(*tokens, gap=9), "auto")


def test_normalisation_is_the_tokenizers_own():
    settings = json.loads(byte_level().tokenizer_json) | {"normalizer": {"type": "NFC"}}
    vocabulary = Vocabulary(tokenizer_json=json.dumps(settings).encode())
    frame = rendered(chatml(("user", "cafe\u0301"), ("assistant", "ok")))
    row = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary).row(0, named=True)
    assert span_texts(vocabulary, row)[1] == "caf\xe9"


@pytest.mark.parametrize(("engine", "n"), [("auto", 1), ("tokenizers", 0)])
def test_a_tokenizer_that_only_the_slow_engine_knows_is_reported(engine, n):
    frame = rendered(chatml(("user", "hello"), ("assistant", "world")))
    out = tokenize_conversations(frame, Tokenize(engine=engine), vocabulary=word_piece())
    assert report_tokens(out, frame, Tokenize(engine=engine))["shards_without_gigatoken"] == n
