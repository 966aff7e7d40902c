"""What is stale: pure functions of keys and records, no clock, no file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.graph import SOURCE, Stage
from pipeline.keys import digest, shard_key
from pipeline.source import Chunk
from schemas.manifest import ShardRecord

Lookup = Callable[[str, int], ShardRecord | None]
"""(stage, shard) to the record of a committed shard whose files are there, or None."""


@dataclass(frozen=True)
class Task:
    """One shard that has to go through the stages of one phase."""

    shard: int
    chunk: Chunk
    known: dict[str, ShardRecord] = field(default_factory=dict)
    """Records of the earlier phases' stages, for this shard."""


def input_digests(stage: Stage, chunk: Chunk, records: Mapping[str, ShardRecord]) -> list[str]:
    """Return the digests of all that one shard of `stage` reads."""
    return [chunk.digest() if name == SOURCE else records[name].digest() for name in stage.reads]


def fresh_records(
    stages: Sequence[Stage], keys: Mapping[str, str], task: Task, lookup: Lookup
) -> dict[str, ShardRecord] | None:
    """Return the records of `stages` for one shard if all are fresh, else None.

    A stage is fresh when its record has the key that its code, settings and the digest of its input give; so a stage
    that is built anew with the same bytes leaves everything after it fresh.
    """
    records = dict(task.known)
    found = {}
    for stage in stages:
        record = lookup(stage.name, task.shard)
        if record is None or record.key != shard_key(keys[stage.name], input_digests(stage, task.chunk, records)):
            return None
        records[stage.name] = found[stage.name] = record
    return found


def corpus_key(
    key: str, inputs: Sequence[Sequence[ShardRecord]], references: Mapping[str, Sequence[ShardRecord]]
) -> str:
    """Return the key of a corpus stage: it reads every shard, and every reference, in order."""
    reads = [record.digest() for records in inputs for record in records]
    for name, records in references.items():
        reads += [f"{name}: {len(records)}", *(record.digest() for record in records)]
    return shard_key(key, reads)


def manifest_key(records: Sequence[ShardRecord]) -> str:
    """Return the key of a whole stage."""
    return digest(*(record.key for record in records))
