"""Compiled: the lines of a shard, each walked, and written to Arrow's buffers if it is one the lane knows."""

from typing import NamedTuple

import numpy as np
from numba import njit

from stages.ingest.lane.text_kernel import (
    ESCAPED,
    INTEGER,
    NULL,
    PLAIN,
    byte_at,
    is_utf8,
    number_at,
    put_number,
    put_text,
)
from stages.ingest.lane.walk_kernel import ASSISTANT, MAX_SLOTS, USER, Found, Grammar, walk
from stages.machine import copy_bytes, load_half, store_byte, store_half

NO_SLOT = -1
MAX_PARTS = 4
SYSTEM, TOOL = 0, 3
_INLINE = 12  # bytes of a string that lies in its view


class Plans(NamedTuple):
    """What records of each shape have, and what is made of them: addresses of slots, NO_SLOT for none, and how many there are."""

    n_plans: int
    required: int
    """Slots that a record of this shape has, as bits."""
    allowed: int
    """All that it may have."""
    forms: int
    """How its turns say who speaks: see stages.ingest.lane.walk_kernel."""
    n_systems: int
    systems: int
    """Slots that hold the first message, for all shapes."""
    parts: int
    """Shape (plans, MAX_PARTS): the question, the first of them what must be there."""
    answers: int
    tags: int
    """Shape (plans, MAX_PARTS): texts that become tags."""
    n_ids: int
    ids: int
    """Slots of the record's own id, in the order in which they are looked at; the same for all shapes."""
    written: int
    """Slots whose texts are written out, as bits."""
    n_asked: int
    asked: int
    """Slots whose text is handed on as it is written."""
    labels: int
    """What stands before each slot's tag: from label_ends[slot] to label_ends[slot + 1]."""
    label_ends: int
    border_size: int
    border: int
    """What stands between the parts of a question."""
    role_names: int
    role_ends: int


class Lines(NamedTuple):
    """The lines of a shard, all of one file: addresses, and how many there are."""

    n_lines: int
    views: int
    """Arrow's views of them."""
    buffers: int
    """Where the buffers that views point into begin, and end."""
    ends: int
    is_left: int
    """Which of them the lane must not take."""
    is_checked: bool
    """Whether all of them are known to be UTF-8."""
    numbers: int
    prefix_size: int
    prefix: int
    """The beginning of every id."""


