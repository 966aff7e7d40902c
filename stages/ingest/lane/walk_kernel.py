"""Compiled: one line of JSON, walked from end to end: what stands where, or that the line is none the lane knows."""

from typing import Any, Final

from numba import njit

from stages.ingest.lane.keys_kernel import number_of
from stages.ingest.lane.layout import Found, Grammar
from stages.ingest.lane.text_kernel import (
    ESCAPED,
    NOTHING,
    NULL,
    PLAIN,
    after_blanks,
    byte_at,
    number_at,
    put_number,
    put_text,
    scalar,
    string_end,
)

# numbers of the keys of a record: of a slot from 0 on, or
OTHER, STOP = -1, -2
"""A key that nothing reads, and one that only the strict lane reads."""
# what may stand in a slot
SCALAR, TURNS, PAIRS = 0, 1, 2
"""A string, number, true, false or null; a list of turns; a list of pairs [question, answer], or null."""
# the keys of a turn; from HARMLESS on those that are left out
ROLE, CONTENT, FROM, VALUE, HARMLESS = 0, 1, 2, 3, 4
# how turns say who speaks and what
NO_TURNS, AS_ROLE, AS_FROM = 0, 1, 2
"""There are none; by role and content; by from and value."""
LISTED = 7
"""What a value is that is a list of turns or of pairs, after the kinds of stages.ingest.lane.text_kernel."""

MAX_SLOTS = 63
MAX_OTHERS = 32
MAX_TURNS = 4096
# roles, in the order of stages.ingest.lane.plan.CANONICAL
SYSTEM, USER, ASSISTANT = 0, 1, 2

_OPEN, _CLOSE, _LIST, _END, _COMMA, _COLON, _QUOTE = 0x7B, 0x7D, 0x5B, 0x5D, 0x2C, 0x3A, 0x22


