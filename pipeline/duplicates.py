"""What deduplication did to a run, as facts: largest clusters, losses by source, contamination and splits.

Of a large run only narrow columns of clusters/ are scanned, and texts are fetched for the rows that are shown.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from pipeline.excerpt import EXCERPT, compared_line, unlike_words, words_around
from pipeline.fates import SourceLoss, source_losses
from pipeline.rows import Row, conversations, files_of, need_manifest, settings, take
from schemas.manifest import FileRecord
from schemas.reasons import DropReason
from schemas.scopes import Scope
from schemas.settings import ConfigError
from stages.clusters.origins import PREFIX

EXAMPLES: Final = 3
"""Rows shown of each evaluation file and of each file of `against`: those that overlap least, or are least similar, since if
even these are found rightly, all are."""
FILES: Final = 20
"""Files of those kinds that are shown; the rest is counted."""
_PATH: Final = r"^(?s)(.*):\d+(?:\.\d+)?$"
"""An id is <path>:<line>, or <path>:<line>.<k> of one of several conversations in a record."""


class Words(msgspec.Struct, frozen=True):
    """A conversation by its id and the beginning of what was compared; no text where it is not at hand."""

    id: str
    text: str | None


class Pair(msgspec.Struct, frozen=True):
    """A row, what it is similar to, and how much: exact Jaccard, or the share of the evaluation record found in it."""

    row: Words
    other: Words
    share: float
    reason: str | None
    """Why the row is removed; null for one that is kept."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster."""

    cluster: str
    n_duplicates: int
    """Its rows, survivors included."""
    removed: dict[str, int]
    """Rows removed, by reason."""
    lowest: float | None
    """Similarity of the row that is least similar to its keeper."""
    highest: float | None
    scopes: dict[str, int]
    sources: dict[str, int]
    least: Pair | None
    """The row that is least similar to its keeper, and that keeper: what to look at first."""

    @property
    def stays(self) -> bool:
        """Return whether any of its rows stays."""
        return sum(self.removed.values()) < self.n_duplicates


