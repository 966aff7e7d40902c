"""The last lines of a build: what came of it, what looks wrong, and the exact command that comes next."""

from typing import Final

from rich.console import Console

from pipeline.config import Config
from pipeline.counts import remarks, sentence
from pipeline.fates import contamination, largest_loss, splits_sentence, unfilled_splits
from pipeline.graph import NAMES
from pipeline.run import Built
from schemas.errors import GateError
from schemas.manifest import Manifest
from schemas.reasons import EXPLANATIONS, DropReason

WORRYING: Final = 0.2
"""Share of a stage's conversations whose loss deserves a remark; dedup may take more, for that is its work."""


def summary(console: Console, config: Config, built: Built, *, command: str) -> int:
    """Print the end of a build and return its exit code. Raises GateError when no conversation is left."""
    last = list(built.manifests.values())[-1]
    if not last.totals.kept:
        raise GateError(_nothing_left(config.run, built))
    for manifest in built.manifests.values():
        lost, n_asked = _lost(manifest), _asked(manifest)
        if manifest.stage != "dedup" and sum(lost.values()) > WORRYING * n_asked:
            console.print(_remark(config.run, manifest))
    for remark in remarks(built.manifests):
        console.print(remark)
    for said in unfilled_splits(config.sections["dedup"], built.manifests):
        console.print(f"note: {said}")
    for said in (*contamination(built.manifests), *filter(None, [largest_loss(built.manifests)])):
        console.print(f"note: {said}: chatloom duplicates {config.run}")
    if built.was_fresh:
        console.print(f"everything is up to date: {len(built.manifests)} stages, {built.n_shards} shard(s)")
        return 0
    if last.stage != NAMES[-1]:
        console.print(
            f"done up to {last.stage}: {last.totals.kept:,} conversations. Look: chatloom look {config.run} {last.stage}"
        )
        return 0
    for said in filter(None, [sentence(built.manifests), splits_sentence(built.manifests)]):
        console.print(said)
    packs = sum(file.rows for shard in last.shards for file in shard.kept_files())
    console.print(
        f"done: {last.totals.kept:,} conversations, {last.totals.tokens:,} tokens in {packs:,} packs. "
        f"Look: chatloom look {config.run} mask. Next: {command}"
    )
    return 0


def _nothing_left(run: str, built: Built) -> str:
    worst = next((m for m in built.manifests.values() if m.totals.rows_in and not m.totals.kept), None)
    if worst is None:
        return "the inputs hold no record: all of their lines are blank"
    return (
        f"no conversation is left after {worst.stage}: {worst.totals.rows_in:,} in, none kept. "
        f"{_reason(run, worst.stage, worst.totals.dropped)}"
    )


def _asked(manifest: Manifest) -> int:
    """Return how many conversations a stage was asked for: what is not in a sample was not wanted."""
    return manifest.totals.rows_in - manifest.totals.dropped.get(DropReason.NOT_SAMPLED, 0)


def _lost(manifest: Manifest) -> dict[str, int]:
    return {reason: n for reason, n in manifest.totals.dropped.items() if reason != DropReason.NOT_SAMPLED}


def _remark(run: str, manifest: Manifest) -> str:
    lost = _lost(manifest)
    return (
        f"note: {manifest.stage} dropped {sum(lost.values()) / _asked(manifest):.0%} of its conversations. "
        f"{_reason(run, manifest.stage, lost)}"
    )


def _reason(run: str, stage: str, dropped: dict[str, int]) -> str:
    reason, n = max(dropped.items(), key=lambda pair: pair[1])
    why = f"Mostly {reason} ({n:,}): {EXPLANATIONS[DropReason(reason)]}"
    return f"{why}. See one: chatloom look {run} {stage} --reason {reason}"
