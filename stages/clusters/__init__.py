"""Clusters: every row is kept, or verified against the one row kept in its place."""

from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import GateError
from stages.clusters.lists import RowLists, row_lists

CROWD: Final = 16
"""Kept rows of a bucket that are compared one by one; more are looked up by their rare shingles."""
_NOBODY: Final = -1  # as in the kernel, which is not imported before it is needed


class Clusters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as a duplicate, and which copy stays."""

    threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    """Exact Jaccard similarity of shingles from which a row is a duplicate."""
    keep: Literal["longest", "first"] = "longest"
    """The longest conversation of a cluster, or the first by source and line."""
    recall: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.999
    """Probability that a pair at exactly the threshold becomes a candidate; more similar pairs have more."""


def cluster_rows(frame: pl.DataFrame, config: Clusters) -> pl.DataFrame:
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
    order = _rank(frame, config.keep)
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


def _rank(frame: pl.DataFrame, keep: Literal["longest", "first"]) -> NDArray[np.uint32]:
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
