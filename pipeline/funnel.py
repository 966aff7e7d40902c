"""The funnel: how many conversations and tokens each stage kept and dropped, and why; read from manifests alone."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.counts import Section, records_sentence, sections
from pipeline.fates import contamination, splits_sentence
from pipeline.sources import by_source
from schemas.manifest import Manifest, Totals


def as_json(manifests: dict[str, Manifest]) -> dict[str, Any]:
    """Return {"stages": {name: {"in", "kept", "dropped", "tokens", "supervised", "counts"}}, "sources": {path: the same}}."""
    return {
        "stages": {name: _plain(manifest.totals) for name, manifest in manifests.items()},
        "sources": {
            path: {name: _plain(totals) for name, totals in stages.items()}
            for path, stages in by_source(manifests).items()
        },
    }


def _plain(totals: Totals) -> dict[str, Any]:
    return {
        "in": totals.rows_in,
        "kept": totals.kept,
        "dropped": totals.dropped,
        "tokens": totals.tokens,
        "supervised": totals.supervised,
        "counts": totals.counts,
    }


def as_text(manifests: dict[str, Manifest]) -> Group:
    """Return the funnel for a person, and below it what the stages counted."""
    parts: list[Table | Text] = [_funnel(manifests)]
    for section in sections(manifests):
        parts += [Text(f"\n{section.title}", "bold"), _table(section)]
    sentences = [
        *filter(None, [records_sentence(manifests), splits_sentence(manifests)]),
        *contamination(manifests),
    ]
    return Group(*parts, *(Text(f"\n{said}") for said in sentences))


def _table(section: Section) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(section.headings):
        is_name = i < section.n_names  # which is told from others by its end as well
        table.add_column(heading, justify="left" if is_name else "right", overflow="fold" if is_name else "ellipsis")
    for row in section.rows:
        table.add_row(*map(Text, row))
    return table


def _funnel(manifests: dict[str, Manifest]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for heading in ("in", "kept", "dropped", "tokens", "trained"):
        table.add_column(heading, justify="right")
    table.add_column("why dropped")
    for name, manifest in manifests.items():
        totals = manifest.totals
        n_dropped = sum(totals.dropped.values())
        reasons = ", ".join(
            f"{reason} {n:,}" for reason, n in sorted(totals.dropped.items(), key=lambda pair: -pair[1])
        )
        table.add_row(
            name,
            f"{totals.rows_in:,}",
            f"{totals.kept:,}",
            f"{n_dropped:,}" if n_dropped else "-",
            f"{totals.tokens:,}" if totals.tokens else "",
            f"{totals.supervised / totals.tokens:.1%}" if totals.supervised else "",
            reasons,
        )
    return table
