"""What characters are: of which script, symbols or blanks. Every code point has one class, and a text is counted by classes."""

import sys
import unicodedata
from functools import lru_cache
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

ScriptName = Literal[
    "han", "cjk", "kana", "hangul", "latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai"
]

_HAN: Final = ((0x4E00, 0x9FFF),)
_KANA: Final = ((0x3041, 0x309F), (0x30A0, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1B000, 0x1B16F))
_HANGUL: Final = ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF))
_RANGES: Final[dict[ScriptName, tuple[tuple[int, int], ...]]] = {
    "han": _HAN,
    "kana": _KANA,
    "hangul": _HANGUL,
    # radicals, ideographs with all extensions and compatibility forms; punctuation; full-width forms
    "cjk": (
        *_HAN,
        *_KANA,
        *_HANGUL,
        (0x2E80, 0x303F),
        (0x3100, 0x312F),
        (0x3190, 0x4DBF),
        (0xF900, 0xFAFF),
        (0xFE30, 0xFE4F),
        (0xFF00, 0xFFEF),
        (0x20000, 0x3FFFF),
    ),
    "latin": ((0x00, 0x24F), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF), (0xAB30, 0xAB6F), (0xFB00, 0xFB06)),
    "cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x870, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
    "hebrew": ((0x590, 0x5FF), (0xFB1D, 0xFB4F)),
    "devanagari": ((0x900, 0x97F), (0xA8E0, 0xA8FF)),
    "thai": ((0xE00, 0xE7F),),
}
"""Blocks of Unicode (its Blocks.txt), first and last code point."""
_WHOLE: Final = frozenset({"han", "cjk", "kana", "hangul"})
"""Scripts of which all that the blocks hold counts; of the others only letters and marks."""
_SYMBOLS: Final = len(_RANGES)  # bits of a code point's flags: one a script, then these
_BLANK: Final = _SYMBOLS + 1
_NO_SYMBOL: Final = frozenset("LNMZ")


class Classes(NamedTuple):
    """The classes of all code points."""

    of: NDArray[np.uint8]
    """Of each code point: its class."""
    scripts: dict[ScriptName, NDArray[np.bool_]]
    """Of each script: which classes are of it."""
    symbols: NDArray[np.bool_]
    """Which classes are neither letter, number, mark nor space (Unicode's categories L, N, M and Z, and the blanks)."""
    blank: NDArray[np.bool_]
    """Which classes are blanks: white space, line ends included."""


@lru_cache(maxsize=1)
def classes() -> Classes:
    """Return the classes of all code points; Unicode's tables are Python's."""
    flags = np.zeros(sys.maxunicode + 1, np.uint16)
    for bit, name in enumerate(get_args(ScriptName)):
        for first, last in _RANGES[name]:
            codes = range(first, last + 1)
            is_of = [name in _WHOLE or unicodedata.category(chr(code))[0] in "LM" for code in codes]
            flags[codes.start : codes.stop][is_of] |= 1 << bit
    flags[[code for code in range(0x3001) if chr(code).isspace()]] |= 1 << _BLANK
    # nothing is assigned from here to the tags in plane 14, and what is private is no symbol that anyone could know
    known = [*range(0x33480), *range(0xE0000, 0xE0200)]
    is_symbol = [unicodedata.category(chr(code))[0] not in _NO_SYMBOL for code in known]
    flags[np.array(known)[is_symbol]] |= 1 << _SYMBOLS
    flags[0x33480:0xE0000] |= 1 << _SYMBOLS
    flags[0xE0200:] |= 1 << _SYMBOLS
    flags[flags & (1 << _BLANK) != 0] &= ~np.uint16(1 << _SYMBOLS)
    kinds, of = np.unique(flags, return_inverse=True)
    has = {name: kinds & (1 << bit) != 0 for bit, name in enumerate(get_args(ScriptName))}
    return Classes(of.astype(np.uint8), has, kinds & (1 << _SYMBOLS) != 0, kinds & (1 << _BLANK) != 0)