ROOM: Final = (*(MAX_SLOTS + 1,) * 3, *(MAX_TURNS,) * 4, *(MAX_OTHERS,) * 2, 3)
"""How many numbers each part of Found has."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def walk(at: int, end: int, limit: int, out: int, grammar: Grammar, found: Found) -> int:
    """Return which slots the record from `at` to `end` has, as bits, and write what stands in them to `found`.

    0 if the line has anything that is not known here. Texts that nothing reads are resolved at `out`, and forgotten.
    """
    letters = grammar.letters
    for i in range(3):
        put_number(found.counts, i, 0)
    seen = 0
    at = after_blanks(at, end)
    if at >= end or byte_at(at) != _OPEN:
        return 0
    while True:  # over members, each after a bracket or a comma
        key = after_blanks(at + 1, end) + 1
        close, at = _key_end(key, end, limit, letters)
        if at < 0:
            return 0
        slot = number_of(grammar.keys, key, close - key, limit, OTHER)
        if slot == STOP or (slot >= 0 and seen & 1 << slot) or (slot == OTHER and not _is_new(key, close - key, found)):
            return 0
        at = _value(slot, at, end, limit, out, grammar, found)
        if at < 0:
            return 0
        if slot >= 0:
            seen |= 1 << slot
        at = after_blanks(at, end)
        if at >= end or byte_at(at) != _COMMA:
            break
    if at >= end or byte_at(at) != _CLOSE or after_blanks(at + 1, end) != end:
        return 0
    return seen


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _value(slot: int, at: int, end: int, limit: int, out: int, grammar: Grammar, found: Found) -> int:
    """Read what stands under a key and return what follows it; -1 if it is not known there."""
    content = SCALAR if slot == OTHER else number_at(grammar.contents, slot)
    kind, start, size = LISTED, at, 0
    if byte_at(at) == _LIST and content != SCALAR:
        if number_at(found.counts, 0):
            return -1
        at = _listed(content, at, end, limit, out, grammar, found)
    else:
        kind, start, size, at = scalar(at, end, limit, grammar.letters)
        if kind == NOTHING or content == TURNS or (content == PAIRS and kind != NULL):
            return -1
        if slot == OTHER and kind == ESCAPED and put_text(start, size, True, out, limit, grammar.letters) < 0:
            return -1
    if slot >= 0:
        put_number(found.kinds, slot, kind)
        put_number(found.starts, slot, start)
        put_number(found.sizes, slot, size)
    return at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _listed(content: int, at: int, end: int, limit: int, out: int, grammar: Grammar, found: Found) -> Any:
    if content == TURNS:
        return _turns(at, end, limit, out, grammar, found)
    return _pairs(at, end, limit, grammar, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _key_end(key: int, end: int, limit: int, letters: int) -> tuple[int, int]:
    """Return (the closing quote of a key, the first byte of its value); -1 for the second if that is not how it goes on."""
    if key > end or byte_at(key - 1) != _QUOTE:
        return -1, -1
    close, has_escapes = string_end(key, end, limit, letters)
    if close < 0 or has_escapes:
        return -1, -1
    at = after_blanks(close + 1, end)
    if at >= end or byte_at(at) != _COLON:
        return -1, -1
    at = after_blanks(at + 1, end)
    return close, at if at < end else -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_new(key: int, size: int, found: Found) -> bool:
    """Remember a key that nothing reads, and tell whether it stands here for the first time."""
    n = number_at(found.counts, 2)
    if n == MAX_OTHERS:
        return False
    for i in range(n):
        if number_at(found.other_sizes, i) == size:
            other, same = number_at(found.others, i), 0
            while same < size and byte_at(other + same) == byte_at(key + same):
                same += 1
            if same == size:
                return False
    put_number(found.others, n, key)
    put_number(found.other_sizes, n, size)
    put_number(found.counts, 2, n + 1)
    return True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(role: int, kind: int, start: int, size: int, found: Found) -> bool:
    n = number_at(found.counts, 0)
    if n == MAX_TURNS or size == 0 or (kind != PLAIN and kind != ESCAPED):
        return False
    put_number(found.roles, n, role)
    put_number(found.turn_kinds, n, kind)
    put_number(found.turn_starts, n, start)
    put_number(found.turn_sizes, n, size)
    put_number(found.counts, 0, n + 1)
    return True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _turns(at: int, end: int, limit: int, out: int, grammar: Grammar, found: Found) -> int:
    """Read a list of turns and return what follows it; -1 if one of them is not known here, or there are none."""
    while True:
        at = after_blanks(at + 1, end)
        if at >= end or byte_at(at) != _OPEN:
            return -1
        at = _turn(at, end, limit, out, grammar, found)
        if at < 0:
            return -1
        at = after_blanks(at, end)
        if at >= end or byte_at(at) != _COMMA:
            break
    return at + 1 if at < end and byte_at(at) == _END else -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _turn(at: int, end: int, limit: int, out: int, grammar: Grammar, found: Found) -> int:
    """Read one turn and return what follows it; -1 if it is not known here."""
    letters = grammar.letters
    seen, role, said, text, length = 0, -1, NOTHING, 0, 0
    while True:
        key = after_blanks(at + 1, end) + 1
        close, at = _key_end(key, end, limit, letters)
        if at < 0:
            return -1
        number = number_of(grammar.turn_keys, key, close - key, limit, STOP)
        if number == STOP or seen & 1 << number:
            return -1
        seen |= 1 << number
        kind, start, size, at = scalar(at, end, limit, letters)
        if kind == NOTHING:
            return -1
        if number in (CONTENT, VALUE):
            said, text, length = kind, start, size
        elif number in (ROLE, FROM):
            if kind != PLAIN:
                return -1
            role = number_of(grammar.roles, start, size, limit, -1)
        elif kind == ESCAPED and put_text(start, size, True, out, limit, letters) < 0:
            return -1
        at = after_blanks(at, end)
        if at >= end or byte_at(at) != _COMMA:
            break
    if at >= end or byte_at(at) != _CLOSE or role < 0 or not _is_in_form(seen, found):
        return -1
    if role == SYSTEM and said == PLAIN and length == 0:  # it says nothing, and is left out without a word
        return at + 1
    return at + 1 if _add(role, said, text, length, found) else -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_in_form(seen: int, found: Found) -> bool:
    """Tell whether a turn with these keys says who speaks and what in one of two ways, and in that of the turns before it."""
    spoken = seen & (1 << HARMLESS) - 1
    form = AS_ROLE if spoken == 1 << ROLE | 1 << CONTENT else AS_FROM if spoken == 1 << FROM | 1 << VALUE else NO_TURNS
    before = number_at(found.counts, 1)
    put_number(found.counts, 1, form)
    return form != NO_TURNS and before in (NO_TURNS, form)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _pairs(at: int, end: int, limit: int, grammar: Grammar, found: Found) -> int:
    """Read a list of pairs of texts and return what follows it; -1 if there is anything else in it."""
    at = after_blanks(at + 1, end)
    if at < end and byte_at(at) == _END:
        return at + 1
    while True:
        if at >= end or byte_at(at) != _LIST:
            return -1
        for role in (USER, ASSISTANT):
            at = after_blanks(at + 1, end)
            if at >= end:
                return -1
            kind, start, size, at = scalar(at, end, limit, grammar.letters)
            if kind == NOTHING or not _add(role, kind, start, size, found):
                return -1
            at = after_blanks(at, end)
            if at >= end or byte_at(at) != (_COMMA if role == USER else _END):
                return -1
        at = after_blanks(at + 1, end)
        if at >= end or byte_at(at) != _COMMA:
            break
        at = after_blanks(at + 1, end)
    return at + 1 if at < end and byte_at(at) == _END else -1
