"""Compiled: UTF-8 text to token hashes, 64 bytes at a time where it is ASCII."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.machine import (
    beyond_ascii,
    bytes_within,
    leading_zeros,
    load_byte,
    load_half,
    load_word,
    store_word,
    trailing_zeros,
)
from stages.signatures.alphabet import (
    FOLDED,
    IGNORED,
    KIND_SHIFT,
    MARK,
    SEPARATOR,
    SINGLE,
    SINGLE_RANGES,
    WORD,
    WORD_RANGES,
    Alphabet,
)

_CLOSED = -1  # no token is being read
_MARKED = -2  # a single character with marks is being read
BLOCK = 64
SCRATCH = 2 * BLOCK
_REACH = BLOCK + 8  # bytes that are read where a block is: a word of eight may begin at its last byte
_PAGE = 4096  # no machine has smaller pages
# odd 64-bit constants: the golden ratio, and primes of xxHash and MurmurHash3
_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)
_K3 = np.uint64(0x87C37B91114253D5)
_GROUP = SINGLE_RANGES * 2 * BLOCK
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


class Reader(NamedTuple):
    """Addresses of what reading takes: the alphabet, and room for one token per byte of text."""

    entries: np.uint64
    words: np.uint64
    singles: np.uint64
    n_groups: int
    """Of SINGLE_RANGES."""
    fold: np.uint64
    """The bits that A-Z lose in folding, in each byte; 0-9 have them anyway."""
    scratch: np.uint64
    """SCRATCH bytes."""
    tokens: np.uint64


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def tokenize_text(start: Any, size: int, reader: Reader, n: int) -> int:
    """Write the tokens of the `size` bytes at address `start` after the first n, and return their new number.

    A token is the 64-bit hash of its folded UTF-8 bytes; those of up to eight bytes never share one. The text is valid
    UTF-8, as Arrow and Polars guarantee.

    ASCII is read by the block: which bytes belong to words and which are tokens of their own are two masks of 64 bits,
    so the work is by token. A token that touches the end of a block, or a character beyond ASCII, is read again from
    its beginning by the next block, or character by character. A block may be loaded beyond the end of the text if it
    does not cross into another page; what is read there is masked. All is done by address: arrays would be counted
    in and out of every call, which takes longer than to read a short message.
    """
    at = start
    end = start + np.uint64(size)
    while at < end:
        left = end - at
        base = at
        if left < np.uint64(_REACH) and (at & np.uint64(_PAGE - 1)) > np.uint64(_PAGE - _REACH):
            base = reader.scratch
            for i in range(0, np.int64(left), 8):
                store_word(base + np.uint64(i), _load_within(at + np.uint64(i), end))
        limit = min(trailing_zeros(beyond_ascii(base)), left)
        valid = _ONES if limit >= np.uint64(BLOCK) else (np.uint64(1) << limit) - np.uint64(1)
        words = bytes_within(base, reader.words, WORD_RANGES) & valid
        singles = bytes_within(base, reader.singles, SINGLE_RANGES)
        for i in range(1, reader.n_groups):
            singles |= bytes_within(base, reader.singles + np.uint64(_GROUP * i), SINGLE_RANGES)
        singles &= valid
        firsts = (words & ~(words << np.uint64(1))) | singles
        is_plain = limit >= np.uint64(BLOCK)  # what follows is read by the block, too
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
                h = absorb(_K2, _look_up(reader, block & np.uint64(0x7F)) & np.uint64(FOLDED))
            else:
                h = _K2
                while length > np.uint64(8):
                    h = absorb(h, block | reader.fold)
                    first += np.uint64(8)
                    length -= np.uint64(8)
                    block = load_word(base + first)
                h = absorb(h, (block | reader.fold) & (_ONES >> (np.uint64(64) - length * np.uint64(8))))
            n = _put(reader, n, h)
        at += step
        if not is_plain and at < end:
            at, n = _read_characters(at, end, reader, n)
    return n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _read_characters(at: Any, end: Any, reader: Reader, n: int) -> tuple[Any, int]:
    """Read characters until, after the first, eight ASCII ones follow and no token is being read.

    A single character is a token as soon as it is read; a mark takes it back.
    """
    begin = at
    open_kind = _CLOSED
    h = pending = filled = np.uint64(0)
    while at < end:
        if open_kind in (_CLOSED, SINGLE) and load_byte(at) >= np.uint64(0xE0):
            next_at, n, open_kind, pending = _read_unspaced(at, end, reader, n, open_kind, pending)
            if next_at != at:
                at, h, filled = next_at, _K2, np.uint64(3)
                continue
        point, width = _decode(at)
        entry = _look_up(reader, point)
        kind = np.int64(entry >> np.uint64(KIND_SHIFT))
        if kind == IGNORED:
            at += width
            continue
        if kind != MARK and not (kind == WORD and open_kind == WORD):
            n = _finish(open_kind, h, pending, filled, reader, n)
            open_kind = _CLOSED
        if open_kind == _CLOSED and point < np.uint64(0x80) and at != begin and _is_ascii(at, end):
            return at, n
        at += width
        if kind == SEPARATOR:
            continue
        code, length = _encode(entry & np.uint64(FOLDED))
        if kind == SINGLE or open_kind == _CLOSED:
            h, pending, filled = _K2, code, length
            open_kind = SINGLE if kind == SINGLE else WORD
            if kind == SINGLE:
                n = _put(reader, n, absorb(h, code))
            continue
        if open_kind == SINGLE:
            open_kind = _MARKED
            n -= 1
        pending |= code << (filled * np.uint64(8))
        filled += length
        if filled >= np.uint64(8):
            h = absorb(h, pending)
            filled -= np.uint64(8)
            pending = code >> ((length - filled) * np.uint64(8))
    return at, _finish(open_kind, h, pending, filled, reader, n)


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _read_unspaced(at: Any, end: Any, reader: Reader, n: int, open_kind: int, code: Any) -> tuple[Any, int, int, Any]:
    """Read characters of three bytes that are tokens as they stand, or separate them, without a branch to guess.

    Return where another one begins, the number of tokens, what is open, and the bytes of the last one.
    """
    while at + np.uint64(4) <= end:
        found = load_half(at) & np.uint64(0xFFFFFF)
        point = (
            (found & np.uint64(0x0F)) << np.uint64(12)
            | (found & np.uint64(0x3F00)) >> np.uint64(2)
            | found >> np.uint64(16) & np.uint64(0x3F)
        )
        entry = _look_up(reader, point)
        is_single = entry == (point | np.uint64(SINGLE << KIND_SHIFT))
        is_plain = is_single or entry >> np.uint64(KIND_SHIFT) == np.uint64(SEPARATOR)
        if found & np.uint64(0xF0) != np.uint64(0xE0) or not is_plain:
            break
        code = found
        _put(reader, n, absorb(_K2, code))
        n += int(is_single)
        open_kind = SINGLE if is_single else _CLOSED
        at += np.uint64(3)
    return at, n, open_kind, code


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _finish(open_kind: int, h: Any, pending: Any, filled: Any, reader: Reader, n: int) -> int:
    """Write the token that is being read, if one is; return the number of tokens."""
    if open_kind in (WORD, _MARKED):
        n = _put(reader, n, absorb(h, pending) if filled else h)
    return n


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _look_up(reader: Reader, point: Any) -> Any:
    return load_half(reader.entries + point * np.uint64(4))


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _put(reader: Reader, n: int, token: Any) -> int:
    store_word(reader.tokens + np.uint64(n) * np.uint64(8), token)
    return n + 1


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _is_ascii(at: Any, end: Any) -> Any:
    """Return whether the next eight characters are ASCII; else the block would soon be at its end."""
    return at + np.uint64(8) <= end and load_word(at) & np.uint64(0x8080808080808080) == np.uint64(0)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _load_within(at: Any, end: Any) -> Any:
    """Return the eight bytes at an address, as far as they are before the end."""
    word = np.uint64(0)
    for i in range(min(int(end - at), 8)):
        word |= load_byte(at + np.uint64(i)) << np.uint64(8 * i)
    return word


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


def open_reader(table: Alphabet, scratch: NDArray[np.uint8], tokens: NDArray[np.uint64]) -> Reader:
    """Return the reader of an alphabet; whoever calls keeps all three for as long as it is used.

    `scratch` has SCRATCH bytes, `tokens` room for one token per byte of text.
    """
    is_folded = int(table.entries[ord("A")]) & FOLDED == ord("a")
    return Reader(
        entries=np.uint64(table.entries.ctypes.data),
        words=np.uint64(table.words.ctypes.data),
        singles=np.uint64(table.singles.ctypes.data),
        n_groups=len(table.singles) // SINGLE_RANGES,
        fold=np.uint64(0x2020202020202020 if is_folded else 0),
        scratch=np.uint64(scratch.ctypes.data),
        tokens=np.uint64(tokens.ctypes.data),
    )
