"""Lines in, conversations out: each line becomes a canonical row, or a quarantined one with a reason."""

from collections import Counter

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.ingest.lane import lane_of, take
from stages.ingest.rules import rules_of
from stages.ingest.settings import Ingest
from stages.ingest.strict import read_strictly
from stages.ingest.strings import is_plain


def ingest_lines(frame: pl.DataFrame, config: Ingest) -> pl.DataFrame:
    """Turn each record of `frame` (schemas.tables.LINES) into its rows, in order: one, or as many as it has conversations.

    What cannot be read has `drop_reason`, `detail` and `excerpt` set and no messages; no record raises, and none is
    repaired in silence: what is kept is what the file says, and `repairs` tells what a policy changed.
    """
    taken = _take(frame, config)
    if taken is None:
        return read_strictly(frame, config)[0]
    rows, fast = taken
    if len(rows) == frame.height:
        return fast
    left = np.delete(np.arange(frame.height), rows)
    strict, records = read_strictly(frame[left], config)
    order = np.argsort(np.concatenate([rows, left[records]]), kind="stable")
    return pl.concat([fast, strict])[order]


def _take(frame: pl.DataFrame, config: Ingest) -> tuple[NDArray[np.int64], pl.DataFrame] | None:
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
