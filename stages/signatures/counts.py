"""How many texts there are to compare, by scope."""

from typing import Final

import polars as pl

from stages.signatures import Signatures

TEXTS: Final = "texts/"


def count_texts(out: pl.DataFrame, frame: pl.DataFrame, config: Signatures) -> dict[str, int]:  # noqa: ARG001
    """Return {"texts/<scope>": signatures of that scope in `out`}: a text without tokens has none."""
    scopes = out["units"].list.eval(pl.element().struct.field("scope")).explode(empty_as_null=False, keep_nulls=False)
    return {f"{TEXTS}{scope}": n for scope, n in sorted(scopes.value_counts().iter_rows())}
