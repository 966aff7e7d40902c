"""Dedup: mark what a cluster's survivor stands for, and send whole clusters to train or to validation."""

from hashlib import blake2b
from typing import Annotated, Final

import msgspec
import polars as pl

from schemas.reasons import DropReason

_HASH_BYTES: Final = 8


class Dedup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How clusters are split."""

    validation: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.02
    """Share of clusters that go to validation."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    """Another seed draws another validation set."""


def mark_duplicates(frame: pl.DataFrame, clusters: pl.DataFrame, config: Dedup) -> pl.DataFrame:
    """Add each row's cluster, keeper, similarity and cluster size, its split, and why it is dropped, if it is.

    `clusters` has the rows of `frame`, in the same order. The split is a function of the seed and the cluster's name,
    which its survivor's text makes: neither the order of files nor the addition of other rows moves a cluster, and no
    near-duplicate crosses from train to validation.

    Raises ValueError if the two frames do not have the same ids in the same order.
    """
    _check_alignment(frame["id"], clusters["id"])
    reason = (
        pl.when(pl.col("keeper").is_null())
        .then(None)
        .when(pl.col("is_exact"))
        .then(pl.lit(DropReason.EXACT_DUPLICATE.value))
        .otherwise(pl.lit(DropReason.NEAR_DUPLICATE.value))
    )
    evidence = clusters.select(
        "cluster",
        "keeper",
        "similarity",
        "n_duplicates",
        split=_splits(clusters["cluster"], config),
        drop_reason=reason.cast(pl.String),
    )
    return frame.hstack(evidence)


def _splits(cluster: pl.Series, config: Dedup) -> pl.Series:
    names = cluster.unique()
    key = config.seed.to_bytes(_HASH_BYTES, "big")
    limit = int(config.validation * 2 ** (8 * _HASH_BYTES))
    # one Python step per distinct cluster, under a microsecond: polars promises no hash that outlives its version
    in_validation = [
        int.from_bytes(blake2b(name.encode(), digest_size=_HASH_BYTES, key=key).digest(), "big") < limit
        for name in names.to_list()
    ]
    splits = pl.Series(["validation" if hit else "train" for hit in in_validation], dtype=pl.String)
    return cluster.replace_strict(names, splits, return_dtype=pl.String)


def _check_alignment(expected: pl.Series, got: pl.Series) -> None:
    if len(expected) != len(got):
        raise ValueError(
            f"dedup: {len(expected)} conversations but {len(got)} rows of clusters; they must come from one shard"
        )
    differs = (expected != got).arg_max() if len(got) else None
    if differs is not None and expected[differs] != got[differs]:
        raise ValueError(
            f"dedup: row {differs} is {expected[differs]} in the shard but {got[differs]} in clusters; "
            "both must list the same conversations in the same order"
        )
