"""The stages of one run directory, brought up to date phase by phase: what is stale is found, and run."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.catalog import Catalog
from pipeline.corpus import CorpusTask, Place, Shards
from pipeline.execute import Settings, Timing
from pipeline.graph import GRAPH, Stage
from pipeline.keys import closure
from pipeline.plan import Task, corpus_key, fresh_records, manifest_key
from pipeline.pool import Workers
from pipeline.progress import Progress
from pipeline.source import Chunk
from pipeline.store import Store
from schemas.manifest import Manifest, ShardRecord


def unfinish(store: Store, stages: Iterable[Stage]) -> None:
    """Take back the manifests of `stages` and of all that comes after them, in this build or not.

    Whoever reads a run then never finds a complete stage that was made from what is no more.
    """
    stale = {stage.name for stage in stages}
    for stage in GRAPH:
        if stale.intersection((stage.name, *stage.reads)):
            stale.add(stage.name)
    for stage in reversed(GRAPH):
        if stage.name in stale:
            store.unfinish(stage.name)


@dataclass
class Refresh:
    """One run directory under way: what is known so far about every shard."""

    store: Store
    settings: Settings
    workers: Workers
    progress: Progress
    verify: bool = False
    """Whether a shard whose bytes are not those of its record counts as stale."""
    added_tokens: dict[str, int] = field(default_factory=dict)
    records: dict[str, list[ShardRecord]] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)

    def run_shards(self, stages: Sequence[Stage], chunks: Sequence[Chunk], catalog: Catalog) -> None:
        """Bring all shards of a phase up to date."""
        found: list[dict[str, ShardRecord] | None] = []
        stale = []
        for shard, chunk in enumerate(chunks):
            task = Task(shard, chunk, {name: records[shard] for name, records in self.records.items()})
            found.append(fresh_records(stages, self.settings.keys, task, self._lookup))
            if found[-1] is None:
                stale.append(task)
        names = [stage.name for stage in stages]
        if stale:
            self.progress.started(names, len(stale), len(chunks))
            unfinish(self.store, stages)
            if names[0] == GRAPH[0].name:
                catalog.unpack_for(stale, self.progress)
            for task, (records, timings) in self.workers.run(names, stale):
                catalog.used(task.chunk)
                found[task.shard] = records
                self._log(timings)
                self.progress.advanced(names, list(records.values()))
        for stage in stages:
            self.records[stage.name] = [records[stage.name] for records in found if records is not None]

    def run_corpus(self, stage: Stage, references: Mapping[str, Shards], *, then: Sequence[str]) -> None:
        """Bring a corpus stage up to date; workers that would be idle meanwhile get ready for the stages `then`."""
        inputs = tuple(self.shards(name) for name in stage.reads)
        key = corpus_key(
            self.settings.keys[stage.name],
            [self.records[name] for name in stage.reads],
            {name: [place.record for place in shards.places] for name, shards in references.items()},
        )
        known = [self._lookup(stage.name, shard) for shard in range(len(inputs[0]))]
        records = [record for record in known if record is not None and record.key == key]
        if len(records) != len(known):
            self.progress.started([stage.name], 1, 1)
            unfinish(self.store, [stage])

            def watch(name: str, n_read: int, n_shards: int) -> None:
                self.progress.reading(stage.name, name, n_read, n_shards)

            task = CorpusTask(key, inputs, references)
            records, timings = self.workers.run_corpus(stage.name, task, then=then, watch=watch)
            self._log(timings)
            self.progress.advanced([stage.name], records)
        self.records[stage.name] = records

    def finish(self, stage: Stage) -> None:
        """Declare a stage complete."""
        records = self.records[stage.name]
        _, libraries = closure((stage.run.__module__,))
        manifest = self.store.finish(
            stage,
            records,
            manifest_key(records),
            settings=self.settings.keys[stage.name],
            libraries=dict(libraries),
            added_tokens=self.added_tokens,
        )
        self.manifests[stage.name] = manifest
        spent = [timing.seconds + timing.write_seconds for timing in self.timings if timing.stage == stage.name]
        self.progress.finished(manifest, sum(spent) if spent else None)

    def shards(self, stage: str) -> Shards:
        """Return the kept rows of a stage that is up to date."""
        return Shards(stage, [Place(self.store.root, record) for record in self.records[stage]])

    def _lookup(self, stage: str, shard: int) -> ShardRecord | None:
        record = self.store.record(stage, shard)
        if record is None or not self.store.holds(stage, record):
            return None
        if self.verify and not self.store.is_whole(stage, record):
            self.store.forget(stage, shard)  # else a worker would trust the record
            return None
        return record

    def _log(self, timings: list[Timing]) -> None:
        """Append timings to events.jsonl: a diary, which nothing reads back, so the manifests stay free of clocks."""
        self.timings += timings
        now = round(time.time(), 3)
        with (self.store.root / "events.jsonl").open("a", encoding="utf-8") as file:
            for timing in timings:
                entry = {
                    "time": now,
                    "stage": timing.stage,
                    "shard": timing.shard,
                    "rows_in": timing.rows_in,
                    "seconds": round(timing.seconds, 4),
                    "write_seconds": round(timing.write_seconds, 4),
                }
                file.write(json.dumps(entry) + "\n")
