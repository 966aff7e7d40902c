"""Signatures with chosen shingles, and what becomes of them: for the tests of clusters."""

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from schemas.conform import conform
from schemas.tables import CLUSTERED, SIGNED
from stages.clusters import Clusters, cluster_rows
from stages.dedup import Dedup
from stages.signatures import sketch_permutations
from stages.signatures.sketch_kernel import sketch_rows

Text = tuple[str, Sequence[int]]
"""A scope and the shingles of one text to be compared in it."""


def signed_texts(
    rows: Sequence[Sequence[Text]], *, n_chars: Sequence[int] | None = None, ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the signatures of rows with these texts; n_chars is the number of their shingles, if not said otherwise."""
    flat = [(scope, np.unique(np.array(values, np.uint32))) for row in rows for scope, values in row if len(values)]
    starts = np.cumsum([0, *(len(values) for _, values in flat)])
    a, b = sketch_permutations(128, 1)
    minhash = sketch_rows(np.concatenate([*(v for _, v in flat), np.empty(0, np.uint32)]), starts, a, b)
    units = iter(
        [
            {
                "scope": scope,
                "message": -1,
                "exact_hash": exact_hash(values),
                "shingles": values.tolist(),
                "minhash": sketch.tolist(),
            }
            for (scope, values), sketch in zip(flat, minhash, strict=True)
        ]
    )
    names = ids or [f"a.jsonl:{i + 1}" for i in range(len(rows))]
    every = [np.unique(np.concatenate([np.array(v, np.uint32) for _, v in row] or [[]])) for row in rows]
    table = pl.DataFrame(
        {
            "id": names,
            "source": [name.rpartition(":")[0] for name in names],
            "tags": [[] for _ in rows],
            "score": None,
            "created": None,
            "n_chars": n_chars or [sum(len(set(values)) for _, values in row) for row in rows],
            "content_hash": [0] * len(rows),
            "text_hash": [exact_hash(values) if len(values) else None for values in every],
            "prompt_hash": None,
            "units": [[next(units) for _, values in row if len(values)] for row in rows],
        },
        schema={
            "id": pl.String,
            "source": pl.String,
            "tags": pl.List(pl.String),
            "score": pl.Float64,
            "created": pl.Datetime("us", "UTC"),
            "n_chars": pl.Int32,
            "content_hash": pl.UInt64,
            "text_hash": pl.Binary,
            "prompt_hash": pl.Binary,
            "units": pl.List(
                pl.Struct(
                    {
                        "scope": pl.String,
                        "message": pl.Int32,
                        "exact_hash": pl.Binary,
                        "shingles": pl.List(pl.UInt32),
                        "minhash": pl.List(pl.UInt32),
                    }
                )
            ),
        },
    )
    assert conform(table.to_arrow(), SIGNED).num_rows == len(rows)
    return table


def exact_hash(values: np.ndarray) -> bytes:
    return struct.pack(">QQ", len(values), hash(values.astype(np.uint32).tobytes()) % 2**64)


def signed(
    sets: Sequence[Sequence[int]], *, n_chars: Sequence[int] | None = None, ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the signatures of conversations with these shingles."""
    return signed_texts([[("conversation", values)] for values in sets], n_chars=n_chars, ids=ids)


def cluster(*shards: pl.DataFrame, config: Clusters | None = None, **keywords: Any) -> pl.DataFrame:
    """Return the fates of all rows, each shard's held against the schema; no loss is too great here."""
    quiet = msgspec.structs.replace(config or Clusters(), max_source_loss=1.0)
    tables = list(cluster_rows(shards, quiet, dedup=keywords.pop("dedup", Dedup()), **keywords))
    for shard, table in zip(shards, tables, strict=True):
        assert conform(table.to_arrow(), CLUSTERED).num_rows == shard.height
        assert table["id"].equals(shard["id"])
    return pl.concat(tables)


def order_of(frame: pl.DataFrame) -> list[int]:
    """Return rows from the longest to the shortest; ids here have one line number each."""
    line = pl.col("id").str.extract(r"(\d+)$").cast(pl.Int64)
    return frame.with_row_index().sort(-pl.col("n_chars"), "text_hash", line)["index"].to_list()


def jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def greedy(sets: Sequence[set[int]], order: Sequence[int], threshold: float) -> dict[int, tuple[int, float]]:
    """Return row -> (keeper, similarity) of the removed rows, by comparing every row with every kept row."""
    kept: list[int] = []
    removed = {}
    for row in order:
        found = max(((jaccard(sets[row], sets[k]), -i, k) for i, k in enumerate(kept) if sets[row]), default=None)
        if found and found[0] >= threshold:
            removed[row] = (found[2], found[0])
        elif sets[row]:
            kept.append(row)
    return removed


def planted(similarity: float, n_pairs: int, rng: np.random.Generator, size: int = 100) -> list[np.ndarray]:
    """Return 2 * n_pairs sets: 2k and 2k + 1 are as similar as said, just above where need be; others are strangers."""
    sets = []
    for _ in range(n_pairs):
        overlap = int(np.ceil(2 * size * similarity / (1 + similarity)))
        values = rng.choice(2**32, 2 * size - overlap, replace=False).astype(np.uint32)
        sets += [values[:size], values[-size:]]
    return sets


def removals(out: pl.DataFrame) -> dict[str, tuple[str, float]]:
    gone = out.filter(pl.col("keeper").is_not_null())
    return {row: (keeper, s) for row, keeper, s in gone.select("id", "keeper", "similarity").iter_rows()}


def boilerplate(n: int, rng: np.random.Generator, *, common: int, own: int) -> list[np.ndarray]:
    """Return sets of which any two share `common` shingles, and most of their bands, but not the `own` of each."""
    shared = rng.choice(2**32, common, replace=False)
    return [np.concatenate([shared, rng.integers(0, 2**32, own + k % 5)]) for k in range(n)]
