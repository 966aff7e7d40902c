"""Two engines with one result: `tokenizers`, the law, and gigatoken, many times faster where it proves itself equal."""

import functools
import re
import unicodedata
from collections.abc import Callable
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
    is_metaspace: bool
    is_lossless: bool
    definition: Definition
    guards: Any = None
    """What stages.tokenize.guard keeps: slow to make, and rarely needed."""

    def encode(self, texts: list[str], *, verify: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (offsets, ids) of `texts`; the first `verify` rows of gigatoken's ids are compared with the oracle's.

        Where they differ, all of these texts are encoded by the oracle; no other call is touched by it, so that the
        result depends on `texts` alone. Nothing is added: beginning and end tokens stand exactly where the text has
        them.
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
                return self._encode_by_oracle(texts)
        return offsets, ids

    def _encode_by_oracle(self, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = [row.ids for row in self.oracle.encode_batch_fast(texts, add_special_tokens=False)]
        offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        ids = np.fromiter((i for row in rows for i in row), np.int64, count=int(offsets[-1]))
        return offsets, ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return (ids, first and last character (exclusive) of each token) of one text, by the oracle."""
        encoding = self.oracle.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def keeps_text(self, texts: list[str]) -> NDArray[np.bool_]:
        """Return, per row, whether token byte lengths can be added up to positions in the text."""
        keeps: Callable[[str], bool]
        if self.is_lossless and self.is_metaspace:
            keeps = _lacks_metaspace
        elif self.is_lossless and self.normal_form:
            keeps = functools.partial(unicodedata.is_normalized, self.normal_form)
        else:
            return np.full(len(texts), self.is_lossless)
        return np.fromiter(map(keeps, texts), np.bool_, len(texts))


def _lacks_metaspace(text: str) -> bool:
    return "▁" not in text  # the text's own would count as a space


@functools.lru_cache(maxsize=4)
def engine_for(vocabulary: Vocabulary, engine: str) -> Engine:
    """Return the engine for `vocabulary`.

    Raises TokenizerError if gigatoken is demanded and unfit, or if the file and `tokenizers` disagree on an id.
    """
    definition = Definition(vocabulary.tokenizer_json)
    text = definition.to_json()
    oracle = load(text)
    _check_ids(definition, oracle)
    kind = _kind(definition)
    fast = None if engine == "tokenizers" else _prove_equal(text, definition, oracle)
    if engine == "gigatoken" and fast is None:
        raise TokenizerError(
            "[tokenize] engine = 'gigatoken': gigatoken does not support this tokenizer or disagrees with `tokenizers` "
            "on the probe texts; use engine = 'auto'"
        )
    controls = {text: definition.added_tokens[text].id for text in definition.controls(vocabulary.control_tokens)}
    byte_lengths, is_added = _tables(oracle, kind, definition, controls)
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
        is_metaspace=kind.startswith("metaspace"),
        is_lossless=kind != "other",
        definition=definition,
    )


def load(text: str) -> Any:
    """Return the `tokenizers.Tokenizer` of a tokenizer.json. Raises TokenizerError where it is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise TokenizerError(f"tokenizer.json cannot be loaded by `tokenizers`: {error}") from None


def _check_ids(definition: Definition, oracle: Any) -> None:
    """Raise TokenizerError unless each added token has the id that the file states.

    `tokenizers` numbers added tokens itself, in the order of the file: those that are not in the vocabulary follow it.
    """
    for content, token in definition.added_tokens.items():
        if (found := oracle.token_to_id(content)) != token.id:
            raise TokenizerError(
                f"tokenizer.json: the added token {content!r} has the id {token.id} in the file, but `tokenizers` gives "
                f"it {found}, for added tokens follow the vocabulary in the order of the file, without a gap. To keep "
                "the model's ids, list a placeholder added token for each id that is missing before it; to take the ids "
                "of `tokenizers`, write the file anew with Tokenizer.from_file(path).save(path)"
            )


def _prove_equal(text: str, definition: Definition, oracle: Any) -> Any | None:
    import gigatoken

    # those with flags first: they are found by rules of their own
    added = sorted(definition.added_tokens.values(), key=lambda token: token.is_literal)[:64]
    tokens = [token.content for token in added]

    try:
        fast = gigatoken.Tokenizer.from_json(text)
        texts = [*PROBES, "x".join(tokens), " ".join(tokens), "\n".join(tokens)]
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
        if "Prepend" not in normalizers:
            return "metaspace"
        # Only around tokens cut out before normalisation is it known which stretch gets a space.
        return "other" if any(token.normalized for token in definition.added_tokens.values()) else "metaspace_prepended"
    return "other"


def _tables(
    oracle: Any, kind: str, definition: Definition, controls: dict[str, int]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
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
        is_added[added.id] = True
        is_unknown = content == definition.model.unk_token and content not in controls
        if is_unknown or (kind != "byte_level" and _BYTE_TOKEN.fullmatch(content)):
            lengths[added.id] = -1  # spelled out, or made of other characters: the ids do not say which
        elif kind == "byte_level":
            lengths[added.id] = len(content.encode())
        else:
            lengths[added.id] = len(content.replace("▁", " ").encode())  # made of spaces, where the text has no ▁
    return lengths, is_added
