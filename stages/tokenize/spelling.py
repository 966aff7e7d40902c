"""The bytes of text that each token stands for, as one flat table."""

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stages.tokenize.definition import Definition

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
METASPACE: Final = "▁"

NEVER: Final = 0
ALWAYS: Final = 1
UNLESS_SPACE: Final = 2
AT_FIRST: Final = 3
"""Whether the first token of a stretch carries a space that the text lacks: never; always; unless the text has one
there; so too, but only at the beginning of the text."""


def _byte_characters() -> dict[str, int]:
    """Return the character that stands for each byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(others)}


BYTE_CHARACTERS: Final = _byte_characters()
_MAPPED: Final = max(map(ord, BYTE_CHARACTERS)) + 1


@dataclass(frozen=True)
class Spellings:
    """Token i stands for the bytes data[starts[i]:starts[i] + lengths[i]]; a length of -1: the id alone does not say."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    data: NDArray[np.uint8]

    def spell(self, ids: NDArray[Any]) -> bytes:
        """Return the bytes of `ids`, those of unknown spelling left out."""
        pieces = [
            self.data[start : start + length]
            for start, length in zip(self.starts[ids].tolist(), self.lengths[ids].tolist(), strict=True)
            if length > 0
        ]
        return np.concatenate(pieces).tobytes() if pieces else b""


def is_byte_level(definition: Definition) -> bool:
    """Return whether each character of a token of the vocabulary stands for one byte."""
    parts = [*definition.components("pre_tokenizer"), *definition.components("normalizer")]
    return any(part.get("type") == "ByteLevel" for part in parts)


def prepends(definition: Definition) -> int:
    """Return whether a stretch of text, as cut out between added tokens, gets a space in front: NEVER, ALWAYS, ..."""
    if any(part.get("type") == "Prepend" for part in definition.components("normalizer")):
        return ALWAYS
    for part in definition.components("pre_tokenizer"):
        if part.get("type") == "Metaspace":
            scheme = part.get("prepend_scheme") or ("always" if part.get("add_prefix_space", True) else "never")
            return {"always": UNLESS_SPACE, "first": AT_FIRST}.get(scheme, NEVER)
        if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
            return UNLESS_SPACE
    return NEVER


def spellings(definition: Definition, vocabulary: dict[str, int], known_controls: dict[str, int]) -> Spellings:
    """Return the spellings of a tokenizer: of its `vocabulary`, and of its added tokens, which go before.

    A byte-level vocabulary is mapped back to bytes; in any other `▁` is a space, `<0xNN>` a byte where the model falls
    back to bytes, and what the model writes to mark the middle or end of a word is taken off. An added token is spelled
    as it is; the unknown token stands for what it replaced, unless it is one of `known_controls`.
    """
    of_added = {token.id: text for text, token in definition.added_tokens.items()}
    size = max([*vocabulary.values(), *of_added], default=-1) + 1
    by_id: list[str] = [""] * size
    for text, i in vocabulary.items():
        by_id[i] = text
    if is_byte_level(definition):
        data, lengths = _from_characters(by_id)
    else:
        data, lengths = _from_texts(definition, by_id)
    starts = np.cumsum(np.concatenate(([0], np.maximum(lengths, 0))), dtype=np.int64)[:-1]
    appended = bytearray()
    for i, text in of_added.items():
        spelled = text
        if not is_byte_level(definition):
            if _BYTE_TOKEN.fullmatch(text):
                lengths[i] = -1  # a byte, or the six characters
                continue
            if by_id[i] == text:
                spelled = text.replace(METASPACE, " ")  # made of spaces, where the text has no ▁
        starts[i] = len(data) + len(appended)
        lengths[i] = len(spelled.encode())
        appended += spelled.encode()
    lengths[_unknown(definition, vocabulary, known_controls)] = -1
    return Spellings(starts, lengths, np.concatenate((data, np.frombuffer(bytes(appended), np.uint8))))


def _unknown(definition: Definition, vocabulary: dict[str, int], known_controls: dict[str, int]) -> list[int]:
    """Return the ids that may stand for any text."""
    found = {definition.model.unk_id} - set(known_controls.values())
    if definition.unknown is not None and definition.unknown not in known_controls:
        token = definition.added_tokens.get(definition.unknown)
        found.add(token.id if token else vocabulary.get(definition.unknown))
    return [i for i in found if i is not None]


def _from_characters(tokens: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return (bytes of all tokens, length of each) of a byte-level vocabulary; -1 where a character is none of the map."""
    lengths = np.fromiter(map(len, tokens), np.int32, len(tokens))
    is_nothing = lengths == 0
    codes = np.frombuffer("".join(tokens).encode("utf-32-le"), np.uint32)
    to_byte = np.full(_MAPPED, -1, np.int16)
    for character, byte in BYTE_CHARACTERS.items():
        to_byte[ord(character)] = byte
    mapped = np.where(codes < _MAPPED, to_byte[np.minimum(codes, _MAPPED - 1)], -1)
    if (mapped < 0).any():
        strange = np.unique(np.searchsorted(np.cumsum(lengths), np.flatnonzero(mapped < 0), side="right"))
        mapped = mapped[~np.isin(np.repeat(np.arange(len(tokens)), lengths), strange)]
        lengths[strange] = -1
    lengths[is_nothing] = -1
    return mapped.astype(np.uint8), lengths


def _from_texts(definition: Definition, tokens: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return (bytes of all tokens, length of each) of a vocabulary whose tokens are text."""
    falls_back = definition.model.byte_fallback
    prefix, suffix = definition.model.continuing_subword_prefix or "", definition.model.end_of_word_suffix or ""
    spelled = []
    for token in tokens:
        if falls_back and (found := _BYTE_TOKEN.fullmatch(token)):
            spelled.append(bytes([int(found[1], 16)]))
        else:
            text = token.removeprefix(prefix).removesuffix(suffix) if prefix or suffix else token
            spelled.append(text.replace(METASPACE, " ").encode())
    lengths = np.fromiter(map(len, spelled), np.int32, len(spelled))
    lengths[lengths == 0] = -1
    return np.frombuffer(b"".join(spelled), np.uint8), lengths
