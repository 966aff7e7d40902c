"""Small tokenizers of every kind, trained or spelled out on the spot."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from schemas.assets import Vocabulary

DATA = Path(__file__).parents[2] / "data" / "tokenizer"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "Hello world, how are you today?",
    "The quick brown fox jumps over the lazy dog.",
    "你好，世界！今天天气很好。",
] * 20


def byte_level() -> Vocabulary:
    return Vocabulary(tokenizer_json=(DATA / "tokenizer.json").read_bytes())


def sentencepiece_like() -> Vocabulary:
    """As Llama 2's: ▁ for spaces, one prepended, bytes for what is unknown."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", *SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    )
    settings = json.loads(tokenizer.to_str())
    # byte tokens are ordinary ones, as in the real thing
    settings["added_tokens"] = [token for token in settings["added_tokens"] if not token["content"].startswith("<0x")]
    return Vocabulary(tokenizer_json=json.dumps(settings).encode())


def word_piece(*, lowercase: bool = False) -> Vocabulary:
    """As BERT's: words, white space dropped; accents too where it lowercases."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", *SPECIALS], show_progress=False)
    )
    return Vocabulary(tokenizer_json=tokenizer.to_str().encode())


def unigram() -> Vocabulary:
    """As T5's: compatibility forms are normalised away, each stretch begins with a space, what is unknown is one token."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=120, special_tokens=["<unk>", *SPECIALS], unk_token="<unk>", show_progress=False
        ),
    )
    return Vocabulary(tokenizer_json=tokenizer.to_str().encode())


def gemma_like() -> Vocabulary:
    """▁ for spaces, none prepended, and a plain added token ▁▁ that two spaces also make."""
    tokens = ["<unk>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "▁▁", "ab"]
    model = models.BPE(
        {token: i for i, token in enumerate(tokens)},
        [("▁", "▁"), ("a", "b")],
        byte_fallback=True,
        fuse_unk=True,
        unk_token="<unk>",
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    settings = json.loads(tokenizer.to_str())
    settings["added_tokens"] = [
        {"id": tokens.index(text)} | added(text, special=text != "▁▁") for text in ("<unk>", "<eos>", "▁▁")
    ]
    return Vocabulary(tokenizer_json=json.dumps(settings).encode())


def added(content: str, **flags: bool) -> dict[str, Any]:
    """Return an entry of `added_tokens` without its id."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": content} | plain | flags


def with_added(*tokens: dict[str, Any], vocabulary: Vocabulary | None = None, gap: int = 0) -> Vocabulary:
    """Return a tokenizer to which `tokens` are appended, their ids behind a gap."""
    settings = json.loads((vocabulary or byte_level()).tokenizer_json)
    size = Tokenizer.from_str(json.dumps(settings)).get_vocab_size() + gap
    settings["added_tokens"] += [{"id": size + number} | token for number, token in enumerate(tokens)]
    return Vocabulary(tokenizer_json=json.dumps(settings).encode())


def changed(vocabulary: Vocabulary, **sections: Any) -> Vocabulary:
    """Return `vocabulary` with some sections of its tokenizer.json replaced."""
    settings = json.loads(vocabulary.tokenizer_json) | sections
    return Vocabulary(tokenizer_json=json.dumps(settings).encode())


def spelled_out(tokens: list[str], merges: list[tuple[str, str]], *controls: str) -> Vocabulary:
    """Return a byte-level tokenizer of exactly these tokens and merges, whole texts merged without a regex before."""
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(controls))
    return Vocabulary(tokenizer_json=tokenizer.to_str().encode())


KINDS = {
    "byte_level": byte_level,
    "sentencepiece": sentencepiece_like,
    "unigram": unigram,
    "word_piece": word_piece,
    "word_piece_lower": lambda: word_piece(lowercase=True),
}
