"""Compiled: UTF-8 text to token hashes, 64 bytes at a time where it is ASCII."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.signatures.alphabet import FOLDED, IGNORED, KIND_SHIFT, MARK, SEPARATOR, SINGLE, WORD, Alphabet
from stages.signatures.machine import bytes_between, leading_zeros, load_byte, load_word, trailing_zeros

U64 = NDArray[np.uint64]

_CLOSED = -1  # no token is being read
_MARKED = -2  # a single character with marks is being read
BLOCK = 64
_REACH = BLOCK + 8  # bytes that are read where a block is: a word of eight may begin at its last byte
_PAGE = 4096  # no machine has smaller pages
# odd 64-bit constants: the golden ratio, and primes of xxHash and MurmurHash3
_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)
_K3 = np.uint64(0x87C37B91114253D5)
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_TOP = np.uint64(63)


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def mix64(h: Any) -> Any:
    """Finish a 64-bit hash as MurmurHash3 does: every bit in weighs on every bit out."""
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def absorb(h: Any, block: Any) -> Any:
    """Take eight more bytes into a hash, a bijection of either argument.

    The second product spreads what the first one left in the highest bits: else a change of the last byte of one block
    could be undone by two bytes of the next.
    """
    h = (h ^ block) * _K1
    h = (h ^ (h >> np.uint64(32))) * _K3
    return h ^ (h >> np.uint64(29))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def tokenize_text(
    start: Any,
    size: int,
    table: Alphabet,
    scratch: NDArray[np.uint8],
    tokens: U64,
    n: int,
) -> int:
    """Append the tokens of the `size` bytes at address `start` to tokens[n:] and return their new number.

    A token is the 64-bit hash of its folded UTF-8 bytes; those of up to eight bytes never share one. `tokens` has room
    for one per byte. The text is valid UTF-8, as Arrow and Polars guarantee. `scratch` has 2 * BLOCK bytes, the upper half zero.

    ASCII is read by the block: which bytes belong to words and which are tokens of their own are two masks of 64 bits,
    so the work is by token. A token that touches the end of a block, or a character beyond ASCII, is read again from
    its beginning by the next block, or character by character. A block may be loaded beyond the end of the text if it
    does not cross into another page; what is read there is masked.
    """
    entries, ranges, n_word_ranges = table.entries, table.ranges, table.n_word_ranges
    at = start
    end = start + np.uint64(size)
    # A-Z and 0-9 differ from their folded forms in this bit alone, if at all
    fold = np.uint64(0x2020202020202020) if entries[65] & np.uint32(FOLDED) == 97 else np.uint64(0)
    while at < end:
        left = end - at
        base = at
        if left < np.uint64(_REACH) and (at & np.uint64(_PAGE - 1)) > np.uint64(_PAGE - _REACH):
            base = np.uint64(scratch.ctypes.data)
            for i in range(min(left, np.uint64(BLOCK))):
                scratch[i] = np.uint8(load_byte(at + np.uint64(i)))
        limit = min(trailing_zeros(bytes_between(base, np.uint8(0x80), np.uint8(0x7F))), left)
        valid = _ONES if limit >= np.uint64(BLOCK) else (np.uint64(1) << limit) - np.uint64(1)
        words = singles = np.uint64(0)
        for i in range(n_word_ranges):
            words |= bytes_between(base, ranges[i, 0], ranges[i, 1])
        for i in range(n_word_ranges, len(ranges)):
            singles |= bytes_between(base, ranges[i, 0], ranges[i, 1])
        words &= valid
        singles &= valid
        firsts = (words & ~(words << np.uint64(1))) | singles
        is_plain = limit == np.uint64(BLOCK)  # what follows is read by the block, too
        step = min(limit, np.uint64(BLOCK))
        if step < left and step > np.uint64(0) and ((words | singles) >> (step - np.uint64(1))) & np.uint64(1):
            step = _TOP - leading_zeros(firsts)
            firsts ^= np.uint64(1) << step
            is_plain = is_plain and step > np.uint64(0)
        while firsts:
            first = trailing_zeros(firsts)
            firsts &= firsts - np.uint64(1)
            length = trailing_zeros(~(words >> first))
            block = load_word(base + first)
            if length == np.uint64(0):
                h = absorb(_K2, np.uint64(entries[block & np.uint64(0x7F)] & np.uint32(FOLDED)))
            else:
                h = _K2
                while length > np.uint64(8):
                    h = absorb(h, block | fold)
                    first += np.uint64(8)
                    length -= np.uint64(8)
                    block = load_word(base + first)
                h = absorb(h, (block | fold) & (_ONES >> (np.uint64(64) - length * np.uint64(8))))
            tokens[n] = h
            n += 1
        at += step
        if not is_plain and at < end:
            at, n = _read_characters(at, end, entries, tokens, n)
    return n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _read_characters(at: Any, end: Any, entries: NDArray[np.uint32], tokens: U64, n: int) -> tuple[Any, int]:
    """Read characters until, after the first, an ASCII one belongs to no token that is being read.

    A single character is a token as soon as it is read; a mark takes it back.
    """
    begin = at
    open_kind = _CLOSED
    h = pending = filled = np.uint64(0)
    while at < end:
        point, width = _decode(at)
        entry = entries[point]
        kind = int(entry >> np.uint32(KIND_SHIFT))
        if kind == IGNORED:
            at += width
            continue
        if kind != MARK and open_kind != _CLOSED and not (kind == WORD and open_kind == WORD):
            if open_kind != SINGLE:
                tokens[n] = absorb(h, pending) if filled else h
                n += 1
            open_kind = _CLOSED
        if open_kind == _CLOSED and point < np.uint64(0x80) and at != begin:
            return at, n
        at += width
        if kind == SEPARATOR:
            continue
        code, length = _encode(np.uint64(entry & np.uint32(FOLDED)))
        if kind == SINGLE:
            open_kind = SINGLE
            h, pending, filled = _K2, code, length
            tokens[n] = absorb(h, pending)
            n += 1
            continue
        if open_kind == _CLOSED:
            open_kind = WORD
            h, pending, filled = _K2, np.uint64(0), np.uint64(0)
        elif open_kind == SINGLE:
            open_kind = _MARKED
            n -= 1
        pending |= code << (filled * np.uint64(8))
        filled += length
        if filled >= np.uint64(8):
            h = absorb(h, pending)
            filled -= np.uint64(8)
            pending = code >> ((length - filled) * np.uint64(8))
    if open_kind in (WORD, _MARKED):
        tokens[n] = absorb(h, pending) if filled else h
        n += 1
    return at, n


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _decode(at: Any) -> tuple[Any, Any]:
    """Return the code point at an address, and its number of bytes."""
    lead = load_byte(at)
    if lead < np.uint64(0x80):
        return lead, np.uint64(1)
    second = load_byte(at + np.uint64(1)) & np.uint64(0x3F)
    if lead < np.uint64(0xE0):
        return (lead & np.uint64(0x1F)) << np.uint64(6) | second, np.uint64(2)
    third = load_byte(at + np.uint64(2)) & np.uint64(0x3F)
    if lead < np.uint64(0xF0):
        return (lead & np.uint64(0x0F)) << np.uint64(12) | second << np.uint64(6) | third, np.uint64(3)
    fourth = load_byte(at + np.uint64(3)) & np.uint64(0x3F)
    head = (lead & np.uint64(0x07)) << np.uint64(18) | second << np.uint64(12)
    return head | third << np.uint64(6) | fourth, np.uint64(4)


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _encode(point: Any) -> tuple[Any, Any]:
    """Return the UTF-8 bytes of a code point, the first the lowest, and their number."""
    last = np.uint64(0x80) | point & np.uint64(0x3F)
    if point < np.uint64(0x80):
        return point, np.uint64(1)
    if point < np.uint64(0x800):
        return np.uint64(0xC0) | point >> np.uint64(6) | last << np.uint64(8), np.uint64(2)
    middle = np.uint64(0x80) | point >> np.uint64(6) & np.uint64(0x3F)
    if point < np.uint64(0x10000):
        return np.uint64(0xE0) | point >> np.uint64(12) | middle << np.uint64(8) | last << np.uint64(16), np.uint64(3)
    second = np.uint64(0x80) | point >> np.uint64(12) & np.uint64(0x3F)
    head = np.uint64(0xF0) | point >> np.uint64(18) | second << np.uint64(8)
    return head | middle << np.uint64(16) | last << np.uint64(24), np.uint64(4)
