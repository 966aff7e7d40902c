"""Dedup: drop what the clusters say, with the evidence, and send each row to its split."""

from typing import Annotated, Literal

import msgspec
import polars as pl

_EVIDENCE = ("keeper", "similarity", "scope", "evaluation", "overlap")

Part = Annotated[float, msgspec.Meta(ge=0.0, le=0.5)] | Annotated[int, msgspec.Meta(ge=0)]


class Cap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many conversations of a source, or with a tag, stay at most, of all splits together.

    They are drawn by the seed and what they say, after deduplication: what a smaller limit keeps, a larger one keeps too.
    """

    match: str
    """Pattern (*, ?) of a file's whole path or of a whole tag: "data/web*.jsonl", "source:flan*", "domain:medical", "*"."""
    limit: Annotated[int, msgspec.Meta(ge=0)]
    """Most conversations that stay; 0: none."""
    each: bool = False
    """Whether the limit holds for each path or tag that the pattern matches by itself (match = "task:*": so many of each
    task), not for all of them together."""

    def __post_init__(self) -> None:
        """Refuse a pattern that matches nothing."""
        if not self.match:
            raise ValueError('match is empty; expected a pattern of paths or tags, e.g. "source:flan*"')


class Dedup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which clusters are held out of training; clusters draws them, for a number of them is drawn from all."""

    validation: Part = 0.02
    """What goes to validation: a share of the conversations (0.02), or a number of them (500)."""
    test: Part = 0.0
    """What goes to the test split, in the same way."""
    split_by: Literal["prompt", "cluster"] = "prompt"
    """What is never divided: clusters and all conversations with the same first user message, or clusters alone."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    """Another seed draws other sets."""
    caps: tuple[Cap, ...] = ()
    """How many conversations of a source or with a tag stay at most: tables [[dedup.caps]]. One that several caps are about
    stays only if each of them keeps it; what caps leave is then split."""

    def __post_init__(self) -> None:
        """Refuse shares that leave less than half for training."""
        shares = [part for part in (self.validation, self.test) if isinstance(part, float)]
        if sum(shares) > 0.5 + 1e-9:
            raise ValueError(
                f"[dedup] validation = {self.validation} and test = {self.test} hold out {sum(shares):.3g} of the "
                "conversations; expected at most half: lower one of them"
            )


def mark_duplicates(frame: pl.DataFrame, clusters: pl.DataFrame, config: Dedup) -> pl.DataFrame:  # noqa: ARG001
    """Add each row's cluster and split, and what the clusters say of it as evidence and reason of its removal.

    `clusters` has the rows of `frame`, in the same order, and its splits were drawn with `config`.

    Raises ValueError if the two frames do not have the same ids in the same order.
    """
    _check_alignment(frame["id"], clusters["id"])
    return frame.hstack(clusters.select("cluster", *_EVIDENCE, "split", drop_reason="reason"))


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
