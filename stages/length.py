"""Bounds on a conversation, before anything expensive is done with it."""

from typing import Annotated

import msgspec
import polars as pl

from schemas.reasons import DropReason

Count = Annotated[int, msgspec.Meta(ge=0)]


class Length(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on a conversation, inclusive."""

    min_chars: Count = 2
    """Fewest characters of all contents together."""
    max_chars: Count = 1_000_000
    """Most characters of all contents together."""
    min_turns: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Fewest messages of the assistant."""
    max_turns: Count = 10_000
    """Most messages of the assistant."""

    def __post_init__(self) -> None:
        for low, high in (("min_chars", "max_chars"), ("min_turns", "max_turns")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low}={getattr(self, low)} exceeds {high}={getattr(self, high)}; swap them or drop one"
                )


def mark_length(frame: pl.DataFrame, config: Length) -> pl.DataFrame:
    """Measure each conversation of `frame` and mark those out of bounds; nothing is removed or cut."""
    message = pl.element().struct
    measured = frame.with_columns(
        n_chars=pl.col("messages").list.eval(message.field("content").str.len_chars()).list.sum().cast(pl.Int32),
        n_turns=pl.col("messages").list.eval(message.field("role") == "assistant").list.sum().cast(pl.Int32),
    )
    n_chars, n_turns = pl.col("n_chars"), pl.col("n_turns")
    reason = (
        pl.when(n_chars < config.min_chars)
        .then(pl.lit(DropReason.TOO_SHORT.value))
        .when(n_chars > config.max_chars)
        .then(pl.lit(DropReason.TOO_LONG.value))
        .when(n_turns < config.min_turns)
        .then(pl.lit(DropReason.TOO_FEW_TURNS.value))
        .when(n_turns > config.max_turns)
        .then(pl.lit(DropReason.TOO_MANY_TURNS.value))
    )
    return measured.with_columns(drop_reason=reason)
