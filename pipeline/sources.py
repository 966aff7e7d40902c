"""What became of each input file's conversations, stage by stage; read from manifests alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.fates import FEW_ROWS
from schemas.manifest import Manifest, ShardRecord, Totals, total
from schemas.reasons import DropReason


class FileFate(NamedTuple):
    """One file's way through the stages, in conversations; or that of several files together."""

    path: str
    n_in: int
    """Conversations that ingest found in it."""
    kept: dict[str, int]
    """Conversations that each stage kept."""
    asked: int
    """Those of `n_in` that no share, limit or cap left out."""
    lost: int
    """Those of `asked` that went; of one that was cut into windows, it is there as long as one window is."""
    tokens: int
    """Tokens that are packed."""
    trained: int
    """Those among them that are trained."""


def by_source(manifests: Mapping[str, Manifest]) -> dict[str, dict[str, Totals]]:
    """Return the sums over each file's shards, stage by stage: {path: {stage: totals}}, in the order of the inputs."""
    shards: dict[str, dict[str, list[ShardRecord]]] = {}
    for stage, manifest in manifests.items():
        for shard in manifest.shards:
            shards.setdefault(shard.source, {}).setdefault(stage, []).append(shard)
    return {
        path: {stage: total(tuple(of_stage)) for stage, of_stage in stages.items()} for path, stages in shards.items()
    }


def file_fates(manifests: Mapping[str, Manifest]) -> list[FileFate]:
    """Return what became of each file: those that lost the largest share first, files of few conversations behind the others."""
    fates = []
    for path, stages in by_source(manifests).items():
        kept, packed = {stage: totals.kept for stage, totals in stages.items()}, stages.get("pack")
        n_in = stages["ingest"].rows_in if "ingest" in stages else 0
        n_tokens, n_trained = (packed.tokens, packed.supervised) if packed else (0, 0)
        asked = n_in - sum(totals.dropped.get(DropReason.NOT_SAMPLED, 0) for totals in stages.values())
        lost = asked - min((asked, *kept.values()))
        fates.append(FileFate(path, n_in, kept, asked, lost, n_tokens, n_trained))
    return sorted(
        fates, key=lambda fate: (fate.asked < FEW_ROWS, -fate.lost / max(fate.asked, 1), -fate.lost, fate.path)
    )


def together(fates: Sequence[FileFate], path: str) -> FileFate:
    """Return several files as one, under the name `path`."""
    stages = {stage for fate in fates for stage in fate.kept}
    return FileFate(
        path,
        sum(fate.n_in for fate in fates),
        {stage: sum(fate.kept.get(stage, 0) for fate in fates) for stage in stages},
        sum(fate.asked for fate in fates),
        sum(fate.lost for fate in fates),
        sum(fate.tokens for fate in fates),
        sum(fate.trained for fate in fates),
    )
