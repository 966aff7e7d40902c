"""Clusters: every row is kept, or verified against the one row kept in its place."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import GateError
from schemas.scopes import Scope
from stages.clusters.lists import RowLists, row_lists
from stages.clusters.memory import Spill
from stages.dedup import Dedup

CROWD: Final = 16
"""Kept rows of a bucket that are compared one by one; more are looked up by their rare shingles."""
_NOBODY: Final = -1  # as in the kernel, which is not imported before it is needed


Criterion = Literal["longest", "shortest", "first", "newest", "oldest", "score", "source"]


class Clusters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as a duplicate, and which copy stays."""

    threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    """Exact Jaccard similarity of shingles from which a row is a duplicate."""
    thresholds: dict[Scope, Annotated[float, msgspec.Meta(gt=0, le=1)]] = {}
    """Thresholds of single scopes of [signatures], where they differ: {prompt = 0.95}."""
    recall: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.999
    """Probability that a pair at exactly the threshold becomes a candidate; more similar pairs have more."""
    keep: Criterion | tuple[Criterion, ...] = "longest"
    """Which copy stays: "longest", "shortest", "first" (by source and line), "newest", "oldest", highest "score", or the best
    "source" (see priority); in a list, the next one decides between equals."""
    priority: tuple[str, ...] = ()
    """Patterns (*, ?) of sources from best to worst, for keep = "source": of their paths, or of their names in the tags."""
    copies: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    """Similar rows that may stay: a row goes when so many that stay are similar to it; 0: none of a cluster stays."""
    ignore_common: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of the texts from which on a shingle counts as boilerplate and is ignored; 0: none is."""
    against: tuple[str, ...] = ()
    """Other files, directories, globs or finished runs; rows similar to one of theirs are dropped."""
    evaluations: tuple[str, ...] = ()
    """Evaluation sets that must not be trained on; rows that contain one of their records are reported, or dropped."""
    overlap: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """Share of an evaluation record's shingles from which on a row contains it."""
    contaminated: Literal["report", "drop"] = "report"
    """What becomes of rows that contain an evaluation record: first look at the report, then drop them."""
    max_source_loss: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    """The build stops when a source loses more than this share (and at least 100 rows) to duplicates; 1: never."""
    memory: Annotated[float, msgspec.Meta(gt=0)] = 4.0
    """GiB that clustering may take; what needs more lies in a temporary file in the run. It changes nothing else."""

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """Return what decides which copy stays, the first thing first."""
        return (self.keep,) if isinstance(self.keep, str) else self.keep

    def threshold_of(self, scope: Scope) -> float:
        """Return the threshold of a scope."""
        return self.thresholds.get(scope, self.threshold)


