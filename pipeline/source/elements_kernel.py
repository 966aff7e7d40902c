"""The walk of pipeline.source.elements, compiled, and over blocks: all that it knows between two of them stands in a state."""

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from pipeline.source.elements import DEEPEST, Between, Element

_BLOCK: Final = 1 << 12
"""Elements that one call of the kernel finds at most."""
(
    _DEPTH,
    _BELOW,  # levels deeper than DEEPEST
    _SQUARE,  # of the brackets on the stack
    _CURLY,
    _STRING,  # inside one: 1, after a backslash: 2
    _BEGIN,
    _END,
    _CLOSING,
    _BEFORE,  # the last byte outside strings that is no blank
    _CLOSER,  # whether a line that ended here would end a value: 2 after a closing bracket, 1 after a comma behind one
    _RAW_CLOSER,  # the same, of bytes in the string under way
    _BROKEN,
    _MATCHED,  # bytes of the indent that the line has begun with, -1 if it did not
    _LINE_CLOSER,  # whether the line before ended a value
    _SIZE,
) = range(15)


class Walk:
    """Finds the values of a file whose bytes come in blocks. See Elements, whose arguments these are."""

    def __init__(self, between: Between, indent: bytes | None, cap: int, *, is_last: bool = True) -> None:
        self._is_array, self._cap = between == "array", cap
        self._may_close = self._is_array and is_last
        self._indent = np.frombuffer(indent or b"", np.uint8)
        self._has_indent = indent is not None
        self._stack = np.zeros(DEEPEST, np.uint8)
        self._found = np.zeros((_BLOCK, 3), np.int64)
        self._state = np.zeros(_SIZE, np.int64)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all that came before: as at the beginning of a file."""
        self._state[:] = 0
        self._state[[_BEGIN, _CLOSING, _MATCHED]] = -1

    def feed(self, block: Any, at: int, base: int, until: int) -> tuple[NDArray[np.int64], int]:
        """Return (values found, as rows of Element; how far it came) from `at` in `block`, the first byte of which is at `base`.

        Stops where a value is decided at or beyond `until`, and where a few thousand are found: call again from there.
        """
        data = np.frombuffer(block, np.uint8)
        n, at = _walk(
            data,
            at,
            base,
            until,
            self._is_array,
            self._may_close,
            self._indent,
            self._has_indent,
            self._cap,
            self._stack,
            self._state,
            self._found,
        )
        return self._found[:n], at

    def finish(self, end: int) -> Element | None:
        """Return the value that the end of the file at `end` ends, if there is one."""
        begin = int(self._state[_BEGIN])
        return Element(begin, int(self._state[_END]), end) if begin >= 0 else None

    @property
    def is_torn(self) -> bool:
        """Return whether, if the file ends here, its array lacks its closing bracket."""
        state = self._state
        is_inside = state[_DEPTH] or state[_STRING] or state[_BROKEN]
        return bool(self._is_array and state[_CLOSING] < 0 and not is_inside)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _look_back(data: Any, low: int, high: int, closer: int) -> tuple[int, int]:
    """Return (_CLOSER after data[low:high], where its last byte that is no blank ends, or -1)."""
    last = -1
    for i in range(high - 1, low - 1, -1):
        c = data[i]
        if c == 32 or (9 <= c <= 13 and c != 11 and c != 12):
            continue
        if last < 0:
            last = i + 1
            if c != 44:  # comma
                return (2 if c == 93 or c == 125 else 0), last
        else:
            return (1 if c == 93 or c == 125 else 0), last
    if last < 0:
        return closer, last
    return (1 if closer == 2 else 0), last


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walk(  # noqa: C901 - one state machine
    data: Any,
    p: int,
    base: int,
    until: int,
    is_array: bool,
    may_close: bool,
    indent: Any,
    has_indent: bool,
    cap: int,
    stack: Any,
    state: Any,
    found: Any,
) -> tuple[int, int]:
    """Return (elements found, where it stopped in `data`)."""
    depth, below, n_square, n_curly = state[_DEPTH], state[_BELOW], state[_SQUARE], state[_CURLY]
    string, begin, end, closing = state[_STRING], state[_BEGIN], state[_END], state[_CLOSING]
    before, closer, raw_closer = state[_BEFORE], state[_CLOSER], state[_RAW_CLOSER]
    broken, matched, line_closer = state[_BROKEN], state[_MATCHED], state[_LINE_CLOSER]
    n_indent = len(indent)
    n = len(data)
    n_found = 0
    string_from = p  # where the string's bytes begin in this block
    is_stopped = False
    while p < n and not is_stopped:
        c = data[p]
        if string:
            if c == 10 and has_indent:
                closer, last = _look_back(data, string_from, p, raw_closer)
                if last >= 0:
                    end = base + last
                broken, string = 1, 0
                continue
            if string == 2:
                string = 1
                p += 1
                continue
            while p < n:
                c = data[p]
                if c == 34 or c == 92 or (c == 10 and has_indent):
                    break
                p += 1
            if p == n:
                break
            if c == 34:
                string = 0
                p += 1
                end, before, closer = base + p, 34, 0
            elif c == 92:
                string = 2
                p += 1
            continue
        if c == 10:
            if begin >= 0 and depth == 0 and not is_array and not broken:
                found[n_found, 0], found[n_found, 1], found[n_found, 2] = begin, end, base + p
                n_found += 1
                begin = -1
                is_stopped = base + p >= until or n_found == len(found)
            matched, line_closer = 0, closer
            if not is_stopped:
                p += 1
            continue
        if c == 32 or c == 9 or c == 13:
            if matched >= 0:
                matched = matched + 1 if matched < n_indent and indent[matched] == c else -1
            p += 1
            continue
        is_opening = c == 91 or c == 123
        is_closing = c == 93 or c == 125
        is_next = is_opening and has_indent and matched == n_indent and line_closer > 0
        matched = -1
        if closing >= 0:
            if begin < 0:
                begin = closing - 1
            end, closing = closing, -1
        if is_next and begin >= 0:
            is_misplaced = depth == 0 or (
                below == 0
                and (
                    (stack[depth - 1] == 123 and before != 58)
                    or (stack[depth - 1] == 91 and before != 91 and before != 44)
                )
            )
            if broken or is_misplaced or base + p - begin > cap:
                found[n_found, 0], found[n_found, 1], found[n_found, 2] = begin, end, base + p
                n_found += 1
                depth = below = n_square = n_curly = broken = closer = before = 0
                begin = -1
                is_stopped = base + p >= until or n_found == len(found)
                continue
        if is_closing:
            new_closer = 2
        elif c == 44 and closer == 2:
            new_closer = 1
        else:
            new_closer = 0
        if broken:
            closer = new_closer
            p += 1
            end = base + p
            continue
        if depth == 0 and c == 44:
            if begin >= 0:
                found[n_found, 0], found[n_found, 1], found[n_found, 2] = begin, end, base + p
                n_found += 1
                begin = -1
                is_stopped = base + p >= until or n_found == len(found)
                if is_stopped:
                    continue
            closer = new_closer
            p += 1
            continue
        closer = new_closer
        p += 1
        if depth == 0 and c == 93 and may_close:
            closing = base + p
            continue
        if begin < 0:
            begin = base + p - 1
        if c == 34:
            string, string_from, raw_closer = 1, p, 0
            end = base + p
            continue
        end, before = base + p, c
        if is_opening:
            if depth == len(stack):
                below += 1
            else:
                stack[depth] = c
                depth += 1
                if c == 91:
                    n_square += 1
                else:
                    n_curly += 1
        elif is_closing and depth > 0:
            if below > 0:
                below -= 1
            elif (n_square if c == 93 else n_curly) > 0:
                while True:
                    depth -= 1
                    if stack[depth] == 91:
                        n_square -= 1
                    else:
                        n_curly -= 1
                    if stack[depth] == c - 2:
                        break
                if depth == 0 and not is_array:
                    found[n_found, 0], found[n_found, 1], found[n_found, 2] = begin, end, base + p
                    n_found += 1
                    begin = -1
                    is_stopped = base + p >= until or n_found == len(found)
    if string:
        raw_closer, last = _look_back(data, min(string_from, p), p, raw_closer)
        if last >= 0:
            end = base + last
    state[_DEPTH], state[_BELOW], state[_SQUARE], state[_CURLY] = depth, below, n_square, n_curly
    state[_STRING], state[_BEGIN], state[_END], state[_CLOSING] = string, begin, end, closing
    state[_BEFORE], state[_CLOSER], state[_RAW_CLOSER] = before, closer, raw_closer
    state[_BROKEN], state[_MATCHED], state[_LINE_CLOSER] = broken, matched, line_closer
    return n_found, p
