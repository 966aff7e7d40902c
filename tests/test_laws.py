"""Laws that hold for every stage, whatever it does; a new stage is held to them by being in GRAPH."""

import copy
import dataclasses
import random
import re
from collections import Counter
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from pipeline.assets import load_assets
from pipeline.config import load_config
from pipeline.execute import Settings, as_frame, call_stage
from pipeline.graph import GRAPH, NAMES, Stage, by_name
from pipeline.scratch import Scratch
from pipeline.source import read_chunk, scan
from schemas.conform import conform
from schemas.tables import dropped_schema
from stages.dedup import Dedup
from tests.corpus import write_config, write_corpus

CORPUS = [stage for stage in GRAPH if stage.scope == "corpus"]
BY_ID = [stage for stage in GRAPH if "id" in stage.writes.names]


class World:
    """Every stage's inputs and output on one small corpus, each computed as the runner would."""

    def __init__(self, directory: Path) -> None:
        corpus = write_corpus(directory / "a.jsonl", 120, bad_every=15, copy_every=10)
        # so short a limit that some conversations are cut into windows, and some turns fit in none
        self.config = load_config(
            write_config(directory, corpus, shard_bytes=1 << 24),
            assignments=["tokenize.too_long=windows", "pack.max_seq_len=72"],
        )
        assets = load_assets(self.config).by_name
        self.settings = Settings(self.config.source, self.config.sections, assets, keys={})
        (chunk,) = scan(str(corpus), self.config.source, directory)
        self.kept: dict[str, pl.DataFrame] = {"source": read_chunk(chunk, self.config.source)}
        self.out: dict[str, pl.DataFrame] = {}
        for stage in GRAPH:
            self.out[stage.name] = out = self.run(stage, *self.inputs(stage))
            kept = out.filter(pl.col("drop_reason").is_null()) if "drop_reason" in out.columns else out
            self.kept[stage.name] = as_frame(conform(kept.to_arrow(), stage.writes))

    def inputs(self, stage: Stage) -> list[pl.DataFrame]:
        return [self.kept[name] for name in stage.reads]

    def run(self, stage: Stage, *frames: pl.DataFrame) -> pl.DataFrame:
        """Run a stage on one shard."""
        if stage.scope == "shard":
            return call_stage(stage, frames, self.settings)
        (out,) = self.run_corpus(stage, *([frame] for frame in frames))
        return out

    def run_corpus(self, stage: Stage, *inputs: list[pl.DataFrame]) -> list[pl.DataFrame]:
        """Run a corpus stage on shards."""
        references = {name: [] for name in stage.references}
        return list(call_stage(stage, inputs, self.settings, references=references))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("laws"))


def ids(frame: pl.DataFrame) -> list[str]:
    column = "ids" if "ids" in frame.columns else "id"
    return frame[column].explode().to_list() if column == "ids" else frame[column].to_list()


@pytest.mark.parametrize("stage", GRAPH, ids=NAMES)
def test_purity_the_same_frame_gives_the_same_result_and_is_left_alone(world, stage):
    inputs = world.inputs(stage)
    before = copy.deepcopy(inputs)
    assert_frame_equal(world.run(stage, *inputs), world.out[stage.name])
    for frame, copied in zip(inputs, before, strict=True):
        assert_frame_equal(frame, copied)


@pytest.mark.parametrize("stage", GRAPH, ids=NAMES)
def test_conservation_what_goes_in_comes_out(world, stage):
    frame = world.inputs(stage)[0]
    if stage.name == "ingest":
        expected = [f"{source}:{line}" for source, line in frame.select("source", "line").iter_rows()]
    else:
        expected = ids(frame)
    out = ids(world.out[stage.name])
    if stage.expands:
        assert len(set(out)) == len(out) > len(expected)
        out = list(dict.fromkeys(re.sub(r"#\d+$", "", name) for name in out))
    assert sorted(out) == sorted(expected)
    assert out == expected or stage.name == "pack"


@pytest.mark.parametrize("stage", GRAPH, ids=NAMES)
def test_schema_kept_and_dropped_rows_are_what_the_stage_promised(world, stage):
    out = world.out[stage.name]
    assert conform(world.kept[stage.name].to_arrow(), stage.writes).schema.equals(stage.writes, check_metadata=True)
    if "drop_reason" not in out.columns:
        return
    dropped = out.filter(pl.col("drop_reason").is_not_null()).to_arrow()
    schema = dropped_schema(stage.writes, stage.evidence)
    for column in schema:
        if column.name not in dropped.column_names:
            dropped = dropped.append_column(column.name, pa.nulls(dropped.num_rows, column.type))
    conform(dropped, schema)
    # every column a stage makes is written somewhere: in its schema, its evidence, or both halves
    assert set(out.columns) <= {*schema.names, *world.inputs(stage)[0].columns}


