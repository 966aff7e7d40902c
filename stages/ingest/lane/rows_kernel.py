"""Compiled: the lines of a shard, each walked, and written to Arrow's buffers if it is one the lane knows."""

from typing import Any

import numpy as np
from numba import njit

from stages.ingest.lane.layout import Columns, Found, Grammar, Lines, Plans
from stages.ingest.lane.messages_kernel import MAX_PARTS, has_text, put_end, put_messages, put_slot
from stages.ingest.lane.text_kernel import ESCAPED, INTEGER, PLAIN, byte_at, is_utf8, number_at, put_number
from stages.ingest.lane.walk_kernel import MAX_SLOTS, walk
from stages.machine import copy_bytes, load_half, store_byte

_INLINE = 12  # bytes of a string that lies in its view


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
        n, role_at, content_at, n_trimmed = put_messages(
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
            quotes = 1 if number_at(found.kinds, slot) in (PLAIN, ESCAPED) else 0
            has = seen & 1 << slot
            put_number(columns.asked, place, number_at(found.starts, slot) - quotes)
            put_number(columns.asked, place + 1, number_at(found.sizes, slot) + 2 * quotes if has else -1)
        put_number(columns.rows, n_rows, line)
        put_number(columns.plans, n_rows, plan)
        put_number(columns.trimmed, n_rows, n_trimmed)
        n_rows += 1
        put_end(columns.id_ends, n_rows, id_end - columns.ids)
        put_end(columns.record_id_ends, n_rows, record_id_end - columns.record_ids)
        put_end(columns.row_tags, n_rows, n_tags)
        put_end(columns.row_messages, n_rows, n_messages)
    return n_rows, n_messages, n_tags


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _plan_of(seen: int, found: Found, plans: Plans) -> int:
    """Return the plan that a record with these slots follows; -1 if there is none."""
    form = number_at(found.counts, 1)
    for plan in range(plans.n_plans):
        required = number_at(plans.required, plan)
        has_all = seen & required == required and not seen & ~number_at(plans.allowed, plan)
        if has_all and number_at(plans.forms, plan) == form:
            return plan
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _are_texts(slots: int, limit: int, out: int, letters: int, found: Found) -> bool:
    """Tell whether the strings in `slots` can all be resolved; what they say is written to `out` and forgotten."""
    for slot in range(MAX_SLOTS):
        if slots >> slot == 0:
            return True
        is_escaped = slots >> slot & 1 and number_at(found.kinds, slot) == ESCAPED
        if is_escaped and put_slot(slot, out, limit, letters, found) < 0:
            return False
    return True


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
        if slot < 0 or not has_text(slot, seen, found):
            continue
        for at in range(number_at(plans.label_ends, slot), number_at(plans.label_ends, slot + 1)):
            store_byte(np.uint64(out), np.uint64(byte_at(plans.labels + at)))
            out += 1
        out = put_slot(slot, out, limit, letters, found)
        if out < 0:
            return -1, 0
        n += 1
        put_end(columns.tag_ends, first + n, out - columns.tags)
    return out, n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _record_id(
    seen: int, limit: int, out: int, row: int, letters: int, plans: Plans, found: Found, columns: Columns
) -> Any:
    """Write the id that a record has of its own and return where it ends, -1 if it is no text."""
    store_byte(np.uint64(columns.has_record_id + row), np.uint64(0))
    for i in range(plans.n_ids):
        slot = number_at(plans.ids, i)
        if seen & 1 << slot and number_at(found.kinds, slot) in (INTEGER, PLAIN, ESCAPED):
            store_byte(np.uint64(columns.has_record_id + row), np.uint64(1))
            return put_slot(slot, out, limit, letters, found)
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