class Overlaps(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are similar to those of another file, or that contain them."""

    file: str
    rows: int
    kept: int
    """Those of them that are kept."""
    records: int
    """Records of that file which they are similar to or contain."""
    examples: list[Pair]


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What deduplication did to a run."""

    rows: int
    removed: dict[str, int]
    """Rows removed, by reason."""
    n_keepers: int
    """Rows kept that have duplicates."""
    clusters: list[Cluster]
    """The largest, the largest first."""
    sources: list[SourceLoss]
    """All, the worst first."""
    evaluations: list[Overlaps]
    contaminated: str
    """What becomes of rows that contain evaluation records: report or drop."""
    against: list[Overlaps]
    splits: dict[str, int]
    """Rows kept, by split."""


def survey(run: Path, *, top: int) -> Survey:
    """Return what deduplication did to a run, with its `top` largest clusters. Raises ConfigError if it is not built."""
    scan, _ = scan_clusters(run)
    counts = need_manifest(run, "clusters").totals
    n_rows = counts.rows_in
    if not n_rows:
        raise ConfigError(f"{run / 'clusters'}: no rows; `chatloom funnel {run}` shows where they went")
    reasons = dict(scan.group_by("reason").len().collect(engine="streaming").iter_rows())
    kept = scan.filter(pl.col("reason").is_null())
    splits = dict(kept.group_by("split").len().collect(engine="streaming").iter_rows())
    n_keepers = kept.filter(pl.col("n_duplicates") > 1).select(pl.len()).collect(engine="streaming").item()
    given = settings(run, "clusters")
    contains = (pl.col("overlap") >= float(given.get("overlap", 0))) & pl.col("evaluation").is_not_null()
    return Survey(
        rows=n_rows,
        removed={str(reason): n for reason, n in sorted(reasons.items(), key=lambda pair: str(pair[0])) if reason},
        n_keepers=n_keepers,
        clusters=_largest(run, scan, top),
        sources=source_losses(counts.counts),
        evaluations=_overlaps(run, scan.filter(contains), "evaluation", "overlap"),
        contaminated=str(given.get("contaminated", "report")),
        against=_overlaps(run, scan.filter(pl.col("reason") == DropReason.AGAINST), "keeper", "similarity"),
        splits={split: splits[split] for split in ("train", "validation", "test") if split in splits},
    )


def scan_clusters(run: Path) -> tuple[pl.LazyFrame, list[FileRecord]]:
    """Return a scan of what clusters decided, with the number of each `row`, and its files. Raises ConfigError."""
    files = files_of(need_manifest(run, "clusters"))
    return pl.scan_ipc([run / "clusters" / file.path for file in files], row_index_name="row"), files


def _largest(run: Path, scan: pl.LazyFrame, top: int) -> list[Cluster]:
    """Return the `top` largest clusters; of equals, first those that have a less similar row."""
    # A cluster of v rows has v rows that say so: how many clusters there are of each size is known without a name.
    sizes = scan.group_by("n_duplicates").len().filter(pl.col("n_duplicates") > 1).collect(engine="streaming")
    sizes = sizes.sort("n_duplicates", descending=True).with_columns(
        n=(pl.col("len") / pl.col("n_duplicates")).cum_sum()
    )
    enough = sizes.filter(pl.col("n") >= top)["n_duplicates"]
    smallest = enough[0] if len(enough) else 2
    names = (
        scan.filter(pl.col("n_duplicates") >= max(smallest, 2))
        .group_by("cluster", "n_duplicates")
        .agg(lowest=pl.col("similarity").min().fill_null(1.0))
        .top_k(top, by=["n_duplicates", "lowest", "cluster"], reverse=[False, True, True])
        .collect(engine="streaming")
        .sort("n_duplicates", "lowest", "cluster", descending=[True, False, False])
        .drop("lowest")
    )
    members = scan.filter(pl.col("cluster").is_in(names["cluster"].implode()))
    is_compared = pl.col("keeper").is_not_null() & pl.col("similarity").is_not_null()
    similarity, row = pl.col("similarity").filter(is_compared), pl.col("row").filter(is_compared)
    facts = members.group_by("cluster").agg(
        lowest=similarity.min(),
        highest=similarity.max(),
        removed=pl.col("reason").drop_nulls().value_counts(name="n"),
        scopes=pl.col("scope").drop_nulls().value_counts(name="n"),
        least=row.sort_by(similarity, row).first(),
    )
    by_name = {row["cluster"]: row for row in facts.collect(engine="streaming").iter_rows(named=True)}
    sources = _sources(run, members, names["cluster"])
    least = {row["row"]: row for row in _rows(scan, [row["least"] for row in by_name.values()])}
    texts = conversations(run, {row[key] for row in least.values() for key in ("id", "keeper")})
    return [
        Cluster(
            cluster=name,
            n_duplicates=n,
            removed=_ordered({pair["reason"]: pair["n"] for pair in by_name[name]["removed"]}),
            lowest=by_name[name]["lowest"],
            highest=by_name[name]["highest"],
            scopes=_ordered({pair["scope"]: pair["n"] for pair in by_name[name]["scopes"]}),
            sources=_ordered(sources[name]),
            least=_pair(least[at], texts) if (at := by_name[name]["least"]) is not None else None,
        )
        for name, n in names.iter_rows()
    ]


def _sources(run: Path, members: pl.LazyFrame, names: pl.Series) -> dict[str, Counter[str]]:
    """Return how many members of each cluster are from where, file by file: a cluster may hold much of the corpus."""
    number = pl.col("cluster").replace_strict(names, list(range(len(names))), return_dtype=pl.UInt32)
    rows = members.select("row", number.alias("number")).collect(engine="streaming").sort("row")
    counts = {name: Counter[str]() for name in names}
    signed = files_of(need_manifest(run, "signatures"))
    for part, tags in take(run / "signatures", signed, rows["row"].cast(pl.Int64).to_numpy(), ["id", "tags"]):
        named = pl.DataFrame({"number": rows["number"][part], "source": _source_names(tags)})
        for at, source, n in named.group_by("number", "source").len().iter_rows():
            counts[names[at]][source] += n
    return counts


def _source_names(rows: pl.DataFrame) -> pl.Series:
    """Return where each row is from: its own name for it (the tag source:<name>), or else the path of its file."""
    named = pl.col("tags").list.eval(pl.element().filter(pl.element().str.starts_with(PREFIX))).list.first()
    return rows.select(pl.coalesce(named, pl.col("id").str.extract(_PATH), pl.col("id"))).to_series()


def _rows(scan: pl.LazyFrame, numbers: Sequence[int | None]) -> Iterator[Row]:
    """Yield all columns of the rows with these numbers."""
    wanted = pl.Series([number for number in numbers if number is not None], dtype=pl.get_index_type())
    return scan.filter(pl.col("row").is_in(wanted.implode())).collect(engine="streaming").iter_rows(named=True)


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts, the greatest first."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _pair(row: Row, texts: dict[str, Row]) -> Pair:
    lines = [_line(id_, row["scope"], texts) for id_ in (row["id"], row["keeper"])]
    ours, theirs = unlike_words(*(line or "" for line in lines))
    return Pair(
        Words(row["id"], None if lines[0] is None else ours),
        Words(row["keeper"], None if lines[1] is None else theirs),
        row["similarity"],
        row["reason"],
    )


def _line(id_: str, scope: Scope | None, texts: dict[str, Row]) -> str | None:
    return compared_line(texts[id_]["messages"], scope) if id_ in texts else None


def _overlaps(run: Path, rows: pl.LazyFrame, other: str, share: str) -> list[Overlaps]:
    """Return what `rows` have in common with the files of the records that the column `other` names, by file."""
    named = rows.select("row", "reason", other, share, file=pl.coalesce(pl.col(other).str.extract(_PATH), other))
    least = pl.col("row").sort_by(share, "row").head(EXAMPLES)
    files = (
        named.group_by("file")
        .agg(rows=pl.len(), kept=pl.col("reason").null_count(), records=pl.col(other).n_unique(), examples=least)
        .collect(engine="streaming")
        .sort("rows", "file", descending=[True, False])
    )
    shown = [number for numbers in files["examples"].head(FILES) for number in numbers]
    examples = {row["row"]: row for row in _rows(rows, shown)}
    texts = conversations(run, {row[key] for row in examples.values() for key in ("id", other)})
    return [
        Overlaps(
            file=file,
            rows=n,
            kept=n_kept,
            records=n_records,
            examples=[_example(examples[at], other, share, texts) for at in numbers if at in examples],
        )
        for file, n, n_kept, n_records, numbers in files.iter_rows()
    ]


def _example(row: Row, other: str, share: str, texts: dict[str, Row]) -> Pair:
    if share == "similarity":
        return _pair(row, texts)
    record = _line(row[other], None, texts)
    text = _line(row["id"], None, texts)
    return Pair(
        Words(row["id"], None if text is None else words_around(text, record or "")),
        Words(row[other], None if record is None else record[:EXCERPT]),
        row[share],
        row["reason"],
    )