class Columns(NamedTuple):
    """What was taken, as Arrow lays it out: addresses; ends of texts and lists begin with 0."""

    rows: int
    """Which lines they are."""
    plans: int
    ids: int
    id_ends: int
    record_ids: int
    record_id_ends: int
    has_record_id: int
    tags: int
    tag_ends: int
    row_tags: int
    """Where each row's tags end."""
    asked: int
    """Shape (rows, asked slots, 2): address and size of their text, -1 for none."""
    roles: int
    role_ends: int
    contents: int
    content_ends: int
    row_messages: int


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def read_rows(lines: Lines, grammar: Grammar, plans: Plans, found: Found, columns: Columns) -> tuple[int, int, int]:
    """Write the lines that the lane knows to `columns`; return how many there are, and of how many messages and tags.

    The texts of `columns` are as long as all lines together need, with SLACK bytes behind.
    """
    letters = grammar.letters
    id_end, record_id_end, tag_end = columns.ids, columns.record_ids, columns.tags
    role_end, content_end = columns.roles, columns.contents
    n_rows = n_messages = n_tags = 0
    for line in range(lines.n_lines):
        if byte_at(lines.is_left + line):
            continue
        view = lines.views + 16 * line
        size = np.int64(load_half(np.uint64(view)))
        if size <= _INLINE:
            continue
        buffer = np.int64(load_half(np.uint64(view + 8)))
        at = number_at(lines.buffers, buffer) + np.int64(load_half(np.uint64(view + 12)))
        limit = number_at(lines.ends, buffer)
        if not lines.is_checked and not is_utf8(at, at + size):
            continue
        seen = walk(at, at + size, limit, content_end, grammar, found)
        if seen == 0:
            continue
        plan = _plan_of(seen, found, plans)
        if plan < 0:
            continue
        # Each of these may find a text that is none: what was written by then lies behind the last end, and counts for nothing.
        n, role_at, content_at = _messages(
            plan, seen, limit, role_end, content_end, n_messages, letters, plans, found, columns
        )
        if n == 0:
            continue
        tag_at, n_own = _tags(plan, seen, limit, tag_end, n_tags, letters, plans, found, columns)
        if tag_at < 0:
            continue
        record_id_at = _record_id(seen, limit, record_id_end, n_rows, letters, plans, found, columns)
        if record_id_at < 0 or not _are_texts(
            seen & ~number_at(plans.written, plan), limit, content_at, letters, found
        ):
            continue
        role_end, content_end, n_messages = role_at, content_at, n_messages + n
        tag_end, n_tags, record_id_end = tag_at, n_tags + n_own, record_id_at
        copy_bytes(np.uint64(id_end), np.uint64(lines.prefix), np.uint64(lines.prefix_size))
        id_end = _put_digits(number_at(lines.numbers, line), id_end + lines.prefix_size)
        for i in range(plans.n_asked):
            slot, place = number_at(plans.asked, i), 2 * (n_rows * plans.n_asked + i)
            quotes = 1 if _is_text(number_at(found.kinds, slot)) else 0
            has = seen & 1 << slot
            put_number(columns.asked, place, number_at(found.starts, slot) - quotes)
            put_number(columns.asked, place + 1, number_at(found.sizes, slot) + 2 * quotes if has else -1)
        put_number(columns.rows, n_rows, line)
        put_number(columns.plans, n_rows, plan)
        n_rows += 1
        _put_end(columns.id_ends, n_rows, id_end - columns.ids)
        _put_end(columns.record_id_ends, n_rows, record_id_end - columns.record_ids)
        _put_end(columns.row_tags, n_rows, n_tags)
        _put_end(columns.row_messages, n_rows, n_messages)
    return n_rows, n_messages, n_tags


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put_end(ends: int, i: int, end: int) -> None:
    store_half(np.uint64(ends + 4 * i), np.uint64(end))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _plan_of(seen: int, found: Found, plans: Plans) -> int:
    """Return the plan that a record with these slots follows; -1 if there is none."""
    form = number_at(found.counts, 1)
    for plan in range(plans.n_plans):
        required = number_at(plans.required, plan)
        if seen & required == required and not seen & ~number_at(plans.allowed, plan):
            if number_at(plans.forms, plan) == form:
                return plan
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _are_texts(slots: int, limit: int, out: int, letters: int, found: Found) -> bool:
    """Tell whether the strings in `slots` can all be resolved; what they say is written to `out` and forgotten."""
    for slot in range(MAX_SLOTS):
        if slots >> slot == 0:
            return True
        if slots >> slot & 1 and number_at(found.kinds, slot) == ESCAPED:
            if put_text(number_at(found.starts, slot), number_at(found.sizes, slot), True, out, limit, letters) < 0:
                return False
    return True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_text(kind: int) -> bool:
    return kind == PLAIN or kind == ESCAPED


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _messages(
    plan: int,
    seen: int,
    limit: int,
    role_at: int,
    out: int,
    first: int,
    letters: int,
    plans: Plans,
    found: Found,
    columns: Columns,
) -> tuple[int, int, int]:
    """Write the messages of a record; return how many they are and where their roles and contents end.

    None if any policy could have something to say of them: an empty one, two of a role running, nobody before the assistant,
    nothing of the assistant at the end.
    """
    n, before, answer = first, -1, number_at(plans.answers, plan)
    n_turns = number_at(found.counts, 0)
    for i in range(plans.n_systems):
        system = number_at(plans.systems, i)
        if not seen & 1 << system or number_at(found.kinds, system) == NULL:
            continue
        if not _is_text(number_at(found.kinds, system)):
            return 0, 0, 0
        if number_at(found.sizes, system) == 0:
            continue
        if before == SYSTEM or (n_turns and number_at(found.roles, 0) == SYSTEM):
            return 0, 0, 0
        out = put_text(
            number_at(found.starts, system),
            number_at(found.sizes, system),
            number_at(found.kinds, system) == ESCAPED,
            out,
            limit,
            letters,
        )
        if out < 0:
            return 0, 0, 0
        role_at = _end_message(SYSTEM, n, role_at, out, plans, columns)
        n, before = n + 1, SYSTEM
    for turn in range(n_turns):
        role = number_at(found.roles, turn)
        if (role == before and (role == USER or role == ASSISTANT)) or (
            role == ASSISTANT and (before == -1 or before == SYSTEM)
        ):
            return 0, 0, 0
        before = role
        is_escaped = number_at(found.turn_kinds, turn) == ESCAPED
        out = put_text(
            number_at(found.turn_starts, turn), number_at(found.turn_sizes, turn), is_escaped, out, limit, letters
        )
        if out < 0:
            return 0, 0, 0
        role_at = _end_message(role, n, role_at, out, plans, columns)
        n += 1
    if answer >= 0:
        if not _is_text(number_at(found.kinds, answer)) or number_at(found.sizes, answer) == 0:
            return 0, 0, 0
        start = out
        out = _question(plan, seen, limit, out, letters, plans, found)
        if out <= start:
            return 0, 0, 0
        role_at = _end_message(USER, n, role_at, out, plans, columns)
        out = put_text(
            number_at(found.starts, answer),
            number_at(found.sizes, answer),
            number_at(found.kinds, answer) == ESCAPED,
            out,
            limit,
            letters,
        )
        if out < 0:
            return 0, 0, 0
        role_at = _end_message(ASSISTANT, n + 1, role_at, out, plans, columns)
        n, before = n + 2, ASSISTANT
    return (n - first, role_at, out) if before == ASSISTANT else (0, 0, 0)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _end_message(role: int, n: int, role_at: int, out: int, plans: Plans, columns: Columns) -> int:
    """Write the role of message `n`, whose content ends at `out`, and return where the role ends."""
    for i in range(number_at(plans.role_ends, role), number_at(plans.role_ends, role + 1)):
        store_byte(np.uint64(role_at), np.uint64(byte_at(plans.role_names + i)))
        role_at += 1
    _put_end(columns.role_ends, n + 1, role_at - columns.roles)
    _put_end(columns.content_ends, n + 1, out - columns.contents)
    return role_at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _question(plan: int, seen: int, limit: int, out: int, letters: int, plans: Plans, found: Found) -> int:
    """Write the parts of a question that are not empty, with the border between them, and return where it ends; -1 for no text."""
    start = out
    for i in range(MAX_PARTS):
        slot = number_at(plans.parts, MAX_PARTS * plan + i)
        if slot < 0 or not seen & 1 << slot:
            continue
        kind = number_at(found.kinds, slot)
        if kind == NULL and not number_at(plans.required, plan) & 1 << slot:
            continue
        if not _is_text(kind):
            return -1
        if number_at(found.sizes, slot) == 0:
            continue
        if out > start:
            copy_bytes(np.uint64(out), np.uint64(plans.border), np.uint64(plans.border_size))
            out += plans.border_size
        out = put_text(
            number_at(found.starts, slot), number_at(found.sizes, slot), kind == ESCAPED, out, limit, letters
        )
        if out < 0:
            return -1
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tags(
    plan: int,
    seen: int,
    limit: int,
    out: int,
    first: int,
    letters: int,
    plans: Plans,
    found: Found,
    columns: Columns,
) -> tuple[int, int]:
    """Write the tags of a record; return where they end and how many they are, -1 if one of them is no text."""
    n = 0
    for i in range(MAX_PARTS):
        slot = number_at(plans.tags, MAX_PARTS * plan + i)
        if (
            slot < 0
            or not seen & 1 << slot
            or not _is_text(number_at(found.kinds, slot))
            or number_at(found.sizes, slot) == 0
        ):
            continue
        for at in range(number_at(plans.label_ends, slot), number_at(plans.label_ends, slot + 1)):
            store_byte(np.uint64(out), np.uint64(byte_at(plans.labels + at)))
            out += 1
        out = put_text(
            number_at(found.starts, slot),
            number_at(found.sizes, slot),
            number_at(found.kinds, slot) == ESCAPED,
            out,
            limit,
            letters,
        )
        if out < 0:
            return -1, 0
        n += 1
        _put_end(columns.tag_ends, first + n, out - columns.tags)
    return out, n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _record_id(
    seen: int, limit: int, out: int, row: int, letters: int, plans: Plans, found: Found, columns: Columns
) -> int:
    """Write the id that a record has of its own and return where it ends, -1 if it is no text."""
    store_byte(np.uint64(columns.has_record_id + row), np.uint64(0))
    for i in range(plans.n_ids):
        slot = number_at(plans.ids, i)
        kind = number_at(found.kinds, slot)
        if seen & 1 << slot and (kind == INTEGER or _is_text(kind)):
            store_byte(np.uint64(columns.has_record_id + row), np.uint64(1))
            return put_text(
                number_at(found.starts, slot), number_at(found.sizes, slot), kind == ESCAPED, out, limit, letters
            )
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put_digits(number: int, out: int) -> int:
    """Write a number that is not negative in decimal digits, and return what follows it."""
    n_digits, rest = 1, number // 10
    while rest:
        n_digits, rest = n_digits + 1, rest // 10
    for i in range(n_digits - 1, -1, -1):
        store_byte(np.uint64(out + i), np.uint64(0x30 + number % 10))
        number //= 10
    return out + n_digits
