"""What deduplication counted, as facts and as sentences for a person: losses by source, contamination, splits."""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from pipeline.excerpt import visible
from schemas.manifest import Manifest
from schemas.reasons import DropReason
from stages.dedup import Dedup

FEW_ROWS: Final = 100
"""Rows below which the share that a source loses says little."""
LARGE_LOSS: Final = 0.1
"""Share of a source from which on its loss is mentioned at the end of a build."""


_EXPECTED: Final = 5
"""Conversations that a share stands for, from which on it is no chance that there are none."""


class SourceLoss(msgspec.Struct, frozen=True):
    """How much of one source went as duplicates."""

    source: str
    """The path of a file, or source:<name> as the records call it."""
    rows: int
    lost: int

    @property
    def share(self) -> float:
        """Return the share of its rows that it lost."""
        return self.lost / self.rows


def splits_sentence(manifests: Mapping[str, Manifest]) -> str | None:
    """Return how many conversations go to which split, in one line; None if nothing was counted."""
    counts = counted("split", _counts_of(manifests, "clusters"))
    if not sum(counts.values()):
        return None
    ordered = [name for name in ("train", "validation", "test") if name in counts]
    shares = [f"{name} {counts[name]:,} ({percent(counts[name], sum(counts.values()))})" for name in ordered]
    return f"splits: {', '.join(shares)}"


def unfilled_splits(dedup: Dedup, manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Yield a sentence for each split that has fewer conversations than [dedup] asks, or none of a share of many."""
    counts = counted("split", _counts_of(manifests, "clusters"))
    what = "first message of the user" if dedup.split_by == "prompt" else "text"
    for name, part in (("validation", dedup.validation), ("test", dedup.test)):
        got, n = counts.get(name, 0), sum(counts.values())
        if not n or (got >= part if isinstance(part, int) else got or part * n < _EXPECTED):
            continue
        yield (
            f"[dedup] {name} = {part}: {got:,} of {n:,} conversations are held out, for those with one {what} are never "
            "divided, and too many share theirs"
        )


def contamination(manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Yield a sentence for each evaluation file of which rows contain records."""
    counts = _counts_of(manifests, "clusters")
    what = "dropped" if counts.get(f"reason/{DropReason.CONTAMINATED}") else "reported; nothing is dropped for it"
    for path, n in counted("contaminated", counts).items():
        if n:
            yield f"{n:,} row(s) contain records of {path} ({what})"


def largest_loss(manifests: Mapping[str, Manifest]) -> str | None:
    """Return a sentence about the source that loses most to duplicates; None if no loss is large."""
    losses = source_losses(_counts_of(manifests, "clusters"))
    if not losses or losses[0].rows < FEW_ROWS or losses[0].share < LARGE_LOSS:
        return None
    worst = losses[0]
    return f"{visible(worst.source)} lost {worst.lost:,} of {worst.rows:,} rows ({percent(worst.lost, worst.rows)}) to duplicates"


def source_losses(counts: Mapping[str, int]) -> list[SourceLoss]:
    """Return what each source lost, from the counts of clusters: the worst first, sources of few rows behind the others."""
    rows, lost = counted("rows", counts), counted("lost", counts)
    losses = [SourceLoss(source, n, lost.get(source, 0)) for source, n in rows.items() if n]
    return sorted(losses, key=lambda loss: (loss.rows < FEW_ROWS, -loss.share, -loss.lost, loss.source))


def percent(part: int, whole: int) -> str:
    """Return a share in percent; 100 % is said of nothing less than the whole."""
    if part == whole:
        return "100 %"
    return f"{min(part / whole, 0.9999):.{2 if part / whole > 0.999 else 1}%}".replace("%", " %")


def _counts_of(manifests: Mapping[str, Manifest], stage: str) -> dict[str, int]:
    return manifests[stage].totals.counts if stage in manifests else {}


def counted(kind: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts called <kind>/<name>, by name, which may hold slashes itself."""
    return {name.removeprefix(f"{kind}/"): n for name, n in counts.items() if name.startswith(f"{kind}/")}
