"""Lines in, conversations out: each line becomes a canonical row, or a quarantined one with a reason."""

from collections import Counter
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from stages.ingest.lane import lane_of, take
from stages.ingest.rules import rules_of
from stages.ingest.settings import Ingest
from stages.ingest.strict import read_strictly
from stages.ingest.strings import is_plain

I64 = NDArray[np.int64]
_MOST_STRETCHES: Final = 512
"""Tables of more pieces are sooner gathered row by row."""


def ingest_lines(frame: pl.DataFrame, config: Ingest) -> pl.DataFrame:
    """Turn each record of `frame` (schemas.tables.LINES) into its rows, in order: one, or as many as it has conversations.

    What cannot be read has `drop_reason`, `detail` and `excerpt` set and no messages; no record raises, and none is
    repaired in silence: what is kept is what the file says, and `repairs` tells what a policy changed.
    """
    taken = _take(frame, config)
    if taken is None:
        table, _ = read_strictly(frame, config)
    else:
        rows, table = taken
        left = np.delete(np.arange(frame.height), rows)
        if len(left):
            strict, records = read_strictly(frame[left], config)
            table = _interleaved(table, rows, strict, left[records])
    out = pl.from_arrow(table)
    assert isinstance(out, pl.DataFrame)
    return out


def _interleaved(fast: pa.Table, fast_rows: I64, strict: pa.Table, strict_rows: I64) -> pa.Table:
    """Return both tables as one, in the order of the records that their rows are of."""
    order = np.argsort(np.concatenate([fast_rows, strict_rows]), kind="stable")
    both = pa.concat_tables([fast, strict])
    edges = [0, *(np.flatnonzero(np.diff(order) != 1) + 1).tolist(), len(order)]
    if len(edges) > _MOST_STRETCHES:
        return both.take(pa.array(order))
    stretches = [both.slice(int(order[start]), end - start) for start, end in pairwise(edges)]
    return pa.concat_tables(stretches).combine_chunks()


def _take(frame: pl.DataFrame, config: Ingest) -> tuple[I64, pa.Table] | None:
    """Return what takes the fast lane, see there: of records of one file, under rules that the lane knows."""
    if frame["source"].n_unique() != 1 or frame["rules"].n_unique() != 1:
        return None
    if config.unknown == "text" and is_plain(frame["source"][0]):
        return None
    lane = lane_of(config, rules_of(frame["rules"][0]))
    return None if lane is None else take(frame, lane)


def count_records(out: pl.DataFrame, frame: pl.DataFrame, _config: Ingest) -> dict[str, int]:
    """Return how many rows were read in which shape, what policies changed, and how many records all of them are of."""
    counts = Counter({"records": frame.height})
    for shape, n in out["shape"].drop_nulls().value_counts().iter_rows():
        counts[f"shape/{shape}"] = n
    for repair in out["repairs"].explode().drop_nulls().to_list():
        name, _, n = repair.partition(":")
        counts[f"repaired/{name}"] += int(n)
    return dict(sorted(counts.items()))


__all__ = ["Ingest", "count_records", "ingest_lines"]
