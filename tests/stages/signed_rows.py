"""Signed rows whose shingles are chosen, for the tests of clusters."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from schemas.conform import conform
from schemas.tables import SIGNED
from stages.signatures import sketch_permutations
from stages.signatures.sketch_kernel import sketch_rows

Texts = Mapping[str, Sequence[Sequence[int]]]
"""Scope to the shingles of each of its units."""


def signed(
    rows: Sequence[Texts], *, source: str = "a.jsonl", tags: Sequence[Sequence[str]] = (), num_perm: int = 32
) -> pl.DataFrame:
    """Return rows <source>:1, <source>:2, ... with these units, sketched with seed 1."""
    a, b = sketch_permutations(num_perm, 1)
    table = []
    for i, texts in enumerate(rows):
        units = []
        for scope, lists in texts.items():
            for message, shingles in enumerate(lists):
                values = np.unique(np.array(shingles, np.uint32))
                sketch = sketch_rows(values, np.array([0, len(values)]), a, b)[0]
                exact = int(values.sum()).to_bytes(8, "big") * 2
                units.append(unit(scope, message if scope == "turns" else -1, exact, values.tolist(), sketch.tolist()))
        table.append(
            {
                "id": f"{source}:{i + 1}",
                "source": source,
                "tags": list(tags[i]) if tags else [],
                "n_chars": 10,
                "content_hash": i,
                "text_hash": i.to_bytes(16, "big"),
                "prompt_hash": None,
                "units": units,
            }
        )
    empty = pl.DataFrame(pl.from_arrow(SIGNED.empty_table()))
    frame = pl.DataFrame(table, schema_overrides=empty.schema, infer_schema_length=None) if table else empty
    frame = pl.concat([empty, frame], how="diagonal").select(empty.columns)
    return pl.DataFrame(pl.from_arrow(conform(frame.to_arrow(), SIGNED)))


def unit(scope: str, message: int, exact: bytes, shingles: list[int], minhash: list[int]) -> dict[str, Any]:
    """Return a unit as a row of the column `units` has it."""
    return {"scope": scope, "message": message, "exact_hash": exact, "shingles": shingles, "minhash": minhash}
