"""What a corpus is compared with: other files, read and signed beside it, and finished runs, used where they lie."""

import contextlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from pipeline.catalog import Catalog
from pipeline.config import Config
from pipeline.corpus import Place, Shards
from pipeline.execute import Settings, Timing
from pipeline.graph import SOURCE, Stage, by_name
from pipeline.keys import stage_key
from pipeline.other_runs import comparable, inputs_of, is_run
from pipeline.pool import Workers
from pipeline.progress import Progress
from pipeline.refresh import Refresh, unfinish
from pipeline.relocate import relocate
from pipeline.source import SUFFIXES, TEXT_SUFFIXES, Chunk, SourceError, expand, identity
from pipeline.store import Store
from schemas.manifest import REFERENCES_DIRECTORY, Manifest, ShardRecord
from schemas.settings import ConfigError
from stages.ingest import Ingest
from stages.length import Length
from stages.signatures import Signatures
from stages.signatures.counts import TEXTS

_MOST: Final = 2**31 - 1


@dataclass(frozen=True)
class Reference:
    """What one setting names."""

    name: str
    """The setting, e.g. "against"."""
    where: str
    """The same as users read it."""
    chain: tuple[Stage, ...]
    """The stages that its files go through."""
    settings: Settings
    files: tuple[str, ...] = ()
    runs: dict[Path, Manifest] = field(default_factory=dict)
    """Finished runs, whose signatures are used as they are."""


def find_references(stage: Stage, config: Config, inputs: Sequence[str]) -> list[Reference]:
    """Return what the settings of `stage` name, in order, without reading any of it.

    Raises ConfigError for what names nothing, for one of the `inputs`, which would be found similar to itself, and for a run
    that was not signed as this one is.
    """
    chain = _chain(stage.reads[0])
    last, settings = chain[-1], _settings(chain, config)
    own = {identity(path): path for path in inputs}
    found = []
    for name in stage.references:
        where = f"[{stage.name}] {name}"
        reference = Reference(name, where, chain, settings)
        given: tuple[str, ...] = getattr(config.sections[stage.name], name)
        runs = [Path(path) for path in given if is_run(Path(path))]
        if Path(config.run).resolve() in [run.resolve() for run in runs]:
            raise ConfigError(f"{where} names {config.run}, the run itself: all of it would be found similar to itself")
        files = [path for path in given if not is_run(Path(path))]
        paths = expand(files, what=where, suffixes=SUFFIXES + TEXT_SUFFIXES)[0] if files else []
        for path in paths:
            _refuse_own(own, path, f"{where}: {path}")
        signed = {}
        for run in {run.resolve(): run for run in runs}.values():
            signed[run] = comparable(run, last, settings.keys[last.name], settings.configs[last.name], where=where)
            for path in inputs_of(run):
                _refuse_own(own, path, f"{where}: {run} was made from {path}, which")
        found.append(replace(reference, files=tuple(paths), runs=signed))
    return found


def bring(
    reference: Reference, root: Path, *, workers: int, verify: bool, progress: Progress
) -> tuple[Shards, list[Timing]]:
    """Bring the files of a reference as far as the corpus is when it is compared, and return all rows to compare with.

    Raises SourceError if one of its files or runs has no record that could be compared: nothing would be found in it, and
    nobody would know.
    """
    last = reference.chain[-1].name
    store = Store(root / REFERENCES_DIRECTORY / reference.name)
    places: list[Place] = []
    timings: list[Timing] = []
    unreadable: Counter[str] = Counter()
    if reference.files:
        with Workers(store, reference.settings, workers) as pool:
            refresh = Refresh(store, reference.settings, pool, _Within(progress, reference.name), verify)
            chunks = _build(reference, refresh)
        for path, records in _by_file(reference, chunks, refresh.records).items():
            _refuse_empty(reference, path, records)
            for record in records[reference.chain[0].name]:
                unreadable.update(record.dropped)
        places += refresh.shards(last).places
        timings += [replace(timing, stage=f"{reference.name}/{timing.stage}") for timing in refresh.timings]
    else:
        shutil.rmtree(store.root, ignore_errors=True)
        with contextlib.suppress(OSError):  # the other one's
            store.root.parent.rmdir()
    for run, manifest in reference.runs.items():
        _refuse_empty(reference, str(run), {last: manifest.shards})
        places += [Place(run, record) for record in manifest.shards]
    if places:
        n_records = sum(place.record.kept for place in places)
        paths = (*reference.files, *map(str, reference.runs))
        progress.referred(reference.name, paths, n_records, unreadable, store.root)
    return Shards(last, places), timings


