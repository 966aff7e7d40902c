"""A corpus stage over shards on disk: what is read when, and what counts when it fails."""

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.corpus import CorpusTask, Place, Shards, run_corpus
from pipeline.execute import Settings
from pipeline.graph import Stage, by_name
from pipeline.halves import StageError, split
from pipeline.source import Source
from pipeline.store import DamagedShardError, Store
from schemas.errors import GateError
from stages.clusters import Clusters

SHARDS = ["a", "bc", "", "def"]
"""Each letter is a row."""
SETTINGS = Settings(Source(), {"clusters": Clusters()}, {}, {})
READ = dataclasses.replace(by_name("length"), name="signatures", writes=by_name("clusters").writes)
"""What the stages here read: rows of which only the id matters."""


def fates(names: Sequence[str], cluster: str = "c") -> pl.DataFrame:
    columns = {"id": names, "cluster": [cluster] * len(names), "n_duplicates": [1] * len(names), "split": "train"}
    nothing = dict.fromkeys(("reason", "keeper", "scope", "evaluation"), pl.String)
    empty = [pl.lit(None, kind).alias(name) for name, kind in {**nothing, "similarity": pl.Float64}.items()]
    return pl.DataFrame(columns, schema_overrides={"id": pl.String, "n_duplicates": pl.Int32}).with_columns(
        *empty, overlap=pl.lit(None, pl.Float64)
    )


