"""The alphabet: what every code point folds to, and what it does to the token being read."""

from functools import cache
from itertools import chain
from typing import Final
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


@cache
def code_points() -> NDArray[np.uint32]:
    """Return the entry of every code point: shape (0x110000,), 4.4 MB, built once per process in some 30 ms."""
    entries = np.arange(0x110000, dtype=np.uint32) | np.uint32(SINGLE << KIND_SHIFT)
    entries[0xAC00:0xD7A4] &= np.uint32((1 << KIND_SHIFT) - 1)  # Hangul is written with spaces: WORD is 0
    starts = (0, *(end for _, end in _REGULAR))
    ends = (*(start for start, _ in _REGULAR), _IRREGULAR_END)
    irregular = list(chain.from_iterable(map(range, starts, ends)))
    entries[irregular] = [entry(point) for point in irregular]
    entries.flags.writeable = False
    return entries


def entry(point: int) -> int:
    """Return kind << 24 | folded code point: NFKC and lower case, each where its result is one code point."""
    character = normalize("NFKC", chr(point))
    character = (character if len(character) == 1 else chr(point)).lower()
    folded = ord(character) if len(character) == 1 else point
    return _kind(folded) << KIND_SHIFT | folded


def _kind(point: int) -> int:
    group = category(chr(point))
    if group[0] in "LN":
        return SINGLE if any(start <= point < end for start, end in UNSPACED) else WORD
    if group[0] == "M":
        return IGNORED if any(point in selectors for selectors in _SELECTORS) else MARK
    if group == "Cf":
        return SEPARATOR if point == _ZERO_WIDTH_SPACE else IGNORED
    if group[0] in "ZP" or group == "Cc" or (group == "Sk" and point not in _EMOJI_TONES):
        return SEPARATOR
    return SINGLE