def _chain(name: str) -> tuple[Stage, ...]:
    """Return the stages from the first up to `name`, each the driving input of the next."""
    stage = by_name(name)
    return (stage,) if stage.reads[0] == SOURCE else (*_chain(stage.reads[0]), stage)


def _settings(chain: Sequence[Stage], config: Config) -> Settings:
    """Return the settings under which references are read: those of the run, but every record counts."""
    sections = config.sections | {
        "ingest": Ingest(max_depth=config.sections["ingest"].max_depth, unknown="text"),
        # a question has no turn of the assistant, and bounds are for what is trained
        "length": Length(min_chars=0, min_turns=0, max_chars=_MOST, max_turns=_MOST),
    }
    configs = {stage.name: sections[stage.name] for stage in chain}
    keys = {stage.name: stage_key(stage, configs, {}, config.source) for stage in chain}
    return Settings(config.source, configs, {}, keys)


def _build(reference: Reference, refresh: Refresh) -> list[Chunk]:
    store, source = refresh.store, refresh.settings.source
    source = msgspec.structs.replace(source, inputs=reference.files, sets=(), limit=None)
    catalog = Catalog(store.root, source, what=reference.where, suffixes=SUFFIXES + TEXT_SUFFIXES)
    store.root.mkdir(parents=True, exist_ok=True)
    store.sweep()
    chunks = catalog.chunks(refresh.progress)
    if relocate(store, chunks):
        unfinish(store, reference.chain)
    refresh.run_shards(reference.chain, chunks, catalog)
    for stage in reference.chain:
        refresh.finish(stage)
    catalog.clean()
    return chunks


def _by_file(
    reference: Reference, chunks: Sequence[Chunk], records: Mapping[str, Sequence[ShardRecord]]
) -> dict[str, dict[str, list[ShardRecord]]]:
    """Return each file's records of each stage; a file without bytes has none."""
    found = {path: {stage.name: list[ShardRecord]() for stage in reference.chain} for path in reference.files}
    for shard, chunk in enumerate(chunks):
        for stage in reference.chain:
            found[chunk.path][stage.name].append(records[stage.name][shard])
    return found


def _refuse_empty(reference: Reference, path: str, records: Mapping[str, Sequence[ShardRecord]]) -> None:
    """Raise SourceError if nothing of `path` could be found in the corpus."""
    first, last = reference.chain[0].name, reference.chain[-1].name
    lost = Counter[str]()
    for record in records.get(first, ()):
        lost.update(record.dropped)
    if not any(record.kept for record in records[last]):
        why = ", ".join(f"{n} {reason}" for reason, n in lost.most_common()) or "it is empty"
        raise SourceError(
            f"{reference.where}: no record of {path} can be read, so nothing would be compared with it ({why}). Mend the "
            "file, or leave it out"
        )
    if not any(n for record in records[last] for name, n in record.counts.items() if name.startswith(TEXTS)):
        config = reference.settings.configs[last]
        assert isinstance(config, Signatures)
        raise SourceError(
            f"{reference.where}: no record of {path} has a text in the scope that is compared "
            f"({', '.join(config.scopes)}). A record that is no "
            f'conversation is one user message: add "conversation" to [{last}] scope, or leave the file out'
        )


def _refuse_own(own: Mapping[tuple[str, str], str], path: str, subject: str) -> None:
    if (mine := own.get(identity(path))) is not None:
        raise ConfigError(
            f"{subject} is an input of this run ({mine}): all of its rows would be found similar to themselves. Leave it out of "
            "one of the two"
        )


class _Within(Progress):
    """Tells the watcher of a build about the files of a setting, in few words."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def scanning(self, path: str, done: int, total: int) -> None:
        self._progress.scanning(path, done, total)

    def started(self, stages: Sequence[str], n_stale: int, n_shards: int) -> None:  # noqa: ARG002 - as declared
        self._progress.started([self._name], n_stale, n_shards)

    def advanced(self, stages: Sequence[str], records: Sequence[ShardRecord]) -> None:  # noqa: ARG002 - as declared
        self._progress.advanced([self._name], records)
