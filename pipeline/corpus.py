"""One task over the whole corpus: shards are mapped when they are asked for, and results count when all of them are there."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import polars as pl

from pipeline.execute import Settings, Timing, call_stage, report
from pipeline.graph import Stage
from pipeline.halves import StageError, split
from pipeline.scratch import Scratch
from pipeline.store import DamagedShardError, Store
from schemas.manifest import ShardRecord

Watch = Callable[[str, int, int], None]
"""Called with what is read, how many shards of it have been read so far, over all passes, and how many there are."""
_Identity = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class Place:
    """Where a shard lies: a run directory and the record in it."""

    root: Path
    record: ShardRecord


class Shards(Sequence[pl.DataFrame]):
    """The kept rows of one stage, one frame a shard, mapped anew each time it is asked for.

    At the first time its bytes are hashed; after that it must still be the same file. Raises DamagedShardError.
    """

    def __init__(self, stage: str, places: Sequence[Place], watch: Callable[[int, int], None] | None = None) -> None:
        self.stage, self.places = stage, tuple(places)
        self._watch = watch
        self._verified: dict[int, _Identity] = {}
        self._n_read = 0

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> pl.DataFrame: ...

    @overload
    def __getitem__(self, index: slice) -> "Shards": ...

    def __getitem__(self, index: int | slice) -> "pl.DataFrame | Shards":
        if isinstance(index, slice):
            return Shards(self.stage, self.places[index], self._watch)
        at = range(len(self))[index]
        place = self.places[at]
        store = Store(place.root)
        before = self._identity(place)
        read = store.map if self._verified.get(at) == before else store.read
        frame = read(self.stage, place.record)
        if self._identity(place) != before or self._verified.get(at, before) != before:
            raise DamagedShardError(
                f"{place.root / self.stage}: shard {place.record.shard} changed while the build was reading it. Run it again "
                "when nothing writes to that run"
            )
        self._verified[at] = before
        self._n_read += 1
        if self._watch is not None:
            self._watch(self._n_read, len(self))
        return frame

    def _identity(self, place: Place) -> _Identity:
        """Return what tells a file from another of the same name, and from what was written into it since."""
        found = []
        for file in place.record.kept_files():
            path = place.root / self.stage / file.path
            try:
                status = path.stat()
            except FileNotFoundError:
                raise DamagedShardError(
                    f"{path}: the shard is gone; the next build of that run makes it anew"
                ) from None
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def watched(self, watch: Callable[[int, int], None]) -> "Shards":
        """Return the same shards; `watch` hears of each that is read."""
        return Shards(self.stage, self.places, watch)


@dataclass(frozen=True)
class CorpusTask:
    """All that a corpus stage reads, and the key that follows from it."""

    key: str
    inputs: tuple[Shards, ...]
    references: Mapping[str, Shards] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Return what is read, as a watcher hears of it."""
        return (*(shards.stage for shards in self.inputs), *self.references)


def run_corpus(
    store: Store, stage: Stage, settings: Settings, task: CorpusTask, watch: Watch | None = None
) -> tuple[list[ShardRecord], list[Timing]]:
    """Run a corpus stage and write what it yields shard by shard.

    No record is written before the last shard is there: a stage may still refuse the corpus after it has yielded, and
    nothing of what it refused may count. Memory beyond the stage's own is that of one shard's output.
    """
    start = time.perf_counter()
    driving = task.inputs[0]
    write_seconds = 0.0
    records: list[ShardRecord] = []
    rows_in = 0
    for shard, out in enumerate(_call(store, stage, settings, task, watch)):
        if shard == len(driving):
            raise StageError(f"{stage.name}: {len(driving)} shards in, but more of them out")
        began = time.perf_counter()
        inputs = [shards[shard] for shards in task.inputs] if stage.report else []
        n_rows = sum(file.rows for file in driving.places[shard].record.kept_files())
        halves = split(stage, shard, out, n_rows, report(stage, out, inputs, settings))
        records.append(store.write(stage, shard, task.key, halves, driving.places[shard].record.source))
        rows_in += n_rows
        write_seconds += time.perf_counter() - began
    if len(records) != len(driving):
        raise StageError(f"{stage.name}: {len(driving)} shards in, but {len(records)} out")
    began = time.perf_counter()
    for record in records:
        store.remember(stage.name, record)
    write_seconds += time.perf_counter() - began
    return records, [Timing(stage.name, 0, rows_in, time.perf_counter() - start - write_seconds, write_seconds)]


def _call(
    store: Store, stage: Stage, settings: Settings, task: CorpusTask, watch: Watch | None
) -> Iterator[pl.DataFrame]:
    inputs, references = list(task.inputs), dict(task.references)
    if watch is not None:
        inputs = [shards.watched(_named(watch, shards.stage)) for shards in inputs]
        references = {name: shards.watched(_named(watch, name)) for name, shards in references.items()}
    outs: Iterator[pl.DataFrame] = call_stage(stage, inputs, settings, references=references, spill=Scratch(store.root))
    return outs


def _named(watch: Watch, name: str) -> Callable[[int, int], None]:
    return lambda n_read, n_shards: watch(name, n_read, n_shards)
