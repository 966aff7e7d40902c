"""Everything that deduplication decided about one row, with the texts to see it by."""

from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from pipeline.duplicates import scan_clusters
from pipeline.excerpt import compared
from pipeline.rows import conversations, fate, find
from schemas.scopes import Scope
from schemas.settings import ConfigError

MEMBERS: Final = 10
"""Other rows of its cluster that are shown."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What clusters decided of one row."""

    id: str
    reason: str | None
    keeper: str | None
    similarity: float | None
    scope: Scope | None
    split: str


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one row."""

    row: Member
    cluster: str
    n_duplicates: int
    members: list[Member]
    """Other rows of its cluster, the least similar first, no more than are shown."""
    beside: Member | None
    """The row that was compared, and removed: this one, or of a keeper the least similar one."""
    keeper_stays: bool
    """Whether its keeper stays; with [clusters] copies = 0 it goes as well."""
    evaluation: str | None
    overlap: float | None
    texts: dict[str, list[tuple[str, str]]]
    """(role, text) of the messages compared, by id: of the row that was removed, and of its keeper."""
    record_texts: dict[str, list[tuple[str, str]]]
    """(role, text) of all messages of the row and of the evaluation record that it contains, by id."""


def story(run: Path, wanted: str) -> Story:
    """Return everything about the row with an id. Raises ConfigError if there is none."""
    scan, files = scan_clusters(run)
    found = find(run / "clusters", files, wanted)
    if found is None:
        raise ConfigError(
            f"{run / 'clusters'}: no row has the id {wanted!r}. {_whose(scan, run, wanted) or fate(run, wanted)}"
        )
    values = found[1]
    of_cluster = (pl.col("cluster") == values["cluster"]) & (pl.col("id") != wanted)
    others = scan.filter(of_cluster).select(*Member.__struct_fields__).bottom_k(
        MEMBERS, by=[pl.col("similarity").fill_null(2.0), "id"]
    )  # fmt: skip
    members = [Member(**row) for row in others.collect(engine="streaming").iter_rows(named=True)]
    members.sort(key=lambda member: (member.similarity is None, member.similarity, member.id))
    row = Member(**{name: values[name] for name in Member.__struct_fields__})
    beside = row if row.keeper else next((member for member in members if member.keeper == wanted), None)
    pair = {wanted, *((beside.id, str(beside.keeper)) if beside else ())}
    record = {wanted, values["evaluation"]} if values["evaluation"] else set[str]()
    said = {id_: values["messages"] for id_, values in conversations(run, pair | record).items()}
    return Story(
        row=row,
        cluster=values["cluster"],
        n_duplicates=values["n_duplicates"],
        members=members,
        beside=beside,
        keeper_stays=beside is None or _stays(scan, beside),
        evaluation=values["evaluation"],
        overlap=values["overlap"],
        texts={id_: compared(said[id_], beside.scope if beside else None) for id_ in pair if id_ in said},
        record_texts={id_: compared(said[id_], None) for id_ in record if id_ in said},
    )


def _stays(scan: pl.LazyFrame, removed: Member) -> bool:
    reason = scan.filter(pl.col("id") == removed.keeper).select("reason").collect(engine="streaming")["reason"]
    return not reason.drop_nulls().len()


def _whose(scan: pl.LazyFrame, run: Path, wanted: str) -> str | None:
    """Say which rows were compared with the record of another file that has this id; None if none was."""
    is_like = (pl.col("keeper") == wanted) | (pl.col("evaluation") == wanted)
    rows = scan.filter(is_like).select("id").collect(engine="streaming")["id"]
    if not len(rows):
        return None
    shown = ", ".join(rows.head(MEMBERS)) + (", ..." if len(rows) > MEMBERS else "")
    return (
        f"It is a record of [clusters] against or evaluations, which {len(rows):,} row(s) are similar to or contain: {shown}. "
        f"Beside it: chatloom duplicates {run} --id {rows[0]!r}"
    )
