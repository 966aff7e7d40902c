"""Compiled: the messages of one record, from where they were found to Arrow's buffers."""

from typing import Any

import numpy as np
from numba import njit

from stages.ingest.lane.layout import Columns, Found, Plans
from stages.ingest.lane.text_kernel import ESCAPED, NULL, PLAIN, byte_at, number_at, put_text
from stages.ingest.lane.walk_kernel import ASSISTANT, SYSTEM, USER
from stages.machine import copy_bytes, store_byte, store_half

MAX_PARTS = 4


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def put_messages(
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
) -> tuple[int, int, int, int]:
    """Write the messages of a record; return (how many, where their roles end, and their contents, how many were left out).

    None if a policy would have more to say of them than to leave out what nothing answers.
    """
    n = first
    n_turns = number_at(found.counts, 0)
    system, n_systems = _system(seen, n_turns, plans, found)
    if n_systems > 1:
        return 0, 0, 0, 0
    if n_systems:
        out = put_slot(system, out, limit, letters, found)
        if out < 0:
            return 0, 0, 0, 0
        role_at = _end_message(SYSTEM, n, role_at, out, plans, columns)
        n += 1
    n_kept = _kept(n_turns, plans, found)
    if n_kept < 0:
        return 0, 0, 0, 0
    for turn in range(n_turns):
        is_escaped = number_at(found.turn_kinds, turn) == ESCAPED
        end = put_text(
            number_at(found.turn_starts, turn), number_at(found.turn_sizes, turn), is_escaped, out, limit, letters
        )
        if end < 0:
            return 0, 0, 0, 0
        if turn < n_kept:
            role_at, out = _end_message(number_at(found.roles, turn), n, role_at, end, plans, columns), end
            n += 1
    if number_at(plans.answers, plan) >= 0:
        role_at, out = _put_pair(plan, seen, limit, role_at, out, n, letters, plans, found, columns)
        n += 2
    elif n_kept == 0:
        return 0, 0, 0, 0
    if out < 0:
        return 0, 0, 0, 0
    return n - first, role_at, out, n_turns - n_kept


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _system(seen: int, n_turns: int, plans: Plans, found: Found) -> tuple[int, int]:
    """Return (the slot that holds the first message, how many do); more than one where it is not plain what is to be done."""
    system, n = 0, 0
    for i in range(plans.n_systems):
        slot = number_at(plans.systems, i)
        if has_text(slot, seen, found):
            system, n = slot, n + 1
        elif seen & 1 << slot and not is_nothing(slot, found):
            return 0, 2
    return system, 2 if n and n_turns and number_at(found.roles, 0) == SYSTEM else n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put_pair(
    plan: int,
    seen: int,
    limit: int,
    role_at: int,
    out: int,
    n: int,
    letters: int,
    plans: Plans,
    found: Found,
    columns: Columns,
) -> tuple[int, int]:
    """Write a question and its answer; return where their roles end, and their contents, -1 if one is empty or no text."""
    answer = number_at(plans.answers, plan)
    start = out
    out = _put_question(plan, seen, limit, out, letters, plans, found)
    if out <= start or not has_text(answer, seen, found):
        return role_at, -1
    role_at = _end_message(USER, n, role_at, out, plans, columns)
    out = put_slot(answer, out, limit, letters, found)
    return _end_message(ASSISTANT, n + 1, role_at, out, plans, columns), out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _kept(n_turns: int, plans: Plans, found: Found) -> int:
    """Return how many turns are kept: to the assistant's last one; -1 where that is for a policy to decide."""
    before, is_opened, n_kept = -1, False, 0
    for turn in range(n_turns):
        role = number_at(found.roles, turn)
        if role == before and role in (USER, ASSISTANT):
            return -1
        if role == ASSISTANT:
            if not is_opened and not plans.keeps_opening:
                return -1
            n_kept = turn + 1
        is_opened = is_opened or role != SYSTEM
        before = role
    return n_kept if n_kept == n_turns or plans.trims_end else -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def has_text(slot: int, seen: int, found: Found) -> bool:
    """Tell whether a slot holds a string that is not empty."""
    return (
        seen & 1 << slot != 0 and number_at(found.kinds, slot) in (PLAIN, ESCAPED) and number_at(found.sizes, slot) > 0
    )


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def is_nothing(slot: int, found: Found) -> Any:
    """Tell whether a slot holds null or an empty string."""
    kind = number_at(found.kinds, slot)
    return kind == NULL or (kind == PLAIN and number_at(found.sizes, slot) == 0)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def put_slot(slot: int, out: int, limit: int, letters: int, found: Found) -> Any:
    """Write the text of a slot and return where it ends; -1 if it is none."""
    is_escaped = number_at(found.kinds, slot) == ESCAPED
    return put_text(number_at(found.starts, slot), number_at(found.sizes, slot), is_escaped, out, limit, letters)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _end_message(role: int, n: int, role_at: int, out: int, plans: Plans, columns: Columns) -> int:
    """Write the role of message `n`, whose content ends at `out`, and return where the role ends."""
    for i in range(number_at(plans.role_ends, role), number_at(plans.role_ends, role + 1)):
        store_byte(np.uint64(role_at), np.uint64(byte_at(plans.role_names + i)))
        role_at += 1
    put_end(columns.role_ends, n + 1, role_at - columns.roles)
    put_end(columns.content_ends, n + 1, out - columns.contents)
    return role_at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def put_end(ends: int, i: int, end: int) -> None:
    """Write the end of text or list `i - 1`."""
    store_half(np.uint64(ends + 4 * i), np.uint64(end))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put_question(plan: int, seen: int, limit: int, out: int, letters: int, plans: Plans, found: Found) -> int:
    """Write the parts of a question that are not empty, with the border between them; return where it ends, -1 for no text."""
    start = out
    for i in range(MAX_PARTS):
        slot = number_at(plans.parts, MAX_PARTS * plan + i)
        if slot < 0 or not seen & 1 << slot:
            continue
        if not has_text(slot, seen, found):
            is_required = number_at(plans.required, plan) & 1 << slot
            if not is_nothing(slot, found) or (is_required and number_at(found.kinds, slot) == NULL):
                return -1
            continue
        if out > start:
            copy_bytes(np.uint64(out), np.uint64(plans.border), np.uint64(plans.border_size))
            out += plans.border_size
        out = put_slot(slot, out, limit, letters, found)
        if out < 0:
            return -1
    return out
