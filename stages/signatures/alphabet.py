"""The alphabet: what every code point folds to, and what it does to the token being read."""

from functools import cache
from itertools import chain
from typing import Final, NamedTuple
from unicodedata import category, normalize

import numpy as np
from numpy.typing import NDArray

WORD: Final = 0
"""Letters and digits of scripts that write spaces: extend the word."""
MARK: Final = 1
"""Combining marks: extend whatever token they follow."""
SINGLE: Final = 2
"""A token of its own: characters of scripts without spaces, symbols, emoji, code points not (yet) assigned."""
SEPARATOR: Final = 3
"""White space, punctuation, controls: end the token."""
IGNORED: Final = 4
"""Joiners, soft hyphens, direction marks, variation selectors: as if they were not there."""

KIND_SHIFT: Final = 24
"""An entry is kind << 24 | folded code point."""
FOLDED: Final = (1 << KIND_SHIFT) - 1

WORD_RANGES: Final = 3
"""Ranges of ASCII that make words: digits, capitals, small letters."""
SINGLE_RANGES: Final = 5
"""Ranges of ASCII symbols, a group: $ + <=> | ~. Settings that make more tokens of single characters take two groups."""

UNSPACED: Final = (
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x0F00, 0x10A0),  # Tibetan, Myanmar
    (0x1780, 0x1800),  # Khmer
    (0x1950, 0x1AB0),  # Tai Le, New Tai Lue, Buginese, Tai Tham
    (0x1B00, 0x1B80),  # Balinese
    (0x2E80, 0x2FE0),  # radicals
    (0x3005, 0x3008),  # ideographic iteration, closing mark, zero
    (0x3021, 0x3130),  # Hangzhou numerals, kana, Bopomofo
    (0x31A0, 0x3200),  # Bopomofo, kana extensions
    (0x3400, 0xA4D0),  # Han, Yi
    (0xA980, 0xAA00),  # Javanese, Myanmar extension
    (0xAA60, 0xAAE0),  # Myanmar extension, Tai Viet
    (0xF900, 0xFB00),  # compatibility ideographs
    (0xFF66, 0xFFA0),  # half-width kana
    (0x16FE0, 0x18D90),  # Tangut, Khitan
    (0x1AFF0, 0x1B300),  # kana supplements, Nushu
    (0x20000, 0x40000),  # Han
)
_REGULAR: Final = ((0x3400, 0xA000), (0xAC00, 0xD7A4), (0xD800, 0xF900), (0x20000, 0x2F800), (0x2FA20, 0xE0000))
"""Long runs in which code points fold to themselves; looking each one up would take a tenth of a second."""
_IRREGULAR_END: Final = 0xE0200
_EMOJI_TONES: Final = range(0x1F3FB, 0x1F400)
_SELECTORS: Final = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
_ZERO_WIDTH_SPACE: Final = 0x200B


class Rules(NamedTuple):
    """What is folded, and what is a token."""

    folds_case: bool = True
    folds_width: bool = True
    keeps_punctuation: bool = False
    keeps_white_space: bool = False
    by_character: bool = False


class Alphabet(NamedTuple):
    """The rules applied to every code point."""

    entries: NDArray[np.uint32]
    """The entry of each: shape (0x110000,), 4.4 MB."""
    words: NDArray[np.uint8]
    """Ranges of ASCII of kind WORD, each as the 64-fold first byte and the 64-fold distance of the last: (3, 2, 64)."""
    singles: NDArray[np.uint8]
    """Those of kind SINGLE: (5 * groups, 2, 64)."""


@cache
def alphabet(rules: Rules = Rules()) -> Alphabet:  # noqa: B008
    """Return the alphabet of these rules, built once per process in some 40 ms."""
    entries = np.arange(0x110000, dtype=np.uint32) | np.uint32(SINGLE << KIND_SHIFT)
    if not rules.by_character:
        entries[0xAC00:0xD7A4] &= np.uint32(FOLDED)  # Hangul is written with spaces: WORD is 0
    starts = (0, *(end for _, end in _REGULAR))
    ends = (*(start for start, _ in _REGULAR), _IRREGULAR_END)
    irregular = list(chain.from_iterable(map(range, starts, ends)))
    entries[irregular] = [entry(point, rules) for point in irregular]
    entries.flags.writeable = False
    kinds = entries[:0x80] >> KIND_SHIFT
    return Alphabet(entries, _ranges(kinds == WORD, WORD_RANGES), _ranges(kinds == SINGLE, SINGLE_RANGES))


def entry(point: int, rules: Rules = Rules()) -> int:  # noqa: B008
    """Return kind << 24 | folded code point: NFKC and lower case, each where its result is one code point."""
    character = chr(point)
    if rules.folds_width:
        character = _one(normalize("NFKC", character), character)
    if rules.folds_case:
        character = _one(character.lower(), chr(point))
    return _kind(character, rules) << KIND_SHIFT | ord(character)


def _one(folded: str, character: str) -> str:
    return folded if len(folded) == 1 else character


def _kind(character: str, rules: Rules) -> int:
    group, point = category(character), ord(character)
    if group[0] in "LN":
        is_single = rules.by_character or any(start <= point < end for start, end in UNSPACED)
        return SINGLE if is_single else WORD
    if group[0] == "M":
        return IGNORED if any(point in selectors for selectors in _SELECTORS) else MARK
    if group == "Cf":
        return SEPARATOR if point == _ZERO_WIDTH_SPACE else IGNORED
    if character.isspace():
        return SINGLE if rules.keeps_white_space else SEPARATOR
    if group[0] == "P" or (group == "Sk" and point not in _EMOJI_TONES):
        return SINGLE if rules.keeps_punctuation else SEPARATOR
    return SEPARATOR if group[0] == "Z" or group == "Cc" else SINGLE


def _ranges(is_in: NDArray[np.bool_], multiple: int) -> NDArray[np.uint8]:
    """Return the runs of true values, filled up to a multiple with what no UTF-8 text contains."""
    edges = np.flatnonzero(np.diff(is_in, prepend=False, append=False)).reshape(-1, 2)
    ranges = np.full((-(-max(len(edges), 1) // multiple) * multiple, 2), (0xFF, 0), np.uint8)
    ranges[: len(edges)] = np.stack([edges[:, 0], edges[:, 1] - edges[:, 0] - 1], axis=1)
    return np.repeat(ranges[:, :, None], 64, axis=2)
