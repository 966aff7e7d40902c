"""The builder: finds what is stale, runs it phase by phase, and says what became of every conversation."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline.assets import Assets, load_assets, write_tokenizer
from pipeline.card import dataset_card
from pipeline.catalog import Catalog
from pipeline.config import Config
from pipeline.corpus import CorpusTask, Place, Shards
from pipeline.execute import Settings, Timing
from pipeline.graph import GRAPH, NAMES, Stage, phases
from pipeline.kernel_cache import use_kernel_cache
from pipeline.keys import closure, stage_key
from pipeline.plan import Task, corpus_key, fresh_records, manifest_key
from pipeline.pool import Workers
from pipeline.relocate import relocate
from pipeline.source import Chunk, SourceError
from pipeline.store import Store
from schemas.files import write_if_changed
from schemas.lock import locked
from schemas.manifest import Manifest, ShardRecord, read_manifests
from schemas.settings import ConfigError


class Progress:
    """What a build tells its watcher; the default says nothing."""

    def found(self, paths: Sequence[str], ignored: Sequence[str], chunks: Sequence[Chunk]) -> None:
        """Report the inputs, and what lies in the directories beside them but is not read."""

    def added(self, template: str, tokens: dict[str, int]) -> None:
        """Report the tokens that a template declares and the tokenizer lacked, with the ids they got."""

    def started(self, stages: Sequence[str], n_stale: int, n_shards: int) -> None:
        """Report that a phase begins."""

    def advanced(self, stages: Sequence[str], records: Sequence[ShardRecord]) -> None:
        """Report that one shard has gone through a phase."""

    def finished(self, manifest: Manifest, seconds: float | None) -> None:
        """Report a complete stage; `seconds` of work over all workers, None if it was up to date."""


@dataclass
class Built:
    """What a build did."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    n_shards: int = 0

    @property
    def was_fresh(self) -> bool:
        """Return whether nothing had to be done."""
        return not self.timings


