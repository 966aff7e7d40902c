"""The two halves of a stage's output, kept and dropped, and the check that no conversation is lost between them."""

from dataclasses import dataclass, field
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.graph import Stage
from schemas.conform import conform
from schemas.tables import dropped_schema

DROP_REASON: Final = "drop_reason"
WINDOW: Final = r"#\d+$"
"""What the id of a window has behind that of its conversation, which ends in a colon and a number."""


class StageError(RuntimeError):
    """A stage broke its contract: a defect of the code, never of the data."""


@dataclass(frozen=True)
class Halves:
    """A stage's output for one shard, split and checked: every conversation that went in is in one of the halves."""

    kept: pa.Table
    dropped: pa.Table | None
    """None when no row was dropped."""
    reasons: dict[str, int]
    """Conversations dropped, by reason."""
    rows_in: int
    n_kept: int
    """Conversations kept, however many rows each of them has."""
    counts: dict[str, int] = field(default_factory=dict)


def split(stage: Stage, shard: int, out: pl.DataFrame, rows_in: int, counts: dict[str, int] | None = None) -> Halves:
    """Split a stage's output into kept and dropped rows.

    Raises StageError if conversations in are not conversations out, and SchemaError if a table is not what was promised.
    """
    table = out.to_arrow()
    reasons: dict[str, int] = {}
    dropped = None
    is_kept = pa.repeat(pa.scalar(value=True), table.num_rows)
    if DROP_REASON in table.column_names:
        is_kept = pc.is_null(table[DROP_REASON])
        if table.num_rows and not pc.all(is_kept).as_py():
            dropped = table.filter(pc.invert(is_kept))
            dropped = _fill(dropped, dropped_schema(stage.writes, stage.evidence)).combine_chunks()
            reasons = dict(sorted(zip(*_group(dropped), strict=True)))
    # Filtered even if every row is kept: it copies, and what a frame has in the unused bits of its bitmaps is chance.
    table = table.filter(is_kept)
    kept = conform(table, stage.writes).combine_chunks()
    n_kept, n_dropped = _conversations(kept), sum(reasons.values())
    if stage.opens:
        rows_in = _opened(stage, shard, out, rows_in)
    if stage.expands:
        n_kept = _distinct(stage, shard, kept, dropped)
    if n_kept + n_dropped != rows_in:
        raise StageError(
            f"{stage.name}, shard {shard}: {rows_in} conversations in, but {n_kept} kept + {n_dropped} dropped"
        )
    return Halves(kept, dropped, reasons, rows_in, n_kept, counts or {})


def _fill(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Conform dropped rows: a column that the stage could not fill is null."""
    for column in schema:
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
    return conform(table, schema)


def _group(dropped: pa.Table) -> tuple[list[str], list[int]]:
    members = _members(dropped)
    counts = dropped.select([DROP_REASON]).append_column("n", members).group_by(DROP_REASON).aggregate([("n", "sum")])
    return counts[DROP_REASON].to_pylist(), counts["n_sum"].to_pylist()


def _members(table: pa.Table) -> pa.Array:
    """Return how many conversations each row stands for: a pack has several."""
    if "ids" in table.column_names:
        return pc.list_value_length(table["ids"])
    return pa.array([1] * table.num_rows, pa.int32())


def _conversations(table: pa.Table) -> int:
    return pc.sum(_members(table)).as_py() or 0


def _distinct(stage: Stage, shard: int, kept: pa.Table, dropped: pa.Table | None) -> int:
    """Return the conversations that `kept` rows are of. Raises StageError if rows share an id, or one is also dropped."""
    ids = pc.unique(kept["id"])
    if len(ids) != kept.num_rows:
        raise StageError(f"{stage.name}, shard {shard}: {kept.num_rows - len(ids)} kept row(s) have another one's id")
    conversations = pc.unique(pc.replace_substring_regex(ids, WINDOW, ""))
    both = [] if dropped is None else pc.filter(dropped["id"], pc.is_in(dropped["id"], conversations)).to_pylist()
    if both:
        raise StageError(f"{stage.name}, shard {shard}: both kept and dropped: {', '.join(both[:5])}")
    return len(conversations)


def _opened(stage: Stage, shard: int, out: pl.DataFrame, records_in: int) -> int:
    """Return the conversations that records were found to hold. Raises StageError if a record has none, or ids repeat."""
    n_records, n_ids = out["line"].n_unique(), out["id"].n_unique()
    if n_records != records_in or n_ids != out.height:
        raise StageError(
            f"{stage.name}, shard {shard}: {records_in} records in, but {n_records} of them came out as {out.height} rows with "
            f"{n_ids} ids"
        )
    return out.height
