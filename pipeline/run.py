"""The builder: brings a run directory up to date with its inputs and settings, and says what became of every conversation."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.assets import Assets, load_assets, write_tokenizer
from pipeline.card import dataset_card
from pipeline.catalog import Catalog
from pipeline.config import Config
from pipeline.corpus import Shards
from pipeline.execute import Settings, Timing
from pipeline.graph import GRAPH, NAMES, Stage, phases
from pipeline.kernel_cache import use_kernel_cache
from pipeline.keys import stage_key
from pipeline.pool import Workers
from pipeline.progress import Progress
from pipeline.references import Reference, bring, find_references
from pipeline.refresh import Refresh, unfinish
from pipeline.relocate import relocate
from pipeline.source import SourceError
from pipeline.store import Store
from schemas.files import write_if_changed
from schemas.lock import locked
from schemas.manifest import REFERENCES_DIRECTORY, Manifest, read_manifests
from schemas.settings import ConfigError


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
    progress = progress or Progress()
    if use_kernel_cache():
        progress.compiling()
    root = Path(config.run)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"run = {config.run!r}: there is a file of that name; give a directory")
    stages = GRAPH[: NAMES.index(until) + 1]
    catalog = Catalog(root, config.source)
    assets = load_assets(config) if any(stage.assets for stage in stages) else None
    references = {stage.name: find_references(stage, config, catalog.paths) for stage in stages if stage.references}
    with locked(root / ".lock"):
        store = Store(root)
        store.sweep()
        if fresh:
            for name in (*NAMES, REFERENCES_DIRECTORY):
                shutil.rmtree(store.directory(name), ignore_errors=True)
        return _Build(config, store, stages, workers, verify, progress).run(catalog, assets, references)


@dataclass
class _Build:
    """One build under way."""

    config: Config
    store: Store
    stages: tuple[Stage, ...]
    n_workers: int
    verify: bool
    progress: Progress
    built: Built = field(default_factory=Built)

    def run(self, catalog: Catalog, assets: Assets | None, references: dict[str, list[Reference]]) -> Built:
        chunks = catalog.chunks(self.progress)
        if not chunks:
            raise SourceError(
                f"the inputs hold no data: {', '.join(catalog.paths)} ({len(catalog.paths)} empty file(s))"
            )
        self.progress.found(catalog.paths, catalog.ignored, chunks)
        self.built.n_shards = len(chunks)
        write_if_changed(self.store.root / "config.toml", self.config.to_toml())
        if relocate(self.store, chunks):
            unfinish(self.store, GRAPH)
        settings = self._settings(assets)
        # before the corpus itself: what is wrong with them is then known in the first minute
        compared = {name: self._bring(found) for name, found in references.items()}
        if assets and assets.added_tokens:
            self.progress.added(assets.template.name, assets.added_tokens)
        grouped = phases(self.stages)
        with Workers(self.store, settings, self.n_workers) as workers:
            refresh = Refresh(self.store, settings, workers, self.progress, self.verify)
            refresh.added_tokens = assets.added_tokens if assets else {}
            for stages, after in zip(grouped, [*grouped[1:], ()], strict=True):
                if stages[0].scope == "corpus":
                    then = [following.name for following in after]
                    refresh.run_corpus(stages[0], compared.get(stages[0].name, {}), then=then)
                else:
                    refresh.run_shards(stages, chunks, catalog)
                if assets and any(stage.assets for stage in stages):
                    # before the manifests: packs must never lie complete beside another tokenizer
                    write_tokenizer(self.store.root / "tokenizer", assets)
                for stage in stages:
                    refresh.finish(stage)
        self.built.timings += refresh.timings
        self.built.manifests = refresh.manifests
        catalog.clean()
        card = dataset_card(self.config, read_manifests(self.store.root))
        write_if_changed(self.store.root / "README.md", card.encode())
        return self.built

    def _settings(self, assets: Assets | None) -> Settings:
        source, by_name = self.config.source, assets.by_name if assets else {}
        configs = {stage.name: self.config.sections[stage.name] for stage in GRAPH}
        keys = {stage.name: stage_key(stage, configs, by_name, source) for stage in self.stages}
        return Settings(source, configs, by_name, keys)

    def _bring(self, references: list[Reference]) -> dict[str, Shards]:
        """Return the rows that each setting of a stage's `references` stands for, after bringing them up to date."""
        brought = {}
        for reference in references:
            brought[reference.name], timings = bring(
                reference, self.store.root, workers=self.n_workers, verify=self.verify, progress=self.progress
            )
            self.built.timings += timings
        return brought
