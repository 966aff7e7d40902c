"""The funnel: how many conversations and tokens each stage kept and dropped, and why; read from manifests alone."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.counts import Section, sections
from pipeline.fates import contamination, splits_sentence
from schemas.manifest import Manifest


def as_json(manifests: dict[str, Manifest]) -> dict[str, Any]:
    """Return {"stages": {name: {"in", "kept", "dropped", "tokens", "supervised", "counts"}}}."""
    stages = {
        name: {
            "in": manifest.totals.rows_in,
            "kept": manifest.totals.kept,
            "dropped": manifest.totals.dropped,
            "tokens": manifest.totals.tokens,
            "supervised": manifest.totals.supervised,
            "counts": manifest.totals.counts,
        }
        for name, manifest in manifests.items()
    }
    return {"stages": stages}


def as_text(manifests: dict[str, Manifest]) -> Group:
    """Return the funnel for a person, and below it what the stages counted."""
    parts: list[Table | Text] = [_funnel(manifests)]
    for section in sections(manifests):
        parts += [Text(f"\n{section.title}", "bold"), _table(section)]
    sentences = [*filter(None, [splits_sentence(manifests)]), *contamination(manifests)]
    return Group(*parts, *(Text(f"\n{said}") for said in sentences))


def _table(section: Section) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(section.headings):
        table.add_column(heading, justify="left" if i < section.n_names else "right")
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
