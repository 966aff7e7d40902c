"""Bounds on a conversation and on what is said in it, before anything expensive is done with it."""

import numpy as np
import polars as pl

from stages.length.rules import findings
from stages.length.said import Said
from stages.length.settings import Length, Noise, Pattern, ScriptShare, Side


def mark_length(frame: pl.DataFrame, config: Length) -> pl.DataFrame:
    """Measure each conversation of `frame` and mark those out of bounds; nothing is removed, cut or altered.

    Rules are asked in a fixed order: the whole conversation, then system, user, assistant and tool, then scripts, noise and
    patterns as they are listed. The first that a row fails is its reason, and `detail` says what was found where.
    """
    said = Said(frame)
    measured = frame.with_columns(
        n_chars=pl.Series(said.per_row(said.n_chars), dtype=pl.Int32),
        n_turns=pl.Series(said.n_turns, dtype=pl.Int32),
    )
    is_out = np.zeros(frame.height, np.bool_)
    found: list[pl.DataFrame] = []
    for finding in findings(said, config):
        is_new = ~is_out[finding.rows]
        if not is_new.any():
            continue
        is_out[finding.rows] = True
        told = pl.DataFrame({"row": finding.rows, "detail": finding.details}, schema_overrides={"detail": pl.String})
        found.append(told.filter(pl.Series(is_new)).with_columns(drop_reason=pl.lit(finding.reason.value)))
    if not found:
        return measured.with_columns(detail=pl.lit(None, pl.String), drop_reason=pl.lit(None, pl.String))
    marks = pl.DataFrame({"row": np.arange(frame.height)}).join(
        pl.concat(found), on="row", how="left", maintain_order="left"
    )
    return measured.hstack(marks.select("detail", "drop_reason"))


__all__ = ["Length", "Noise", "Pattern", "ScriptShare", "Side", "mark_length"]
