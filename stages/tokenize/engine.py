"""Two engines with one result: `tokenizers`, the law, and gigatoken, many times faster where it proves itself equal."""

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from schemas.assets import Vocabulary
from stages.tokenize.definition import Definition, TokenizerError

PROBES: Final = (
    "",
    " ",
    "Hello, world!",
    "  two  spaces\n\n\nand\ttabs \r\n",
    "don't WON'T I'll they've 1234567 3.14 1,000",
    "价格是一百二十三元。「你好」，世界！",
    "これはテストです。カタカナ",
    "안녕하세요 세계",
    "Привет, мир! Γειά σου Κόσμε",
    "مرحبا بالعالم שלום עולם",
    "नमस्ते दुनिया สวัสดีชาวโลก",
    "e\u0301 naïve café ﬁ Å ａｂｃ",
    "👍🏽 👩\u200d👩\u200d👧 🇨🇳 \u00a0\u2028\u3000\ufeff",
    "def f(x):\n    return {'a': [1, 2], \"b\": x ** 2}  # comment\n",
    "https://example.org/?q=1&r=%20#x user@example.org C:\\path\\file",
    "\x00\x01\x7f\u0080 \U0001f600\U000e0001 \U0010ffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
)
"""Texts on which the engines must agree before gigatoken is used: scripts, emoji, whitespace runs, digits, code."""

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(kw_only=True)
class Engine:
    """A vocabulary ready to encode, and what is known of its tokens.

    `byte_lengths[i]` is the number of UTF-8 bytes of text that token i stands for (-1: not known), `is_added[i]` says
    that i is an added token and `is_control[i]` that only a template may write it, and `prepends` that the first token
    after an added one carries a space the text does not have.
    """

    oracle: Any
    fast: Any | None
    byte_lengths: NDArray[np.int32]
    is_added: NDArray[np.bool_]
    is_control: NDArray[np.bool_]
    controls: dict[str, int]
    prepends: bool
    normal_form: Literal["NFC"] | None
    is_lossless: bool
    definition: Definition

    def encode(self, texts: list[str], *, verify: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (offsets, ids) of `texts`; the first `verify` rows of gigatoken's ids are compared with the oracle's.

        Nothing is added: beginning and end tokens stand exactly where the text has them.
        """
        if self.fast is None:
            return self._encode_by_oracle(texts)
        encoded = self.fast.encode_batch(texts, parallel=False).layout.to_ListOffsetArray64(True)
        offsets = np.asarray(encoded.offsets.data, np.int64)
        ids = np.asarray(encoded.content.data).astype(np.int64)
        checked = min(verify, len(texts))
        if checked:
            expected_offsets, expected = self._encode_by_oracle(texts[:checked])
            if not np.array_equal(expected_offsets, offsets[: checked + 1]) or not np.array_equal(
                expected, ids[: offsets[checked]]
            ):
                self.fast = None  # it has lost our trust for the rest of this process
                return self._encode_by_oracle(texts)
        return offsets, ids

    def _encode_by_oracle(self, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = [row.ids for row in self.oracle.encode_batch_fast(texts, add_special_tokens=False)]
        offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        ids = np.fromiter((i for row in rows for i in row), np.int64, count=int(offsets[-1]))
        return offsets, ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[int]]:
        """Return (ids, first character of each token) of one text, by the oracle."""
        encoding = self.oracle.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    @functools.cached_property
    def without_controls(self) -> Any:
        """The oracle without its control tokens: text that spells one is encoded as any other text."""
        return _load(self.definition.to_json(without=frozenset(self.controls)))

    def keeps_text(self, texts: list[str]) -> NDArray[np.bool_]:
        """Return, per row, whether token byte lengths can be added up to positions in the text."""
        if not self.is_lossless or self.normal_form is None:
            return np.full(len(texts), self.is_lossless)
        is_normal = functools.partial(unicodedata.is_normalized, self.normal_form)
        return np.fromiter(map(is_normal, texts), np.bool_, len(texts))


@functools.lru_cache(maxsize=4)
def engine_for(vocabulary: Vocabulary, engine: str) -> Engine:
    """Return the engine for `vocabulary`. Raises TokenizerError if gigatoken is demanded and unfit."""
    definition = Definition(vocabulary.tokenizer_json)
    text = definition.to_json()
    oracle = _load(text)
    kind = _kind(definition)
    fast = None if engine == "tokenizers" else _prove_equal(text, list(definition.added_tokens)[:64], oracle)
    if engine == "gigatoken" and fast is None:
        raise TokenizerError(
            "[tokenize] engine = 'gigatoken': gigatoken does not support this tokenizer or disagrees with `tokenizers` "
            "on the probe texts; use engine = 'auto'"
        )
    # The unknown token is no control: it is what the tokenizer itself makes of a character it has never seen.
    controls = {
        content: token.id
        for content, token in definition.added_tokens.items()
        if (token.special or content in vocabulary.control_tokens) and content != definition.model.unk_token
    }
    byte_lengths, is_added = _tables(oracle, kind, definition)
    is_control = np.zeros_like(is_added)
    is_control[list(controls.values())] = True
    return Engine(
        oracle=oracle,
        fast=fast,
        byte_lengths=byte_lengths,
        is_added=is_added,
        is_control=is_control,
        controls=controls,
        prepends=kind == "metaspace_prepended",
        normal_form="NFC" if any(part.get("type") == "NFC" for part in definition.components("normalizer")) else None,
        is_lossless=kind != "other",
        definition=definition,
    )


def _load(text: str) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise TokenizerError(f"tokenizer.json cannot be loaded by `tokenizers`: {error}") from None


def _prove_equal(text: str, controls: list[str], oracle: Any) -> Any | None:
    import gigatoken

    try:
        fast = gigatoken.Tokenizer.from_json(text)
        texts = [*PROBES, "x".join(controls), " ".join(controls), "\n".join(controls)]
        ours = fast.encode_batch_list(texts, parallel=False)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return None
    theirs = [row.ids for row in oracle.encode_batch_fast(texts, add_special_tokens=False)]
    return fast if ours == theirs else None


def _kind(definition: Definition) -> str:
    """Name how tokens spell text: byte_level, metaspace (with or without a prepended space), or other."""
    if definition.model.type != "BPE":
        return "other"
    normalizers = {part.get("type") for part in definition.components("normalizer")}
    splitters = definition.components("pre_tokenizer")
    levels = [part for part in splitters if part.get("type") == "ByteLevel"]
    if levels and normalizers <= {"NFC"}:
        return "other" if levels[0].get("add_prefix_space") else "byte_level"
    has_metaspace = any(part.get("type") == "Metaspace" for part in splitters)
    if definition.model.byte_fallback and not has_metaspace and normalizers <= {"Prepend", "Replace"}:
        return "metaspace_prepended" if "Prepend" in normalizers else "metaspace"
    return "other"


def _tables(oracle: Any, kind: str, definition: Definition) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    vocabulary = oracle.get_vocab(with_added_tokens=True)
    size = max(vocabulary.values(), default=-1) + 1
    lengths = np.full(size, -1, np.int32)
    for token, i in vocabulary.items():
        if kind == "byte_level":
            lengths[i] = len(token)  # each character stands for one byte
        elif _BYTE_TOKEN.fullmatch(token):
            lengths[i] = 1
        else:
            lengths[i] = len(token.replace("▁", " ").encode())
    is_added = np.zeros(size, np.bool_)
    for content, added in definition.added_tokens.items():
        lengths[added.id] = len(content.encode())
        is_added[added.id] = True
    return lengths, is_added
