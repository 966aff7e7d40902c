"""Compiled: UTF-8 text to token hashes."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.signatures.alphabet import IGNORED, KIND_SHIFT, MARK, SEPARATOR, SINGLE, WORD

_FOLDED = (1 << KIND_SHIFT) - 1
_CLOSED = -1  # no token is being read
# odd 64-bit constants: the golden ratio, and primes of xxHash and MurmurHash3
_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)
_K3 = np.uint64(0x87C37B91114253D5)


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def mix64(h: Any) -> Any:
    """Finish a 64-bit hash as MurmurHash3 does: every bit in weighs on every bit out."""
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def tokenize_message(
    text: NDArray[np.uint8], start: int, end: int, entries: NDArray[np.uint32], tokens: NDArray[np.uint64], n: int
) -> int:
    """Append the tokens of text[start:end] to tokens[n:] and return their new number.

    A token is two 64-bit hashes of its folded code points: `tokens` has the shape (capacity, 2), and room for one token
    per byte. `entries` is the alphabet. The text is valid UTF-8, as Arrow and Polars guarantee.
    """
    open_kind = _CLOSED
    h1 = h2 = np.uint64(0)
    at = start
    while at < end:
        point, width = _decode(text, at)
        at += width
        entry = entries[point]
        kind = int(entry >> np.uint32(KIND_SHIFT))
        if kind == IGNORED:
            continue
        if open_kind != _CLOSED and (kind >= SINGLE or (kind == WORD and open_kind == SINGLE)):
            tokens[n, 0] = mix64(h1)
            tokens[n, 1] = mix64(h2)
            n += 1
            open_kind = _CLOSED
        if kind == SEPARATOR:
            continue
        if open_kind == _CLOSED:
            open_kind = WORD if kind == MARK else kind
            h1 = _K2
            h2 = _K1
        folded = np.uint64(entry & np.uint32(_FOLDED))
        h1 = (h1 ^ folded) * _K1
        h2 = (h2 + folded) * _K3
        # the rest of an ASCII word, without the general case's branches; an entry of kind WORD (0) is its code point
        while kind == WORD and at < end and text[at] < 0x80 and entries[text[at]] >> np.uint32(KIND_SHIFT) == WORD:
            folded = np.uint64(entries[text[at]])
            h1 = (h1 ^ folded) * _K1
            h2 = (h2 + folded) * _K3
            at += 1
    if open_kind != _CLOSED:
        tokens[n, 0] = mix64(h1)
        tokens[n, 1] = mix64(h2)
        n += 1
    return n


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _decode(text: NDArray[np.uint8], at: int) -> tuple[Any, int]:
    """Return the code point that starts at a byte, and its number of bytes."""
    lead = np.uint32(text[at])
    if lead < 0x80:
        return lead, 1
    second = np.uint32(text[at + 1] & 0x3F)
    if lead < 0xE0:
        return np.uint32((lead & 0x1F) << 6 | second), 2
    third = np.uint32(text[at + 2] & 0x3F)
    if lead < 0xF0:
        return np.uint32((lead & 0x0F) << 12 | second << 6 | third), 3
    return np.uint32((lead & 0x07) << 18 | second << 12 | third << 6 | np.uint32(text[at + 3] & 0x3F)), 4
