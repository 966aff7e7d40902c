"""Compiled: the strings, numbers and words of JSON, as they stand at an address.

All memory is named by addresses here, and not by arrays, which numba counts references to at each call.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.machine import (
    bytes_within,
    copy_bytes,
    load_byte,
    load_half,
    load_word,
    store_byte,
    store_word,
    trailing_zeros,
)

U8 = NDArray[np.uint8]

# what a value is
NOTHING, NULL, FLAG, INTEGER, FRACTION, PLAIN, ESCAPED = 0, 1, 2, 3, 4, 5, 6
"""Not a value that is known here; null; true or false; a number without a point, and with one; a string, and one with escapes."""
MAX_DIGITS = 18
"""A number of no more characters than that is one that a float holds and 64 bits hold."""
SLACK = 16
"""Bytes behind the end of what is written that may be overwritten."""

_QUOTE, _BACKSLASH, _MINUS, _POINT, _ZERO, _NINE, _U = 0x22, 0x5C, 0x2D, 0x2E, 0x30, 0x39, 0x75
_ONES = np.uint64(0x0101010101010101)
_HIGHS = np.uint64(0x8080808080808080)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)


_ESCAPES, _DIGITS = 384, 640
"""Where in an alphabet those begin."""


def alphabet() -> U8:
    """Return what single bytes mean.

    First the ranges, as stages.machine.bytes_within takes them, of those that a string cannot simply hold; then for each byte
    which one a backslash and it stand for, 0 for none; then its value as a hexadecimal digit, 255 for none.
    """
    ranges = np.array([(_QUOTE, 0), (_BACKSLASH, 0), (0, 0x1F)], np.uint8)
    escapes = np.zeros(256, np.uint8)
    for name, byte in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
        escapes[name] = byte
    digits = np.full(256, 0xFF, np.uint8)
    for value, digit in enumerate("0123456789abcdef"):
        digits[[ord(digit), ord(digit.upper())]] = value
    return np.concatenate([np.repeat(ranges.ravel(), 64), escapes, digits])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def byte_at(at: int) -> Any:
    """Return the byte at an address."""
    return np.int64(load_byte(np.uint64(at)))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def number_at(base: int, i: int) -> Any:
    """Return the number at place `i` of those of 64 bits at an address."""
    return np.int64(load_word(np.uint64(base + 8 * i)))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def put_number(base: int, i: int, number: int) -> None:
    """Write the number at place `i` of those of 64 bits at an address."""
    store_word(np.uint64(base + 8 * i), np.uint64(number))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def after_blanks(at: int, end: int) -> int:
    """Return the first address that holds no blank; `end` if all do."""
    while at < end:
        byte = byte_at(at)
        if byte > 0x20 or not (byte == 0x20 or byte == 0x0A or byte == 0x0D or byte == 0x09):
            break
        at += 1
    return at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def string_end(at: int, end: int, limit: int, letters: int) -> Any:
    """Return (where the quote stands that ends the string from `at` on, whether it has escapes); -1 if it is none.

    A string must hold no control characters. Nothing from `limit` on is read; what is before it may be, though it is beyond
    `end`.
    """
    has_escapes = False
    while at < end:
        if at + 64 <= limit:
            bits = bytes_within(np.uint64(at), np.uint64(letters), 3)
            if bits == 0:
                at += 64
                continue
            at += int(np.int64(trailing_zeros(bits)))
            if at >= end:
                break
        byte = byte_at(at)
        if byte == _QUOTE:
            return at, has_escapes
        if byte < 0x20:
            break
        if byte == _BACKSLASH:
            has_escapes = True
            at += 1
        at += 1
    return -1, has_escapes


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def scalar(at: int, end: int, limit: int, letters: int) -> Any:
    """Return (what the value at `at` is, where its text begins, how long it is, what follows it); NOTHING if it is no scalar.

    The text of a string is what stands between its quotes. Numbers with an exponent, or of more than MAX_DIGITS characters,
    are not known here.
    """
    first = byte_at(at)
    if first == _QUOTE:
        close, has_escapes = string_end(at + 1, end, limit, letters)
        if close < 0:
            return NOTHING, at, 0, at
        return (ESCAPED if has_escapes else PLAIN), at + 1, close - at - 1, close + 1
    if first == _MINUS or _ZERO <= first <= _NINE:
        return _number(at, end)
    if first == 0x6E and _spells(at, end, 0x6C6C756E):  # null
        return NULL, at, 4, at + 4
    if first == 0x74 and _spells(at, end, 0x65757274):  # true
        return FLAG, at, 4, at + 4
    if first == 0x66 and _spells(at + 1, end, 0x65736C61):  # f, alse
        return FLAG, at, 5, at + 5
    return NOTHING, at, 0, at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _spells(at: int, end: int, word: int) -> Any:
    """Tell whether the four bytes at an address are those of `word`, the lowest first."""
    if at + 4 > end:
        return False
    return load_half(np.uint64(at)) == np.uint64(word)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _digits_end(at: int, end: int) -> int:
    while at < end and _ZERO <= byte_at(at) <= _NINE:
        at += 1
    return at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _number(at: int, end: int) -> Any:
    start = at
    if byte_at(at) == _MINUS:
        at += 1
    whole = at
    at = _digits_end(at, end)
    if at == whole or (at > whole + 1 and byte_at(whole) == _ZERO):
        return NOTHING, start, 0, start
    kind = INTEGER
    if at < end and byte_at(at) == _POINT:
        point = at
        at = _digits_end(at + 1, end)
        if at == point + 1:
            return NOTHING, start, 0, start
        kind = FRACTION
    is_minus_zero = (
        kind == INTEGER and whole > start and byte_at(whole) == _ZERO
    )  # which is written otherwise once it is read
    if is_minus_zero or at - start > MAX_DIGITS or (at < end and (byte_at(at) | 0x20) == 0x65):  # e
        return NOTHING, start, 0, start
    return kind, start, at - start, at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def put_text(at: int, size: int, is_escaped: bool, out: int, limit: int, letters: int) -> int:
    """Write the text of a string to `out`, its escapes resolved, and return what follows it; -1 if it is no text.

    No text: an escape that JSON does not have, U+0000, half a surrogate pair. What is written is never longer than what is
    read, but up to SLACK bytes behind it are overwritten.
    """
    end = at + size
    if not is_escaped:
        copy_bytes(np.uint64(out), np.uint64(at), np.uint64(size))
        return out + size
    while at < end:
        if byte_at(at) != _BACKSLASH:
            n = _run(at, limit, out)
            if n > end - at:
                return out + end - at
            at, out = at + n, out + n
            continue
        name = byte_at(at + 1)
        if name != _U:
            byte = byte_at(letters + _ESCAPES + name)
            if byte == 0:
                return -1
            store_byte(np.uint64(out), np.uint64(byte))
            at, out = at + 2, out + 1
            continue
        code = _hex(at + 2, end, letters)
        at += 6
        if code <= 0 or 0xDC00 <= code < 0xE000:
            return -1
        if 0xD800 <= code < 0xDC00:
            if at + 6 > end or byte_at(at) != _BACKSLASH or byte_at(at + 1) != _U:
                return -1
            low = _hex(at + 2, end, letters)
            at += 6
            if not 0xDC00 <= low < 0xE000:
                return -1
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        out = _put_character(code, out)
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _run(at: int, limit: int, out: int) -> Any:
    """Copy up to eight bytes, and return how many of them come before a backslash; the first is none."""
    if at + 8 > limit:
        store_byte(np.uint64(out), load_byte(np.uint64(at)))
        return 1
    word = load_word(np.uint64(at))
    store_word(np.uint64(out), word)
    other = word ^ _BACKSLASHES
    zeros = (other - _ONES) & ~other & _HIGHS
    return 8 if zeros == 0 else np.int64(trailing_zeros(zeros)) >> 3


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hex(at: int, end: int, letters: int) -> int:
    """Return the number that four hexadecimal digits write, -1 if they are none."""
    if at + 4 > end:
        return -1
    code = 0
    for i in range(4):
        digit = byte_at(letters + _DIGITS + byte_at(at + i))
        if digit > 15:
            return -1
        code = code << 4 | digit
    return code


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put_character(code: int, out: int) -> int:
    """Write a character as UTF-8 and return what follows it."""
    if code < 0x80:
        store_byte(np.uint64(out), np.uint64(code))
        return out + 1
    if code < 0x800:
        store_byte(np.uint64(out), np.uint64(0xC0 | code >> 6))
        store_byte(np.uint64(out + 1), np.uint64(0x80 | code & 0x3F))
        return out + 2
    if code < 0x10000:
        store_byte(np.uint64(out), np.uint64(0xE0 | code >> 12))
        store_byte(np.uint64(out + 1), np.uint64(0x80 | code >> 6 & 0x3F))
        store_byte(np.uint64(out + 2), np.uint64(0x80 | code & 0x3F))
        return out + 3
    store_byte(np.uint64(out), np.uint64(0xF0 | code >> 18))
    store_byte(np.uint64(out + 1), np.uint64(0x80 | code >> 12 & 0x3F))
    store_byte(np.uint64(out + 2), np.uint64(0x80 | code >> 6 & 0x3F))
    store_byte(np.uint64(out + 3), np.uint64(0x80 | code & 0x3F))
    return out + 4


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def is_utf8(at: int, end: int) -> bool:
    """Tell whether the bytes are UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF."""
    while at < end:
        first = byte_at(at)
        at += 1
        if first < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= first <= 0xDF:
            n = 1
        elif 0xE0 <= first <= 0xEF:
            n = 2
            low = 0xA0 if first == 0xE0 else low
            high = 0x9F if first == 0xED else high
        elif 0xF0 <= first <= 0xF4:
            n = 3
            low = 0x90 if first == 0xF0 else low
            high = 0x8F if first == 0xF4 else high
        else:
            return False
        if at + n > end or not low <= byte_at(at) <= high:
            return False
        for i in range(1, n):
            if byte_at(at + i) & 0xC0 != 0x80:
                return False
        at += n
    return True