def corpus_stage(run) -> Stage:
    return dataclasses.replace(by_name("clusters"), run=run, also=(), references=(), report=None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def shards(store: Store) -> Shards:
    records = [
        store.commit(READ, i, "k", split(READ, i, fates(list(names)), len(names))) for i, names in enumerate(SHARDS)
    ]
    return Shards("signatures", [Place(store.root, record) for record in records])


def echo(shards: Sequence[pl.DataFrame], config: Clusters, *, spill) -> Iterator[pl.DataFrame]:
    for shard in shards:
        yield shard.with_columns(cluster=pl.lit(config.keep))


def ids(store: Store) -> list[str]:
    return ["".join(pl.read_ipc(path)["id"]) for path in sorted(store.root.glob("clusters/kept/*.arrow"))]


def test_what_is_yielded_is_committed_shard_by_shard(store, shards):
    records, (timing,) = run_corpus(store, corpus_stage(echo), SETTINGS, CorpusTask("key", (shards,)))
    assert ids(store) == SHARDS
    assert [record.rows_in for record in records] == [1, 2, 0, 3]
    assert {record.key for record in records} == {"key"}
    assert records == [store.record("clusters", shard) for shard in range(4)]
    assert (timing.stage, timing.rows_in) == ("clusters", 6)


def test_a_shard_is_mapped_when_asked_for_and_let_go(store, shards):
    def mapped() -> set[str]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text()
        return {name for name in ("00000", "00001", "00003") if f"{store.root}/signatures/kept/{name}.arrow" in maps}

    assert not mapped()
    frame = shards[1]
    assert frame["id"].to_list() == ["b", "c"]
    assert mapped() == {"00001"}
    del frame
    for again in shards:
        assert again.height <= 3
    del again
    assert not mapped()


def test_shards_are_a_sequence(shards):
    assert len(shards) == 4
    assert shards[-1]["id"].to_list() == ["d", "e", "f"]
    assert ["".join(shard["id"]) for shard in shards[1:]] == ["bc", "", "def"]
    assert ["".join(shard["id"]) for shard in reversed(shards)] == SHARDS[::-1]
    with pytest.raises(IndexError):
        shards[4]


def test_a_flipped_bit_is_found_at_the_first_access(store, shards):
    path = store.root / "signatures" / "kept" / "00003.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert shards[0].height == 1
    with pytest.raises(DamagedShardError, match=r"signatures/kept/00003\.arrow.*expected sha256"):
        shards[3]


def test_another_file_in_the_place_of_a_verified_one_is_not_read(store, shards):
    path = store.root / "signatures" / "kept" / "00001.arrow"
    assert shards[1].height == 2
    data = path.read_bytes()
    other = path.with_name("other")
    other.write_bytes(data)
    other.replace(path)
    with pytest.raises(DamagedShardError, match="signatures: shard 1 changed while the build was reading it"):
        shards[1]
    path.unlink()
    with pytest.raises(DamagedShardError, match="gone"):
        shards[1]


def state(store: Store) -> tuple[list[str], list[str]]:
    return ids(store), sorted(path.name for path in store.root.glob("clusters/shards/*"))


def test_a_stage_that_refuses_before_it_yields_writes_nothing(store, shards):
    def refuse(shards, config, *, spill):
        raise GateError("no")
        yield

    with pytest.raises(GateError, match=r"^no$"):
        run_corpus(store, corpus_stage(refuse), SETTINGS, CorpusTask("key", (shards,)))
    assert state(store) == ([], [])


def test_a_stage_that_refuses_after_the_last_shard_leaves_no_record(store, shards):
    def refuse_late(shards, config, *, spill):
        yield from echo(shards, config, spill=spill)
        raise GateError("in the end, no")

    task = CorpusTask("key", (shards,))
    run_corpus(store, corpus_stage(echo), SETTINGS, task)
    with pytest.raises(GateError, match="in the end, no"):
        run_corpus(store, corpus_stage(refuse_late), SETTINGS, CorpusTask("key2", (shards,)))
    assert state(store) == (SHARDS, [])


@pytest.mark.parametrize("n_out", [0, 3, 5])
def test_shards_in_are_shards_out(store, shards, n_out):
    def another_number(shards, config, *, spill):
        for i in range(n_out):
            yield shards[min(i, 3)]

    with pytest.raises(StageError, match="clusters: 4 shards in, but"):
        run_corpus(store, corpus_stage(another_number), SETTINGS, CorpusTask("key", (shards,)))
    assert state(store)[1] == []


def test_rows_in_are_rows_out_shard_by_shard(store, shards):
    def moved(shards, config, *, spill):
        yield from (shards[1], shards[0], shards[2], shards[3])

    with pytest.raises(StageError, match="clusters, shard 0: 1 conversations in, but 2 kept"):
        run_corpus(store, corpus_stage(moved), SETTINGS, CorpusTask("key", (shards,)))
    assert state(store) == ([], [])


def test_files_whose_rows_are_the_same_stay_untouched(store, shards):
    def files() -> dict[str, tuple[int, int]]:
        paths = sorted(store.root.glob("clusters/kept/*.arrow"))
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    def changed(shards, config, *, spill):
        for i, shard in enumerate(echo(shards, config, spill=spill)):
            yield shard.with_columns(n_duplicates=pl.lit(7, pl.Int32)) if i == 1 else shard

    run_corpus(store, corpus_stage(echo), SETTINGS, CorpusTask("key", (shards,)))
    before = files()
    records, _ = run_corpus(store, corpus_stage(changed), SETTINGS, CorpusTask("key2", (shards,)))
    after = files()
    assert [name for name in before if before[name] != after[name]] == ["00001.arrow"]
    assert {record.key for record in records} == {"key2"}


def test_references_and_scratch_memory_reach_the_stage(store, shards):
    def look(shards, config, *, spill, against, evaluations):
        array = spill(3 << 12)
        assert (array.dtype, array.nbytes, int(array.sum())) == (np.dtype(np.uint8), 3 << 12, 0)
        known = {name for frame in against for name in frame["id"]}
        assert known == {"d", "e", "f"}
        assert len(evaluations) == 0
        yield from echo(shards, config, spill=spill)

    stage = dataclasses.replace(corpus_stage(look), references=("against", "evaluations"))
    references = {"against": shards[3:], "evaluations": shards[:0]}
    run_corpus(store, stage, SETTINGS, CorpusTask("key", (shards,), references))
    assert ids(store) == SHARDS


def test_a_watcher_hears_of_every_shard_that_is_read(store, shards):
    heard: list[tuple[str, int, int]] = []

    def look(shards, config, *, spill, against):
        assert [frame.height for frame in against] == [0, 3]
        return echo(shards, config, spill=spill)

    task = CorpusTask("key", (shards,), {"against": shards[2:]})
    run_corpus(store, corpus_stage(look), SETTINGS, task, lambda *read: heard.append(read))
    assert heard == [("against", 1, 2), ("against", 2, 2), *(("signatures", n, 4) for n in range(1, 5))]
