"""Two engines with one result: `tokenizers`, the law, and gigatoken, many times faster where it proves itself equal."""

import functools
import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.assets import Vocabulary
from schemas.errors import GateError

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


class TokenizerError(GateError):
    """The tokenizer cannot be used; the text says why and what to do."""


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
    normal_form: str | None
    is_lossless: bool
    _json: dict[str, Any] = field(repr=False)

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
        others = [token for token in self._json.get("added_tokens") or [] if token["content"] not in self.controls]
        return _load(self._json | {"added_tokens": others})

    def keeps_text(self, texts: pl.Series) -> NDArray[np.bool_]:
        """Return, per row, whether token byte lengths can be added up to positions in the text."""
        if not self.is_lossless:
            return np.zeros(len(texts), np.bool_)
        if self.normal_form is None:
            return np.ones(len(texts), np.bool_)
        normalised = pl.select((texts == texts.str.normalize(self.normal_form)).fill_null(value=False)).to_series()  # type: ignore[arg-type]
        return normalised.to_numpy().copy()


@functools.lru_cache(maxsize=4)
def engine_for(vocabulary: Vocabulary, engine: str) -> Engine:
    """Return the engine for `vocabulary`. Raises TokenizerError if gigatoken is demanded and unfit."""
    try:
        settings = msgspec.json.decode(vocabulary.tokenizer_json)
    except msgspec.DecodeError as error:
        raise TokenizerError(f"tokenizer.json is not valid JSON: {error}") from None
    # Special tokens are the template's business, and trimmed offsets would move a leading space out of its span.
    settings |= {"post_processor": None, "truncation": None, "padding": None}
    oracle = _load(settings)
    kind = _kind(settings)
    fast = None if engine == "tokenizers" else _prove_equal(settings, oracle)
    if engine == "gigatoken" and fast is None:
        raise TokenizerError(
            "[tokenize] engine = 'gigatoken': gigatoken does not support this tokenizer or disagrees with `tokenizers` "
            "on the probe texts; use engine = 'auto'"
        )
    added = {str(token["content"]): token for token in settings.get("added_tokens") or []}
    # The unknown token is not one: it is what the tokenizer itself makes of a character it has never seen.
    unknown = settings.get("model", {}).get("unk_token")
    controls = {
        text: int(token["id"])
        for text, token in added.items()
        if (token.get("special") or text in vocabulary.control_tokens) and text != unknown
    }
    byte_lengths, is_added = _tables(oracle, kind, {text: int(token["id"]) for text, token in added.items()})
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
        normal_form=_normal_form(settings),
        is_lossless=kind != "other",
        _json=settings,
    )


def _load(settings: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(msgspec.json.encode(settings).decode())
    except BaseException as error:  # noqa: BLE001 - the Rust side raises bare Exception, and panics are BaseException
        raise TokenizerError(f"tokenizer.json cannot be loaded by `tokenizers`: {error}") from None


def _prove_equal(settings: dict[str, Any], oracle: Any) -> Any | None:
    import gigatoken

    try:
        fast = gigatoken.Tokenizer.from_json(msgspec.json.encode(settings).decode())
        controls = [str(token["content"]) for token in (settings.get("added_tokens") or [])[:64]]
        texts = [*PROBES, "x".join(controls), " ".join(controls), "\n".join(controls)]
        ours = fast.encode_batch_list(texts, parallel=False)
    except BaseException:  # noqa: BLE001 - whatever it cannot do, `tokenizers` does
        return None
    theirs = [row.ids for row in oracle.encode_batch_fast(texts, add_special_tokens=False)]
    return fast if ours == theirs else None


def _kind(settings: dict[str, Any]) -> str:
    """Name how tokens spell text: byte_level, metaspace (with or without a prepended space), or other."""
    parts = [*_parts(settings.get("normalizer")), *_parts(settings.get("pre_tokenizer"))]
    types = {part.get("type") for part in parts}
    normalizers = {part.get("type") for part in _parts(settings.get("normalizer"))}
    if settings.get("model", {}).get("type") != "BPE":
        return "other"
    if "ByteLevel" in types and normalizers <= {"NFC"}:
        level = next(part for part in parts if part.get("type") == "ByteLevel")
        return "other" if level.get("add_prefix_space") else "byte_level"
    if "Metaspace" not in types and normalizers <= {"Prepend", "Replace"} and settings["model"].get("byte_fallback"):
        return "metaspace_prepended" if "Prepend" in normalizers else "metaspace"
    return "other"


def _parts(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    if component is None:
        return []
    if component.get("type") == "Sequence":
        inner = component.get("normalizers") or component.get("pretokenizers") or []
        return [part for item in inner for part in _parts(item)]
    return [component]


def _normal_form(settings: dict[str, Any]) -> str | None:
    types = [part.get("type") for part in _parts(settings.get("normalizer"))]
    return "NFC" if "NFC" in types else None


def _tables(oracle: Any, kind: str, added: dict[str, int]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
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
    for token, i in added.items():
        lengths[i] = len(token.encode())
        is_added[i] = True
    return lengths, is_added
