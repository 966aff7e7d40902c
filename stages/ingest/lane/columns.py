"""From lines to columns: what the kernels are given, and what they have written, as Arrow has it."""

from ctypes import string_at

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas import fields as f
from stages.ingest.decode import LineError, strict_json
from stages.ingest.lane import Lane
from stages.ingest.lane.memory import Room, lines_of, room_for, room_for_one, tables_of
from stages.ingest.lane.rows_kernel import read_rows

I64 = NDArray[np.int64]


def read_columns(frame: pl.DataFrame, lane: Lane, size: int) -> tuple[I64, pa.Table]:
    """Return (the rows of `frame` that the lane knows, what they became), for lines of `size` bytes together."""
    lines, _raw = lines_of(frame)
    tables, columns, (found, _numbers) = tables_of(lane), room_for(lines, size, lane), room_for_one()
    n_rows, n_messages, n_tags = read_rows(lines, tables.grammar, tables.plans, found, columns.addresses())
    rows = columns.rows[:n_rows]
    scores, times, is_ranked = _ranked(columns.asked[:n_rows], lane)
    taken = frame[rows] if n_rows < frame.height else frame
    table = pa.table(
        {
            "id": _strings(columns.ids, columns.id_ends[: n_rows + 1]),
            "record_id": _strings(
                columns.record_ids, columns.record_id_ends[: n_rows + 1], columns.has_record_id[:n_rows]
            ),
            "source": taken["source"].to_arrow(),
            "line": taken["line"].to_arrow(),
            "offset": taken["offset"].to_arrow(),
            "shape": pa.array([plan.shape for plan in lane.plans], pa.string()).take(pa.array(columns.plans[:n_rows])),
            "tags": _tags(columns, lane, n_rows, n_tags),
            "score": scores,
            "created": times,
            "messages": _messages(columns, n_rows, n_messages),
            "tools": pa.nulls(n_rows, f.TOOLS.type),
            "rejected": pa.nulls(n_rows, f.REJECTED.type),
            "repairs": _repairs(columns.trimmed[:n_rows]),
            "detail": pa.nulls(n_rows, pa.string()),
            "excerpt": pa.nulls(n_rows, pa.string()),
            "drop_reason": pa.nulls(n_rows, pa.string()),
        }
    )
    return (rows, table) if is_ranked.all() else (rows[is_ranked], table.filter(pa.array(is_ranked)))


def _ranked(asked: I64, lane: Lane) -> tuple[pa.Array, pa.Array, NDArray[np.bool_]]:
    """Return (scores, times, for which rows both could be read), from where each row's values stand."""
    n_rows = len(asked)
    scores: list[float | None] = [None] * n_rows
    times: list[int | None] = [None] * n_rows
    is_ranked = np.ones(n_rows, np.bool_)
    for row, places in enumerate(asked.tolist() if lane.asked else ()):
        try:
            told = {
                key: strict_json(string_at(at, size), max_depth=1)
                for key, (at, size) in zip(lane.asked, places, strict=True)
                if size >= 0
            }
            scores[row], times[row] = lane.ranking.of(told)
        except LineError:
            is_ranked[row] = False
    return pa.array(scores, f.SCORE.type), pa.array(times, pa.int64()).cast(f.CREATED.type), is_ranked


def _tags(columns: Room, lane: Lane, n_rows: int, n_tags: int) -> pa.Array:
    """Return the tags of each row: those of all, then its own."""
    own = _strings(columns.tags, columns.tag_ends[: n_tags + 1])
    ends = columns.row_tags[: n_rows + 1]
    if not lane.tags:
        return _lists(ends, own)
    # Which of the common tags, and after them of all own ones, stands at each place.
    n_common = len(lane.tags)
    ends = ends + n_common * np.arange(n_rows + 1, dtype=np.int32)
    is_common = np.zeros(int(ends[-1]), np.bool_)
    is_common[(ends[:-1, None] + np.arange(n_common)).ravel()] = True
    which = np.empty(len(is_common), np.int64)
    which[is_common] = np.tile(np.arange(n_common), n_rows)
    which[~is_common] = n_common + np.arange(n_tags)
    return _lists(ends, pa.concat_arrays([pa.array(lane.tags, pa.string()), own]).take(pa.array(which)))


def _repairs(trimmed: I64) -> pa.Array:
    """Return what was changed, as stages.ingest.policies.settle says it."""
    is_changed = trimmed > 0
    ends = np.concatenate([[0], np.cumsum(is_changed)]).astype(np.int32)
    return _lists(ends, pa.array([f"trailing:{n}" for n in trimmed[is_changed].tolist()], pa.string()))


def _messages(columns: Room, n_rows: int, n_messages: int) -> pa.Array:
    roles = _strings(columns.roles, columns.role_ends[: n_messages + 1])
    contents = _strings(columns.contents, columns.content_ends[: n_messages + 1])
    rest = [pa.nulls(n_messages, field.type) for field in list(f.MESSAGE)[2:]]
    structs = pa.StructArray.from_arrays([roles, contents, *rest], fields=list(f.MESSAGE))
    return _lists(columns.row_messages[: n_rows + 1], structs)


def _strings(texts: NDArray[np.uint8], ends: NDArray[np.int32], is_there: NDArray[np.uint8] | None = None) -> pa.Array:
    validity = None if is_there is None else pa.py_buffer(np.packbits(is_there, bitorder="little"))
    buffers = [validity, pa.py_buffer(ends), pa.py_buffer(texts[: ends[-1]])]
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, buffers)


def _lists(ends: NDArray[np.int32], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)