def build(
    config: Config,
    *,
    workers: int = 1,
    until: str = NAMES[-1],
    fresh: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Bring the run directory up to date with its inputs and settings, up to stage `until`.

    Killed at any moment, the next build goes on and ends with the same bytes. `verify` reads every byte of what is built
    and counts a shard whose hash is not its record's as stale; `fresh` forgets everything. Raises UserError, OSError.
    """
    use_kernel_cache()
    root = Path(config.run)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"run = {config.run!r}: there is a file of that name; give a directory")
    stages = GRAPH[: NAMES.index(until) + 1]
    catalog = Catalog(root, config.source)
    assets = load_assets(config) if any(stage.assets for stage in stages) else None
    with locked(root / ".lock"):
        store = Store(root)
        store.sweep()
        if fresh:
            for name in NAMES:
                shutil.rmtree(store.directory(name), ignore_errors=True)
        return _Build(config, store, stages, workers, verify, progress or Progress()).run(catalog, assets)


class _Build:
    """One build under way: what is known so far about every shard."""

    def __init__(
        self,
        config: Config,
        store: Store,
        stages: tuple[Stage, ...],
        workers: int,
        verify: bool,
        progress: Progress,
    ) -> None:
        self.config, self.store, self.stages, self.workers = config, store, stages, workers
        self.verify, self.progress = verify, progress
        self.records: dict[str, list[ShardRecord]] = {}
        self.added_tokens: dict[str, int] = {}
        self.built = Built()

    def run(self, catalog: Catalog, assets: Assets | None) -> Built:
        chunks = catalog.chunks()
        if not chunks:
            raise SourceError(
                f"the inputs hold no data: {', '.join(catalog.paths)} ({len(catalog.paths)} empty file(s))"
            )
        self.progress.found(catalog.paths, catalog.ignored, chunks)
        self.built.n_shards = len(chunks)
        write_if_changed(self.store.root / "config.toml", self.config.to_toml())
        if relocate(self.store, chunks):
            self._unfinish(GRAPH)
        settings = self._settings(assets.by_name if assets else {})
        if assets and assets.added_tokens:
            self.added_tokens = assets.added_tokens
            self.progress.added(assets.template.name, assets.added_tokens)
        grouped = phases(self.stages)
        with Workers(self.store, settings, self.workers) as workers:
            for stages, after in zip(grouped, [*grouped[1:], ()], strict=True):
                if stages[0].scope == "corpus":
                    self._run_corpus(stages[0], settings, workers, after)
                else:
                    self._run_shards(stages, settings, workers, chunks, catalog)
                if assets and any(stage.assets for stage in stages):
                    # before the manifests: packs must never lie complete beside another tokenizer
                    write_tokenizer(self.store.root / "tokenizer", assets)
                for stage in stages:
                    self._finish(stage)
        catalog.clean()
        card = dataset_card(self.config, read_manifests(self.store.root))
        write_if_changed(self.store.root / "README.md", card.encode())
        return self.built

    def _settings(self, assets: dict[str, msgspec.Struct]) -> Settings:
        source = self.config.source
        configs = {stage.name: self.config.sections[stage.name] for stage in GRAPH}
        keys = {stage.name: stage_key(stage, configs, assets, source) for stage in self.stages}
        return Settings(source, configs, assets, keys)

    def _unfinish(self, stages: Sequence[Stage]) -> None:
        """Take back the manifests of `stages` and of all that comes after them, in this build or not.

        Whoever reads a run then never finds a complete stage that was made from what is no more.
        """
        stale = {stage.name for stage in stages}
        for stage in GRAPH:
            if stale.intersection((stage.name, *stage.reads)):
                stale.add(stage.name)
        for stage in reversed(GRAPH):
            if stage.name in stale:
                self.store.unfinish(stage.name)

    def _lookup(self, stage: str, shard: int) -> ShardRecord | None:
        record = self.store.record(stage, shard)
        if record is None or not self.store.holds(stage, record):
            return None
        if self.verify and not self.store.is_whole(stage, record):
            self.store.forget(stage, shard)  # else a worker would trust the record
            return None
        return record

    def _run_shards(
        self, stages: tuple[Stage, ...], settings: Settings, workers: Workers, chunks: list[Chunk], catalog: Catalog
    ) -> None:
        found: list[dict[str, ShardRecord] | None] = []
        stale = []
        for shard, chunk in enumerate(chunks):
            task = Task(shard, chunk, {name: records[shard] for name, records in self.records.items()})
            found.append(fresh_records(stages, settings.keys, task, self._lookup))
            if found[-1] is None:
                stale.append(task)
        names = [stage.name for stage in stages]
        if stale:
            self.progress.started(names, len(stale), len(chunks))
            self._unfinish(stages)
            if names[0] == GRAPH[0].name:
                catalog.unpack_for(stale)
            for task, (records, timings) in workers.run(names, stale):
                found[task.shard] = records
                self._log(timings)
                self.progress.advanced(names, list(records.values()))
        for stage in stages:
            self.records[stage.name] = [records[stage.name] for records in found if records is not None]

    def _run_corpus(self, stage: Stage, settings: Settings, workers: Workers, after: tuple[Stage, ...]) -> None:
        inputs = tuple(self._shards(name) for name in stage.reads)
        n_shards = len(inputs[0])
        key = corpus_key(settings.keys[stage.name], [self.records[name] for name in stage.reads], {})
        known = [self._lookup(stage.name, shard) for shard in range(n_shards)]
        records = [record for record in known if record is not None and record.key == key]
        if len(records) != n_shards:
            self.progress.started([stage.name], 1, 1)
            self._unfinish([stage])
            then = [following.name for following in after]
            references = {name: Shards(stage.reads[0], ()) for name in stage.references}
            records, timings = workers.run_corpus(stage.name, CorpusTask(key, inputs, references), then=then)
            self._log(timings)
            self.progress.advanced([stage.name], records)
        self.records[stage.name] = records

    def _shards(self, stage: str) -> Shards:
        return Shards(stage, [Place(self.store.root, record) for record in self.records[stage]])

    def _finish(self, stage: Stage) -> None:
        records = self.records[stage.name]
        _, libraries = closure((stage.run.__module__,))
        manifest = self.store.finish(
            stage, records, manifest_key(records), libraries=dict(libraries), added_tokens=self.added_tokens
        )
        self.built.manifests[stage.name] = manifest
        spent = [timing.seconds + timing.write_seconds for timing in self.built.timings if timing.stage == stage.name]
        self.progress.finished(manifest, sum(spent) if spent else None)

    def _log(self, timings: list[Timing]) -> None:
        """Append timings to events.jsonl: a diary, which nothing reads back, so the manifests stay free of clocks."""
        self.built.timings += timings
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
