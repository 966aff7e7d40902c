"""One task: a shard through fused stages, or the corpus through one; the only place where stages meet the disk."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import polars as pl
import pyarrow as pa

from pipeline.graph import SOURCE, Stage
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

    What one stage wrote is handed to the next in memory, as it would be read back.
    """
    records: dict[str, ShardRecord] = dict(task.known)
    done: dict[str, ShardRecord] = {}
    frames: dict[str, pl.DataFrame] = {}
    timings = []
    for position, stage in enumerate(stages):
        key = shard_key(settings.keys[stage.name], input_digests(stage, task.chunk, records))
        record = store.record(stage.name, task.shard)
        if record is None or record.key != key or not store.holds(stage.name, record):
            start = time.perf_counter()
            inputs = [_frame(store, settings, task, name, records, frames) for name in stage.reads]
            out = _run(stage, inputs, settings, f"{task.chunk.path}, shard {task.shard}")
            computed = time.perf_counter()
            record, kept = store.commit(stage, task.shard, key, out, inputs[0].height)
            if stage.partition is None:
                frames[stage.name] = as_frame(kept)
            timings.append(
                Timing(stage.name, task.shard, inputs[0].height, computed - start, time.perf_counter() - computed)
            )
        records[stage.name] = done[stage.name] = record
        later = {name for after in stages[position + 1 :] for name in after.reads}
        for name in [name for name in frames if name not in later]:
            del frames[name]
    return done, timings


def run_corpus(
    store: Store, stage: Stage, settings: Settings, key: str, records: Mapping[str, Sequence[ShardRecord]]
) -> tuple[list[ShardRecord], list[Timing]]:
    """Run a corpus stage over all shards at once and cut the result at the same places again."""
    start = time.perf_counter()
    parts = [[store.read(name, record) for record in records[name]] for name in stage.reads]
    inputs = [pl.concat(frames, rechunk=False) for frames in parts]
    heights = [frame.height for frame in parts[0]]
    out = _run(stage, inputs, settings, "all shards")
    computed = time.perf_counter()
    committed, first = [], 0
    for shard, height in enumerate(heights):
        record, _ = store.commit(stage, shard, key, out.slice(first, height), height)
        committed.append(record)
        first += height
    timing = Timing(stage.name, 0, first, computed - start, time.perf_counter() - computed)
    return committed, [timing]


def as_frame(table: pa.Table) -> pl.DataFrame:
    """Return a table as a frame."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _frame(
    store: Store,
    settings: Settings,
    task: Task,
    name: str,
    records: Mapping[str, ShardRecord],
    frames: dict[str, pl.DataFrame],
) -> pl.DataFrame:
    if name == SOURCE:
        return read_chunk(task.chunk, settings.source)
    if name not in frames:
        frames[name] = store.read(name, records[name])
    return frames[name]


def _run(stage: Stage, inputs: list[pl.DataFrame], settings: Settings, where: str) -> pl.DataFrame:
    assets = {name: settings.assets[name] for name in stage.assets}
    try:
        return stage.run(*inputs, settings.configs[stage.name], **assets)
    except GateError as error:
        raise ShardFailedError(f"{stage.name} ({where}): {error}") from error
