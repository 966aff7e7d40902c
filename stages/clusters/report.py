"""What clusters found in a shard, counted for the manifest."""

from typing import Final

import numpy as np
import polars as pl

from schemas.reasons import DropReason
from stages.clusters.losses import count_origins

LOST_TO: Final = (
    DropReason.EXACT_DUPLICATE,
    DropReason.NEAR_DUPLICATE,
    DropReason.ALL_COPIES,
    DropReason.AGAINST,
    DropReason.CONTAMINATED,
)
"""Reasons that a row is lost to other rows."""
_BAND: Final = 0.05
_MOST_SOURCES: Final = 64


def count_duplicates(out: pl.DataFrame, signed: pl.DataFrame, _config: object) -> dict[str, int]:
    """Return the counts of a shard (schemas.tables.CLUSTERED); `signed` has its rows in schemas.tables.SIGNED.

    All add up over shards; none is 0, but "lost/<origin>".

    "rows/<origin>" and "lost/<origin>": rows of an origin, and how many of them are dropped for what they resemble or
    contain. An origin is the path of a file ("rows/data/a.jsonl"), or a source that tags name ("rows/source:wiki"); a
    row counts for its path and for each of its sources. If a shard has more than 64 sources in its tags, those that
    have the fewest rows there count together, as "rows/source:*".
    "reason/<reason>": rows dropped for it (schemas.reasons).
    "scope/<scope>": dropped rows that have a keeper, by the scope in which they are similar.
    "similarity/0.80": those whose similarity is at least 0.80 and less than 0.85; "similarity/1.00": 1.
    "contaminated/<file>": rows that contain a record of this evaluation file, dropped or not.
    "split/<name>": rows that stay, by split.
    """
    is_lost = out["reason"].is_in([str(reason) for reason in LOST_TO])
    counts: dict[str, int] = {}
    origins = count_origins(signed, is_lost.fill_null(value=False).to_numpy(), most=_MOST_SOURCES)
    for origin, (n_rows, n_lost) in sorted(origins.items()):
        counts[f"rows/{origin}"] = n_rows
        counts[f"lost/{origin}"] = n_lost
    similar = out.filter(pl.col("reason").is_not_null() & pl.col("similarity").is_not_null())
    bands = np.floor(similar["similarity"].to_numpy() / _BAND + 1e-9).astype(np.int64)
    file = out["evaluation"].drop_nulls().str.replace(r":\d+(\.\d+)?$", "")
    for kind, values in (
        ("reason", out["reason"].drop_nulls()),
        ("scope", similar["scope"].drop_nulls()),
        ("similarity", pl.Series([f"{band * _BAND:.2f}" for band in bands.tolist()], dtype=pl.String)),
        ("contaminated", file),
        ("split", out.filter(pl.col("reason").is_null())["split"]),
    ):
        names, sizes = np.unique(values.to_numpy(), return_counts=True)
        counts |= {f"{kind}/{name}": int(n) for name, n in zip(names, sizes, strict=True)}
    return counts
