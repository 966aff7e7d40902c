"""Tokens that a template declares, added to a tokenizer.json: `tokenizers` gives them the ids that were promised."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from stages.tokenize.definition import Definition, TokenizerError

LETTERS = {letter: i for i, letter in enumerate("abcdefgh")}


def bpe(*special: str) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return tokenizer


KINDS = {
    "bpe": bpe("<s>", "</s>"),
    "wordlevel": Tokenizer(models.WordLevel(LETTERS | {"<x>": 8}, unk_token="a")),
    "wordpiece": Tokenizer(models.WordPiece(LETTERS, unk_token="a")),
    "unigram": Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("<x>", -2.0)], unk_id=0)),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_new_tokens_get_the_ids_that_the_library_gives_them(kind: str):
    old = KINDS[kind]
    given = ("<s>", "<x>", "<y>", "<x>")
    data, new = Definition(old.to_str().encode()).with_special(given)
    tokenizer = Tokenizer.from_str(data.decode())
    known = set(old.get_vocab(with_added_tokens=True))
    assert list(new) == [text for text in ("<s>", "<x>", "<y>") if text not in known]
    assert sorted(new.values()) == list(range(old.get_vocab_size(), old.get_vocab_size() + len(new)))
    assert {text: tokenizer.token_to_id(text) for text in new} == new
    assert all(token.special for token in Definition(data).added_tokens.values())
    for text in ("<s>", "<x>", "<y>"):
        assert tokenizer.encode(f"a{text}a", add_special_tokens=False).ids.count(tokenizer.token_to_id(text)) == 1
    old.add_special_tokens(["<s>", "<x>", "<y>"])
    assert old.get_vocab() == tokenizer.get_vocab()


def test_a_token_of_the_vocabulary_keeps_its_id_and_becomes_special():
    data, new = Definition(KINDS["wordlevel"].to_str().encode()).with_special(["<x>"])
    assert new == {}
    assert Definition(data).added_tokens["<x>"].id == 8


def test_nothing_else_changes():
    raw = bpe("<s>").to_str().encode()
    data, new = Definition(raw).with_special(["<s>", "<new>"])
    assert new == {"<new>": 257}
    before, after = json.loads(raw), json.loads(data)
    assert after.pop("added_tokens")[:-1] == before.pop("added_tokens")
    assert after == before


def test_a_vocabulary_whose_next_id_is_taken_is_refused():
    raw = Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a")).to_str().encode()
    with pytest.raises(TokenizerError, match=r"'<s>' cannot be added, .* 2 tokens have ids up to 7 .* from 2"):
        Definition(raw).with_special(["<s>"])


@given(st.lists(st.text("<>ab|é▁", min_size=1, max_size=6), max_size=6))
def test_any_token_can_be_added_and_is_found_whole(texts: list[str]):
    data, new = Definition(bpe().to_str().encode()).with_special(texts)
    tokenizer = Tokenizer.from_str(data.decode())
    for text in texts:
        assert tokenizer.encode(text, add_special_tokens=False).ids == [tokenizer.token_to_id(text)]
    assert {text: tokenizer.token_to_id(text) for text in new} == new
