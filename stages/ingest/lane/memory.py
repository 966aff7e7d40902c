"""What the kernels are given, as addresses, and the arrays that lie there."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.ingest.lane import Lane
from stages.ingest.lane.keys_kernel import names_of
from stages.ingest.lane.layout import Columns, Found, Grammar, Lines, Plans
from stages.ingest.lane.messages_kernel import MAX_PARTS
from stages.ingest.lane.plan import (
    CANONICAL,
    HISTORY,
    IDS,
    IGNORED,
    READ,
    ROLES,
    SLOTS,
    SYSTEMS,
    TURN_KEYS,
    TURNS,
)
from stages.ingest.lane.text_kernel import SLACK, alphabet
from stages.ingest.lane.walk_kernel import MAX_SLOTS, PAIRS, ROOM, SCALAR, STOP
from stages.ingest.lane.walk_kernel import TURNS as TURN_LIST

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
_NO_SLOT = -1
_NUMBER_CHARS = 20  # of the longest line number, and a colon


@dataclass(frozen=True)
class Tables:
    """What the lane knows; the addresses are good as long as the arrays are referenced."""

    grammar: Grammar
    plans: Plans
    owners: tuple[Any, ...]


@dataclass(frozen=True)
class Room:
    """Room for all columns that the lines of a shard can fill; see stages.ingest.lane.rows_kernel.Columns."""

    rows: I64
    plans: I64
    ids: U8
    id_ends: I32
    record_ids: U8
    record_id_ends: I32
    has_record_id: U8
    tags: U8
    tag_ends: I32
    row_tags: I32
    trimmed: I64
    asked: I64
    roles: U8
    role_ends: I32
    contents: U8
    content_ends: I32
    row_messages: I32

    def addresses(self) -> Columns:
        """Return where they lie."""
        return Columns(*(getattr(self, name).ctypes.data for name in Columns._fields))


def lines_of(frame: pl.DataFrame) -> tuple[Lines, tuple[Any, ...]]:
    """Return the lines of `frame`, all of one file, and what they lie in."""
    raw = frame["raw"].rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    buffers = raw.buffers()
    starts = np.array([buffer.address for buffer in buffers[2:]], np.int64)
    ends = starts + np.array([buffer.size for buffer in buffers[2:]], np.int64)
    left = (frame["raw"].is_null() | frame["skip"].is_not_null()).to_numpy().astype(np.uint8)
    numbers = np.ascontiguousarray(frame["line"].to_numpy(), np.int64)
    prefix = np.frombuffer(f"{frame['source'][0]}:".encode(), np.uint8)
    lines = Lines(
        n_lines=frame.height,
        views=buffers[1].address + 16 * raw.offset,
        buffers=starts.ctypes.data,
        ends=ends.ctypes.data,
        is_left=left.ctypes.data,
        is_checked=_is_utf8(frame["raw"]),
        numbers=numbers.ctypes.data,
        prefix_size=len(prefix),
        prefix=prefix.ctypes.data,
    )
    return lines, (raw, starts, ends, left, numbers, prefix)


def _is_utf8(raw: pl.Series) -> bool:
    try:
        raw.cast(pl.String)
    except pl.exceptions.ComputeError:  # of one line at least; then each is looked at
        return False
    return True


def room_for(lines: Lines, size: int, lane: Lane) -> Room:
    """Return room for all that lines of `size` bytes can hold."""
    n_rows = lines.n_lines
    n_borders = n_rows * (MAX_PARTS - 1) * len(lane.border.encode())
    n_messages = size // 5 + 2  # half of a pair `["q","a"],` at least
    n_texts = size + SLACK
    return Room(
        rows=np.empty(n_rows, np.int64),
        plans=np.empty(n_rows, np.int64),
        ids=np.empty(n_rows * (lines.prefix_size + _NUMBER_CHARS) + SLACK, np.uint8),
        id_ends=_ends(n_rows),
        record_ids=np.empty(n_texts, np.uint8),
        record_id_ends=_ends(n_rows),
        has_record_id=np.empty(n_rows, np.uint8),
        tags=np.empty(n_texts, np.uint8),
        tag_ends=_ends(n_rows * MAX_PARTS),
        row_tags=_ends(n_rows),
        trimmed=np.empty(n_rows, np.int64),
        asked=np.empty((n_rows, len(lane.asked), 2), np.int64),
        roles=np.empty(max(map(len, CANONICAL)) * n_messages + SLACK, np.uint8),
        role_ends=_ends(n_messages),
        contents=np.empty(n_texts + n_borders, np.uint8),
        content_ends=_ends(n_messages),
        row_messages=_ends(n_rows),
    )


def _ends(n: int) -> I32:
    ends = np.empty(n + 1, np.int32)  # most of it is never touched
    ends[0] = 0
    return ends


def room_for_one() -> tuple[Found, I64]:
    """Return the memory for what is found in one line."""
    numbers = np.empty(sum(ROOM), np.int64)
    starts = np.cumsum([0, *ROOM[:-1]])
    return Found(*(numbers.ctypes.data + 8 * int(start) for start in starts)), numbers


@lru_cache(maxsize=8)
def tables_of(lane: Lane) -> Tables:
    """Return the tables of the lane."""
    slots = {key: slot for slot, key in enumerate((*SLOTS, *lane.asked))}
    assert len(slots) < MAX_SLOTS
    grammar, letters = _grammar(slots, {key.partition(".")[0] for key in lane.asked} - slots.keys())
    plans, rows = _plans(slots, lane)
    return Tables(grammar, plans, (letters, rows))


def _grammar(slots: dict[str, int], stops: set[str]) -> tuple[Grammar, list[NDArray[Any]]]:
    contents = np.full(len(slots), SCALAR, np.int64)
    contents[[slots[key] for key in TURNS]] = TURN_LIST
    contents[slots[HISTORY]] = PAIRS
    owners: list[NDArray[Any]] = [
        alphabet(),
        names_of(dict.fromkeys({*READ, *stops}, STOP) | slots),
        contents,
        names_of({key: number for number, key in enumerate((*TURN_KEYS, *IGNORED))}),
        names_of({name: CANONICAL.index(role) for name, role in ROLES.items()}),
    ]
    return Grammar(*(owner.ctypes.data for owner in owners)), owners


def _plans(slots: dict[str, int], lane: Lane) -> tuple[Plans, dict[str, Any]]:
    def bits(keys: Any) -> int:
        return sum(1 << slots[key] for key in keys)

    def rows(keys: list[tuple[str, ...]]) -> list[list[int]]:
        return [[slots[key] for key in row] + [_NO_SLOT] * (MAX_PARTS - len(row)) for row in keys]

    labels = [f"{key}:".encode() for key in slots]
    names = [name.encode() for name in CANONICAL]
    numbers = {
        "required": [bits(plan.required) for plan in lane.plans],
        "allowed": [bits({*plan.required, *plan.optional, *lane.asked}) for plan in lane.plans],
        "forms": [plan.form for plan in lane.plans],
        "systems": [slots[key] for key in SYSTEMS],
        "parts": rows([plan.question for plan in lane.plans]),
        "answers": [_NO_SLOT if plan.answer is None else slots[plan.answer] for plan in lane.plans],
        "tags": rows([plan.tags for plan in lane.plans]),
        "ids": [slots[key] for key in IDS],
        "written": [bits({*SYSTEMS, *plan.question, *plan.tags, plan.answer} - {None}) for plan in lane.plans],
        "asked": [slots[key] for key in lane.asked],
        "label_ends": np.cumsum([0, *map(len, labels)]),
        "role_ends": np.cumsum([0, *map(len, names)]),
    }
    texts = {"labels": b"".join(labels), "border": lane.border.encode(), "role_names": b"".join(names)}
    owners = {name: np.array(each, np.int64) for name, each in numbers.items()}
    owners |= {name: np.frombuffer(text + bytes(SLACK), np.uint8) for name, text in texts.items()}
    return Plans(
        n_plans=len(lane.plans),
        n_systems=len(SYSTEMS),
        n_ids=len(IDS),
        n_asked=len(lane.asked),
        border_size=len(texts["border"]),
        trims_end=lane.trims_end,
        keeps_opening=lane.keeps_opening,
        **{name: int(owner.ctypes.data) for name, owner in owners.items()},
    ), owners