def cluster_rows(
    shards: Sequence[pl.DataFrame],
    config: Clusters,
    *,
    dedup: Dedup,
    against: Sequence[pl.DataFrame] = (),
    evaluations: Sequence[pl.DataFrame] = (),
    spill: Spill | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield of each shard of schemas.tables.SIGNED its rows' fates (schemas.tables.CLUSTERED), in the same order."""
    if not shards:
        return
    frame = pl.concat(list(shards), rechunk=False)
    flat = frame.select("id", "n_chars", units=pl.col("units").list.first()).unnest("units")
    flat = flat.with_columns(
        exact_hash=pl.col("exact_hash").fill_null(b""),
        shingles=pl.col("shingles").fill_null([]),
        minhash=pl.col("minhash").fill_null(pl.lit([0xFFFFFFFF] * 128, pl.List(pl.UInt32))),
    )
    out = _old(flat, config)
    out = out.select(
        "id",
        "cluster",
        pl.when(pl.col("keeper").is_not_null())
        .then(pl.when("is_exact").then(pl.lit("exact_duplicate")).otherwise(pl.lit("near_duplicate")))
        .alias("reason"),
        "keeper",
        "similarity",
        pl.when(pl.col("keeper").is_not_null()).then(pl.lit("conversation")).alias("scope"),
        "n_duplicates",
        pl.lit(None, pl.String).alias("evaluation"),
        pl.lit(None, pl.Float64).alias("overlap"),
        pl.lit("train").alias("split"),
    )
    first = 0
    for shard in shards:
        yield out.slice(first, shard.height)
        first += shard.height


def _old(frame: pl.DataFrame, config: Clusters) -> pl.DataFrame:
    """Return each row's cluster, its keeper and their similarity, in the same order.

    Rows are visited from best to worst. A row is removed if and only if some row kept before it, found by a shared band
    of MinHash values, is at least `threshold` similar, exactly, on the stored shingles; its keeper is the most similar
    such row, or the better of equals. So every removed row is verified against its own survivor, a chain of similar
    rows does not collapse into one, and each cluster has one survivor. A row without shingles is always kept.

    Boilerplate does not make it quadratic: of a band that many kept rows share, a few are compared one by one, and the
    others are found by the rare shingles that similar sets must share, which loses no pair.

    The order is total and of the rows themselves: "longest" by n_chars, then exact_hash, then id; "first" by source and
    line number. Where rows stand in the frame changes nothing.

    Similarity is float64 |A & B| / |A | B| throughout; a pair stays when that is >= threshold.

    MinHash values and shingles are read where they lie, in as many chunks as the frame has. Memory beyond the frame
    and the result: 4 * bands + 170 bytes per row (270 at the default threshold), 4 more for each band that a row shares
    and 20 for each bucket; for rows in crowded buckets also up to 768 for the index of rare shingles and 16 for each
    shingle posted there.

    Raises GateError if `threshold` is too low for the recall asked of so few MinHash values.
    """
    if frame.is_empty():
        return _table(frame, np.empty(0, np.int32), np.empty(0, np.float64))
    # numba takes half a second to import and is of no use to a process that only looks at a run
    from stages.clusters.bucket_kernel import band_keys, bucket_rows
    from stages.clusters.greedy_kernel import keep_greedily
    from stages.clusters.set_kernel import bitmap_rows

    shingles, minhash = row_lists(frame["shingles"]), row_lists(frame["minhash"])
    n_bands, n_values = choose_bands(_num_perm(minhash), config.threshold, config.recall)
    buckets = band_keys(minhash.addresses, shingles.sizes, n_bands, n_values)
    bucket_sizes = bucket_rows(buckets, shingles.sizes)
    bitmaps = bitmap_rows(shingles.addresses, shingles.sizes)
    order = _rank(frame, config.criteria[0])
    keeper, similarity = keep_greedily(
        order, buckets, bucket_sizes, shingles.addresses, shingles.sizes, bitmaps, config.threshold, CROWD
    )
    return _table(frame, keeper, similarity)


def choose_bands(num_perm: int, threshold: float, recall: float) -> tuple[int, int]:
    """Return bands and values per band: the longest bands that find a pair at the threshold with probability `recall`.

    With b bands of r values the probability is 1 - (1 - threshold^r)^b (Leskovec, Rajaraman and Ullman, Mining of
    Massive Datasets, section 3.4). Longer bands propose fewer pairs that are not duplicates.
    """
    for n_values in range(num_perm, 0, -1):
        n_bands = num_perm // n_values
        if 1 - (1 - threshold**n_values) ** n_bands >= recall:
            return n_bands, n_values
    raise GateError(
        f"[clusters] threshold={threshold} cannot be found with recall={recall} from {num_perm} MinHash values; "
        "raise threshold or [signatures] num_perm, or lower recall"
    )


def _num_perm(minhash: RowLists) -> int:
    n = int(minhash.sizes[0])
    if (minhash.sizes != n).any():
        raise ValueError(
            f"column minhash: expected {n} values in every row, got rows with {minhash.sizes.min()} to "
            f"{minhash.sizes.max()}; sign all shards with one [signatures] num_perm"
        )
    return n


def _rank(frame: pl.DataFrame, keep: str) -> NDArray[np.uint32]:
    """Return row numbers from best to worst."""
    if keep == "longest":
        by = [-pl.col("n_chars").cast(pl.Int64), pl.col("exact_hash"), pl.col("id")]
    else:
        # line 10 comes after line 9, so the number is compared as one
        parts = pl.col("id").str.extract_groups(r"^(?s)(.*):(\d+)$").struct
        by = [parts.field("1").fill_null(pl.col("id")), parts.field("2").cast(pl.UInt64, strict=False), pl.col("id")]
    return frame.select(pl.arg_sort_by(by)).to_series().to_numpy()


def _table(frame: pl.DataFrame, keeper: NDArray[np.int32], similarity: NDArray[np.float64]) -> pl.DataFrame:
    is_removed = keeper != _NOBODY
    survivor = np.where(is_removed, keeper, np.arange(len(keeper), dtype=np.int32))
    n_duplicates = np.bincount(survivor, minlength=len(keeper))[survivor]
    # all texts without tokens have the same exact hash, and none is a duplicate of another
    has_shingles = pl.col("shingles").list.len() > 0
    names = frame.select(
        "id", "exact_hash", cluster=pl.when(has_shingles).then(pl.col("exact_hash").bin.encode("hex")).otherwise("id")
    )
    of_survivor = names[survivor]
    return pl.DataFrame(
        {
            "id": names["id"],
            "cluster": of_survivor["cluster"],
            "removed": is_removed,
            "keeper": of_survivor["id"],
            "similarity": similarity,
            "is_exact": (names["exact_hash"] == of_survivor["exact_hash"]) & pl.Series(is_removed),
            "n_duplicates": n_duplicates.astype(np.int32),
        }
    ).select(
        "id",
        "cluster",
        pl.when("removed").then("keeper").alias("keeper"),
        pl.when("removed").then("similarity").alias("similarity"),
        "is_exact",
        "n_duplicates",
    )
