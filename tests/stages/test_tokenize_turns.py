"""Where a turn begins: tokens that reach over the edge between what is given and what the model writes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.tokenize import Tokenize, encode_conversations, report_tokens, tokenize_conversations
from stages.tokenize.definition import TokenizerError
from stages.tokenize.engine import engine_for
from tests.stages.rows import chatml, rendered
from tests.stages.vocabularies import SPECIALS, byte_level, gemma_like, sentencepiece_like, spelled_out

TOKENS = ["A", ":", "Ġ", "Ċ", "H", "i", "!", "Hi", "ĠHi", "ĊĊ", "ĊĊĊĊ"]
MERGES = [("H", "i"), ("Ġ", "Hi"), ("Ċ", "Ċ"), ("ĊĊ", "ĊĊ")]
"""As any byte-level BPE has them: a word with the space before it, and runs of newlines, are single tokens."""


def row_of(prompt: str, answer: str, **config: str) -> tuple[list[str], list[list[str]], dict]:
    """Return (tokens, tokens of prompt, answer and stop, the row) of `<prompt><answer><e>`."""
    vocabulary = spelled_out(TOKENS, MERGES, "<e>")
    frame = rendered(
        [
            (prompt, "generation_prompt", "assistant", 0),
            (answer, "content", "assistant", 0),
            ("<e>", "stop", "assistant", 0),
        ]
    )
    row = tokenize_conversations(frame, Tokenize(**config), vocabulary=vocabulary).row(0, named=True)
    names = [*TOKENS, "<e>"]
    tokens = [names[i] for i in row["input_ids"]]
    return tokens, [tokens[span["start"] : span["end"]] for span in row["spans"]], row


def retokenised_prefix(prompt: str, text: str) -> list[str]:
    """Return what a tool trains that takes the prompt's own tokens off the front of the whole text's."""
    oracle = engine_for(spelled_out(TOKENS, MERGES, "<e>"), "tokenizers").oracle
    n_prompt = len(oracle.encode(prompt, add_special_tokens=False).ids)
    return [oracle.id_to_token(i) for i in oracle.encode(text, add_special_tokens=False).ids[n_prompt:]]


def test_a_prompt_that_ends_in_a_space_owns_the_token_that_the_answer_begins_in():
    tokens, spans, row = row_of("A: ", "Hi!")
    assert tokens == ["A", ":", "ĠHi", "!", "<e>"]
    assert spans == [["A", ":", "ĠHi"], ["!"], ["<e>"]]
    assert row["n_straddling"] == 1
    assert row["proof"]["n_straddling_turns"] == 1


def test_cut_at_the_prompt_the_answer_is_what_a_model_writes_after_that_prompt():
    tokens, spans, row = row_of("A: ", "Hi!", straddling="cut")
    assert tokens == ["A", ":", "Ġ", "Hi", "!", "<e>"]
    assert spans == [["A", ":", "Ġ"], ["Hi", "!"], ["<e>"]]
    assert row["n_straddling"] == 0
    assert row["proof"] == {"is_proven": True, "is_guarded": False, "n_straddling_turns": 0}


def test_an_answer_whose_newline_merges_with_the_headers_keeps_all_its_other_tokens():
    tokens, spans, row = row_of("A:\n\n\n", "\nHi!")
    assert tokens == ["A", ":", "ĊĊĊĊ", "Hi", "!", "<e>"]
    assert spans == [["A", ":", "ĊĊĊĊ"], ["Hi", "!"], ["<e>"]]
    assert row["proof"]["n_straddling_turns"] == 1
    # the prompt alone has two tokens of newlines where the text has one: counted off the front, "Hi" is lost
    assert retokenised_prefix("A:\n\n\n", "A:\n\n\n\nHi!<e>") == ["!", "<e>"]
    tokens, spans, _ = row_of("A:\n\n\n", "\nHi!", straddling="cut")
    assert spans == [["A", ":", "ĊĊ", "Ċ"], ["Ċ", "Hi", "!"], ["<e>"]]


def test_a_prompt_that_ends_in_a_newline_and_an_answer_that_does_not_merge_with_it():
    for straddling in ("keep", "cut"):
        _, spans, row = row_of("A:\n", "Hi!", straddling=straddling)
        assert spans == [["A", ":", "Ċ"], ["Hi", "!"], ["<e>"]]
        assert row["n_straddling"] == 0


def test_a_token_over_several_spans_is_counted_once_and_each_turn_it_reaches_into():
    vocabulary = spelled_out(TOKENS, MERGES, "<e>")
    newlines = [
        ("A", "template", "", -1),
        ("\n", "generation_prompt", "assistant", 0),
        ("\n", "content", "assistant", 0),
        ("\n", "generation_prompt", "assistant", 1),
        ("\n", "content", "assistant", 1),
    ]
    frame = rendered(newlines)
    row = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary).row(0, named=True)
    assert row["input_ids"] == [TOKENS.index("A"), TOKENS.index("ĊĊĊĊ")]
    assert [(span["start"], span["end"]) for span in row["spans"]] == [(0, 1), (1, 2), (2, 2), (2, 2), (2, 2)]
    assert (row["n_straddling"], row["proof"]["n_straddling_turns"]) == (1, 2)
    out = tokenize_conversations(frame, Tokenize(straddling="cut"), vocabulary=vocabulary)
    assert [TOKENS[i] for i in out["input_ids"][0]] == ["A", "Ċ", "ĊĊ", "Ċ"]
    assert [(span["start"], span["end"]) for span in out["spans"][0]] == [(0, 1), (1, 2), (2, 3), (3, 3), (3, 4)]
    assert (out["n_straddling"][0], out["proof"][0]["n_straddling_turns"]) == (1, 0)


def test_a_token_in_the_middle_of_a_turn_straddles_without_touching_its_beginning():
    _, _, row = row_of("A:\n", "H")  # no merge over the edge of the stop
    assert row["n_straddling"] == 0
    vocabulary = spelled_out(TOKENS, MERGES, "<e>")
    split = [("A:", "generation_prompt", "assistant", 0), ("H", "scaffold", "assistant", 0)]
    frame = rendered([*split, ("i!", "content", "assistant", 0), ("<e>", "stop", "assistant", 0)])
    row = tokenize_conversations(frame, Tokenize(straddling="cut"), vocabulary=vocabulary).row(0, named=True)
    assert [(span["start"], span["end"]) for span in row["spans"]] == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert (row["n_straddling"], row["proof"]["n_straddling_turns"]) == (1, 0)


def test_rows_placed_by_offsets_count_straddling_tokens_alike():
    # the ▁ that the question spells out is no space: no bytes prove the row
    segments = [
        ("▁a", "content", "user", 0),
        ("a", "generation_prompt", "assistant", 1),
        ("bc", "content", "assistant", 1),
    ]
    row = tokenize_conversations(rendered(segments), Tokenize(), vocabulary=gemma_like()).row(0, named=True)
    assert not row["proof"]["is_proven"]
    assert (row["n_straddling"], row["proof"]["n_straddling_turns"]) == (1, 1)
    plain = [("ca", "content", "user", 0), *segments[1:]]
    row = tokenize_conversations(rendered(plain), Tokenize(), vocabulary=gemma_like()).row(0, named=True)
    assert row["proof"]["is_proven"]
    assert (row["n_straddling"], row["proof"]["n_straddling_turns"]) == (1, 1)


def test_a_turn_cannot_be_cut_off_where_the_tokenizer_puts_a_space_before_everything():
    frame = rendered(chatml(("user", "Hello"), ("assistant", "world")))
    with pytest.raises(TokenizerError, match="straddling = 'keep'"):
        encode_conversations(frame, Tokenize(straddling="cut"), sentencepiece_like())
    questions = rendered(chatml(("user", "Hello")))
    assert encode_conversations(questions, Tokenize(straddling="cut"), sentencepiece_like()).height == 1


def test_a_report_counts_rows_and_tokens():
    vocabulary = spelled_out(TOKENS, MERGES, "<e>")
    turn = [("A: ", "generation_prompt", "assistant", 0), ("Hi", "content", "assistant", 0)]
    spells = [("A<e>", "content", "user", 0), *turn]
    frame = rendered(turn, turn, spells)
    # "<" and "e" are no tokens of this vocabulary: what spells the control token cannot be encoded as text
    out = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary)
    assert report_tokens(out, frame, Tokenize()) == {
        "rows/proven": 2,
        "rows/by_offsets": 0,
        "rows/guarded": 0,
        "straddling": 2,
        "straddling/turn_start": 2,
        "mismatched_shards": 0,
        "shards_without_gigatoken": 1,
    }


piece = st.text(st.characters(exclude_categories=("Cs",)), max_size=6) | st.sampled_from([*SPECIALS, "\n", " ", "  \n"])
said = st.lists(piece, min_size=1, max_size=5).map("".join).filter(bool)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(said, said), min_size=1, max_size=3), st.sampled_from(["\n", " ", ": ", "|>"]))
def test_cut_turns_are_the_tokens_of_their_text_alone(turns, header):
    vocabulary = byte_level()
    engine = engine_for(vocabulary, "auto")
    segments = []
    for number, (question, answer) in enumerate(turns):
        segments += [
            ("<|im_start|>", "template", "", -1),
            (question, "content", "user", 2 * number),
            (f"assistant{header}", "generation_prompt", "assistant", 2 * number + 1),
            (answer, "content", "assistant", 2 * number + 1),
            ("<|im_end|>", "stop", "assistant", 2 * number + 1),
        ]
    frame = rendered(segments)
    row = encode_conversations(frame, Tokenize(straddling="cut"), vocabulary).row(0, named=True)
    assert row["drop_reason"] is None
    assert engine.oracle.decode(row["input_ids"], skip_special_tokens=False) == frame["text"][0]
    for span, (text, name, *_) in zip(row["spans"], segments, strict=True):
        if name == "content" and span["role"] == "assistant":
            ids = row["input_ids"][span["start"] : span["end"]]
            assert engine.spellings.spell(ids).decode() == text
            if not any(special in text for special in SPECIALS):
                assert ids == engine.oracle.encode(text, add_special_tokens=False).ids
    assert row["proof"]["n_straddling_turns"] == 0
    kept = encode_conversations(frame, Tokenize(), vocabulary).row(0, named=True)
    assert kept["drop_reason"] is None
    assert engine.oracle.decode(kept["input_ids"], skip_special_tokens=False) == frame["text"][0]
