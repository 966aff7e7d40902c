"""Data that grows: old rows are not signed again, and what did not change is not touched, to the very inode."""

import json
from pathlib import Path

import polars as pl
import pytest

from pipeline.config import load_config
from pipeline.graph import NAMES
from pipeline.run import Built, build
from schemas.manifest import read_manifests
from tests.corpus import shards_of, write_config, write_corpus

AFTER_CLUSTERS = NAMES[NAMES.index("dedup") :]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "in" / "a.jsonl", 300, bad_every=50, copy_every=20)


@pytest.fixture
def config(tmp_path: Path, corpus: Path) -> Path:
    return write_config(tmp_path, corpus)


def identities(run: Path, stage: str) -> dict[str, tuple[int, int]]:
    """Return which file each shard of a stage is, and when it was written."""
    paths = sorted((run / stage).rglob("*.arrow"))
    return {str(path.relative_to(run)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def of_shard(found: dict[str, tuple[int, int]], shard: int) -> dict[str, tuple[int, int]]:
    return {path: identity for path, identity in found.items() if path.endswith(f"{shard:05d}.arrow")}


def computed(built: Built, stage: str) -> list[int]:
    return sorted(timing.shard for timing in built.timings if timing.stage == stage)


def diary(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def equals_a_build_from_scratch(config: Path, run: Path) -> bool:
    grown = shards_of(run)
    build(load_config(config), fresh=True)
    return shards_of(run) == grown


def chunks_of(run: Path) -> list[str]:
    """Return by what each shard's chunk is known, in order."""
    known: list[str] = json.loads((run / "layout.json").read_text())
    return known


@pytest.mark.parametrize("n_new", [3, 40])
def test_appended_rows_leave_the_old_shards_as_they_are(tmp_path, corpus, config, n_new):
    run = tmp_path / "run"
    n_before = build(load_config(config)).n_shards
    before = {stage: identities(run, stage) for stage in NAMES}
    chunks, manifests = chunks_of(run), read_manifests(run)
    n_entries = len(diary(run))
    size = corpus.stat().st_size
    new = write_corpus(tmp_path / "new.jsonl", n_new, seed=9).read_text()
    corpus.write_text(corpus.read_text() + new)
    built = build(load_config(config))
    last = len([None for old, now in zip(chunks, chunks_of(run), strict=False) if old == now])
    assert n_before > last >= n_before - 5 > 5
    fresh = list(range(last, built.n_shards))
    assert [entry["shard"] for entry in diary(run)[n_entries:] if entry["stage"] == "signatures"] == fresh
    assert computed(built, "signatures") == computed(built, "ingest") == fresh
    assert computed(built, "clusters") == [0]  # all of it is compared anew
    for stage in NAMES:
        after = identities(run, stage)
        for shard in range(last):
            assert of_shard(after, shard) == of_shard(before[stage], shard), (stage, shard)
    keys = [shard.key for shard in manifests["ingest"].shards]
    assert [shard.key for shard in read_manifests(run)["ingest"].shards[:last]] == keys[:last]
    rows = [shard.rows_in for shard in read_manifests(run)["ingest"].shards[last:]]
    assert (
        sum(rows) <= n_new + 300 * load_config(config).source.shard_bytes // size + 1
    )  # what is new, and less than a shard
    assert {shard for stage in AFTER_CLUSTERS for shard in computed(built, stage)} == set(fresh)
    assert equals_a_build_from_scratch(config, run)


def test_another_copy_of_an_old_row_is_counted_and_rebuilds_nothing(tmp_path, corpus, config):
    run = tmp_path / "run"
    last = build(load_config(config)).n_shards - 1
    before = {stage: identities(run, stage) for stage in NAMES}
    lines = corpus.read_text().splitlines(keepends=True)
    copied = next(  # a row that no other is similar to
        int(row["id"].rpartition(":")[2])
        for row in pl.read_ipc(run / "clusters" / "kept" / "00001.arrow").to_dicts()
        if row["n_duplicates"] == 1
    )
    corpus.write_text("".join([*lines, lines[copied - 1]]))
    built = build(load_config(config))
    old = pl.read_ipc(run / "clusters" / "kept" / "00001.arrow").filter(pl.col("id") == f"{corpus}:{copied}")
    assert old.select("reason", "n_duplicates").rows() == [(None, 2)]
    dropped = pl.concat(pl.read_ipc(path) for path in sorted(run.glob("dedup/dropped/*.arrow")))
    copy = dropped.filter(pl.col("id") == f"{corpus}:{len(lines) + 1}")
    assert copy.select("keeper", "similarity", "drop_reason").rows() == [(f"{corpus}:{copied}", 1, "exact_duplicate")]

    changed = {
        path
        for stage in NAMES
        for path, identity in identities(run, stage).items()
        if before[stage].get(path) != identity and not path.endswith(f"{last:05d}.arrow")
    }
    assert changed <= {f"clusters/kept/{shard:05d}.arrow" for shard in (1, last + 1)} | {
        f"{stage}/{half}/{last + 1:05d}.arrow" for stage in NAMES for half in ("kept", "dropped")
    }
    assert "clusters/kept/00001.arrow" in changed
    assert 1 in computed(built, "dedup")  # it reads the number, and comes out the same
    assert not {1, 2, 3} & {shard for stage in AFTER_CLUSTERS[1:] for shard in computed(built, stage)}
    assert equals_a_build_from_scratch(config, run)


def test_a_row_of_the_corpus_that_a_new_file_copies_goes_and_only_its_shard_is_rebuilt(tmp_path, corpus):
    config = write_config(tmp_path, tmp_path / "in")
    run = tmp_path / "run"
    build(load_config(config))
    before = {stage: identities(run, stage) for stage in NAMES}
    lines = corpus.read_text().splitlines()
    row = next(
        int(row["id"].rpartition(":")[2])
        for row in pl.read_ipc(run / "clusters" / "kept" / "00002.arrow").to_dicts()
        if row["n_duplicates"] == 1
    )
    record = json.loads(lines[row - 1])
    record["messages"][-1]["content"] += " Longer."  # the longest copy stays
    (tmp_path / "in" / "b.jsonl").write_text(json.dumps(record) + "\n")
    build(load_config(config))
    gone = pl.read_ipc(run / "dedup" / "dropped" / "00002.arrow").filter(pl.col("id") == f"{corpus}:{row}")
    assert gone["keeper"].to_list() == [f"{tmp_path / 'in' / 'b.jsonl'}:1"]
    for stage in NAMES:
        after = identities(run, stage)
        for shard in (0, 1, 3, 4):
            assert of_shard(after, shard) == of_shard(before[stage], shard), (stage, shard)
    assert equals_a_build_from_scratch(config, run)