@pytest.mark.parametrize("stage", [s for s in BY_ID if s.scope == "shard"], ids=lambda s: s.name)
def test_locality_rows_do_not_know_their_neighbours(world, stage):
    inputs = world.inputs(stage)
    height = inputs[0].height
    cut = height // 3
    halves = [world.run(stage, *(frame.slice(a, b) for frame in inputs)) for a, b in ((0, cut), (cut, height - cut))]
    assert_frame_equal(pl.concat(halves), world.out[stage.name])


@pytest.mark.parametrize("stage", [s for s in GRAPH if s.report], ids=lambda s: s.name)
def test_reports_of_parts_add_up_to_the_report_of_the_whole(world, stage):
    inputs, config = world.inputs(stage), world.config.sections[stage.name]
    whole = stage.report(world.out[stage.name], *inputs, config)
    assert all(type(n) is int for n in whole.values())
    height = inputs[0].height
    sums: Counter[str] = Counter()
    for first, last in ((0, height // 3), (height // 3, height)):
        # a side table that has other rows is joined by id: a part finds its own in the whole of it
        parts = [frame.slice(first, last - first) if frame.height == height else frame for frame in inputs]
        # what becomes of a row of the corpus depends on all rows, so there the shard is cut after it is decided
        out = world.out[stage.name].slice(first, last - first) if stage in CORPUS else world.run(stage, *parts)
        sums.update(stage.report(out, *parts, config))
    assert {name: n for name, n in sums.items() if n} == {name: n for name, n in whole.items() if n}


@pytest.mark.parametrize("stage", GRAPH, ids=NAMES)
def test_an_empty_shard_passes_through(world, stage):
    out = world.run(stage, *(frame.clear() for frame in world.inputs(stage)))
    assert out.height == 0
    conform(out.to_arrow(), stage.writes)


def cut(frame: pl.DataFrame, *lengths: int) -> list[pl.DataFrame]:
    """Return the frame as shards of such lengths, and one of what is left."""
    starts = [0, *accumulate(lengths)]
    return [frame.slice(first, last - first) for first, last in pairwise([*starts, frame.height])]


@pytest.mark.parametrize("stage", CORPUS, ids=lambda s: s.name)
@pytest.mark.parametrize("lengths", [(1,), (40, 0, 30), (0, 7, 7, 7, 7)], ids=str)
def test_chunking_independence_rows_do_not_know_their_shard(world, stage, lengths):
    (frame,) = world.inputs(stage)
    shards = cut(frame, *lengths)
    out = world.run_corpus(stage, shards)
    assert [part.height for part in out] == [shard.height for shard in shards]
    assert [part["id"].to_list() for part in out] == [shard["id"].to_list() for shard in shards]
    assert_frame_equal(pl.concat(out), world.out[stage.name])


@pytest.mark.parametrize("stage", CORPUS, ids=lambda s: s.name)
@pytest.mark.parametrize("seed", range(3))
def test_order_independence_rows_do_not_know_their_place(world, stage, seed):
    (frame,) = world.inputs(stage)
    shards = cut(frame.sample(fraction=1.0, shuffle=True, seed=seed), 25, 50)
    random.Random(seed).shuffle(shards)
    out = pl.concat(world.run_corpus(stage, shards))
    assert_frame_equal(out.sort("id"), world.out[stage.name].sort("id"))


@pytest.mark.parametrize("stage", CORPUS, ids=lambda s: s.name)
def test_how_much_memory_there_is_changes_nothing(world, stage, tmp_path):
    configs = dict(world.settings.configs)
    configs[stage.name] = msgspec.structs.replace(configs[stage.name], memory=1e-9)
    settings = dataclasses.replace(world.settings, configs=configs)
    references = {name: [] for name in stage.references}
    spill = Scratch(tmp_path)
    out = call_stage(stage, [cut(world.inputs(stage)[0], 50)], settings, references=references, spill=spill)
    assert_frame_equal(pl.concat(out), world.out[stage.name])


def test_dedup_takes_the_splits_that_clusters_drew(world):
    stage = by_name("dedup")
    configs = dict(world.settings.configs) | {"dedup": Dedup(validation=0.4, test=0.1, split_by="cluster", seed=9)}
    assert set(stage.neutral) == set(Dedup.__struct_fields__)
    out = call_stage(stage, world.inputs(stage), dataclasses.replace(world.settings, configs=configs))
    assert_frame_equal(out, world.out["dedup"])


def test_each_stage_reads_what_comes_before_it():
    seen = {"source"}
    for stage in GRAPH:
        assert set(stage.reads) <= seen
        seen.add(stage.name)


def test_no_near_duplicate_crosses_the_split(world):
    frame: Any = world.kept["dedup"]
    assert frame.group_by("cluster").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(frame["split"]) == {"train", "validation"}
