"""One task: a shard through fused stages; with pipeline.corpus, the only place where stages meet the disk."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.graph import SOURCE, Stage, by_name
from pipeline.halves import Halves, split
from pipeline.keys import shard_key
from pipeline.plan import Task, input_digests
from pipeline.source import Source, read_chunk
from pipeline.store import Store
from schemas.errors import GateError
from schemas.manifest import ShardRecord


class ShardFailedError(GateError):
    """A stage refused a shard; the text says which rows and what to do."""


@dataclass(frozen=True)
class Settings:
    """All that determines the output of a build, by value."""

    source: Source
    configs: dict[str, msgspec.Struct]
    assets: dict[str, msgspec.Struct]
    keys: dict[str, str]


@dataclass(frozen=True)
class Timing:
    """How long one stage took on one shard."""

    stage: str
    shard: int
    rows_in: int
    seconds: float
    write_seconds: float


def run_shard(
    store: Store, stages: Sequence[Stage], settings: Settings, task: Task
) -> tuple[dict[str, ShardRecord], list[Timing]]:
    """Take one shard through `stages`, writing each one's output, skipping those whose key is already right.

    What one stage made is handed to the next in memory, as it would be read back, and written while the next one runs.
    """
    with ThreadPoolExecutor(1) as writer:
        return _Shard(store, settings, task, writer).run(stages)


class _Shard:
    """One shard on its way: what is known of each stage's output, in memory, on disk, or still being written."""

    def __init__(self, store: Store, settings: Settings, task: Task, writer: Executor) -> None:
        self.store, self.settings, self.task, self.writer = store, settings, task, writer
        self.tables: dict[str, pa.Table] = {}
        self.frames: dict[str, pl.DataFrame] = {}
        self.pending: dict[str, Future[tuple[ShardRecord, float]]] = {}
        self.records: dict[str, ShardRecord] = dict(task.known)
        self.spent: dict[str, tuple[int, float]] = {}

    def run(self, stages: Sequence[Stage]) -> tuple[dict[str, ShardRecord], list[Timing]]:
        for position, stage in enumerate(stages):
            if not self._is_fresh(stage):
                self._build(stage)
            later = {name for after in stages[position + 1 :] for name in after.reads}
            self.tables = {name: table for name, table in self.tables.items() if name in later}
            self.frames = {name: frame for name, frame in self.frames.items() if name in later}
        timings = []
        for name, (rows_in, seconds) in self.spent.items():
            self.records[name], write_seconds = self.pending[name].result()
            timings.append(Timing(name, self.task.shard, rows_in, seconds, write_seconds))
        return {stage.name: self.records[stage.name] for stage in stages}, timings

    def _is_fresh(self, stage: Stage) -> bool:
        record = self.store.record(stage.name, self.task.shard)
        if record is None or record.key != self._key(stage) or not self.store.holds(stage.name, record):
            return False
        self.records[stage.name] = record
        return True

    def _build(self, stage: Stage) -> None:
        start = time.perf_counter()
        inputs = [self._frame(name) for name in stage.reads]
        out = _run(stage, inputs, self.settings, f"{self.task.chunk.path}, shard {self.task.shard}")
        counts = report(stage, out, inputs, self.settings)
        halves = split(stage, self.task.shard, out, inputs[0].height, counts)
        if stage.partition is None:
            self.tables[stage.name] = halves.kept
        self.spent[stage.name] = inputs[0].height, time.perf_counter() - start
        self.pending[stage.name] = self.writer.submit(self._commit, stage, self._key(stage), halves)

    def _commit(self, stage: Stage, key: str, halves: Halves) -> tuple[ShardRecord, float]:
        start = time.perf_counter()
        record = self.store.commit(stage, self.task.shard, key, halves, self.task.chunk.path)
        return record, time.perf_counter() - start

    def _key(self, stage: Stage) -> str:
        """Return the key of this shard of a stage; what the stage reads must be written by then."""
        for name in stage.reads:
            if name in self.pending and name not in self.records:
                self.records[name], _ = self.pending[name].result()
        return shard_key(self.settings.keys[stage.name], input_digests(stage, self.task.chunk, self.records))

    def _frame(self, name: str) -> pl.DataFrame:
        if name == SOURCE:
            return read_chunk(self.task.chunk, self.settings.source)
        # a table becomes a frame only where a stage asks for it: Polars looks at every text
        if name not in self.frames:
            table = self.tables.pop(name, None)
            self.frames[name] = self.store.read(name, self.records[name]) if table is None else as_frame(table)
        return self.frames[name]


def call_stage(
    stage: Stage,
    inputs: Sequence[Any],
    settings: Settings,
    *,
    references: Mapping[str, Sequence[pl.DataFrame]] | None = None,
    spill: Callable[[int], NDArray[np.uint8]] | None = None,
) -> Any:
    """Call the function of a stage with all that it takes, as pipeline.graph.Stage says: the one place that does.

    `inputs` are a frame of each stage that it reads, or for a corpus stage a sequence of them, and then what comes back is an
    iterator.
    """
    given: dict[str, Any] = {name: settings.assets[name] for name in stage.assets}
    given |= {name: settings.configs[name] for name in stage.also}
    if stage.scope == "corpus":
        given |= {"spill": spill, **(references or {})}
    return stage.run(*inputs, settings.configs[stage.name], **given)


def run_empty(stages: Sequence[Stage], settings: Settings) -> None:
    """Run `stages` on tables without rows: whatever they load on first use is then loaded."""
    for stage in stages:
        inputs = [as_frame(by_name(name).writes.empty_table()) for name in stage.reads]
        if stage.scope == "shard":
            report(stage, call_stage(stage, inputs, settings), inputs, settings)


def report(stage: Stage, out: pl.DataFrame, inputs: list[pl.DataFrame], settings: Settings) -> dict[str, int]:
    """Return what a stage counts in one shard's output."""
    return {} if stage.report is None else stage.report(out, *inputs, settings.configs[stage.name])


def as_frame(table: pa.Table) -> pl.DataFrame:
    """Return a table as a frame."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _run(stage: Stage, inputs: list[pl.DataFrame], settings: Settings, where: str) -> pl.DataFrame:
    try:
        out = call_stage(stage, inputs, settings)
    except GateError as error:
        context = f". {stage.context(settings.configs, settings.assets)}" if stage.context else ""
        raise ShardFailedError(f"{stage.name} ({where}): {error}{context}") from error
    assert isinstance(out, pl.DataFrame)
    return out
