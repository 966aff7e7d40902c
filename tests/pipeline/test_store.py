import dataclasses
from pathlib import Path

import polars as pl
import pytest

from pipeline.graph import by_name
from pipeline.halves import StageError, split
from pipeline.store import DamagedShardError, Store

CLUSTERS = dataclasses.replace(by_name("clusters"), scope="shard")


def rows(n: int, dropped: int = 0) -> pl.DataFrame:
    total = n + dropped
    return pl.DataFrame(
        {
            "id": [f"a:{i}" for i in range(total)],
            "cluster": ["c"] * total,
            "reason": [None] * total,
            "keeper": [None] * total,
            "similarity": [None] * total,
            "scope": [None] * total,
            "n_duplicates": [1] * total,
            "evaluation": [None] * total,
            "overlap": [None] * total,
            "split": ["train"] * total,
            "drop_reason": [None] * n + ["near_duplicate"] * dropped,
        },
        schema_overrides={"similarity": pl.Float64, "overlap": pl.Float64, "drop_reason": pl.String}
        | dict.fromkeys(("reason", "keeper", "scope", "evaluation"), pl.String),
    )


def commit(store: Store, shard: int, key: str, out: pl.DataFrame, rows_in: int):
    return store.commit(CLUSTERS, shard, key, split(CLUSTERS, shard, out, rows_in))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_what_is_committed_reads_back_and_is_split(store):
    record = commit(store, 3, "k", rows(4, dropped=2), 6)
    assert (record.rows_in, record.kept, record.dropped) == (6, 4, {"near_duplicate": 2})
    assert [file.path for file in record.files] == ["kept/00003.arrow", "dropped/00003.arrow"]
    assert store.record("clusters", 3) == record
    assert store.holds("clusters", record)
    assert store.read("clusters", record)["id"].to_list() == ["a:0", "a:1", "a:2", "a:3"]
    dropped = pl.read_ipc(store.root / "clusters" / "dropped" / "00003.arrow")
    assert dropped.select("id", "drop_reason").rows() == [("a:4", "near_duplicate"), ("a:5", "near_duplicate")]


def test_a_lost_row_is_a_defect_that_stops_the_build(store):
    with pytest.raises(StageError, match="clusters, shard 0: 7 conversations in, but 4 kept"):
        commit(store, 0, "k", rows(4, dropped=2), 7)
    assert store.record("clusters", 0) is None


def test_a_flipped_bit_is_found_before_it_is_used(store):
    record = commit(store, 0, "k", rows(4), 4)
    path = store.root / "clusters" / "kept" / "00000.arrow"
    good = path.read_bytes()
    for position in range(0, len(good), 97):
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(DamagedShardError, match=r"00000\.arrow.*expected sha256"):
            store.read("clusters", record)
    path.write_bytes(good)
    assert store.read("clusters", record).height == 4


def test_a_missing_or_shortened_file_is_not_held(store):
    record = commit(store, 0, "k", rows(4), 4)
    path = store.root / "clusters" / "kept" / "00000.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    assert not store.holds("clusters", record)
    path.unlink()
    assert not store.holds("clusters", record)


def test_a_new_commit_leaves_nothing_of_the_old_one(store):
    commit(store, 0, "k", rows(4, dropped=2), 6)
    commit(store, 0, "k2", rows(6), 6)
    assert not (store.root / "clusters" / "dropped" / "00000.arrow").exists()


def test_a_file_that_comes_out_the_same_is_not_written_again(store):
    first = commit(store, 0, "k", rows(4, dropped=2), 6)
    files = [store.root / "clusters" / file.path for file in first.files]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files]
    second = commit(store, 0, "k2", rows(4, dropped=2), 6)
    assert (second.key, second.files) == ("k2", first.files)
    assert store.record("clusters", 0) == second
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files] == before


def test_a_damaged_file_is_written_again_though_its_size_is_right(store):
    record = commit(store, 0, "k", rows(4), 4)
    path = store.root / "clusters" / "kept" / "00000.arrow"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert commit(store, 0, "k", rows(4), 4) == record
    assert path.read_bytes() == good


def test_what_is_written_does_not_count_before_it_is_remembered(store):
    commit(store, 0, "k", rows(4), 4)
    halves = split(CLUSTERS, 0, rows(5), 5)
    record = store.write(CLUSTERS, 0, "k2", halves)
    assert store.record("clusters", 0) is None
    store.remember("clusters", record)
    assert store.record("clusters", 0) == record


def test_finishing_removes_shards_that_are_no_more(store):
    records = [commit(store, shard, "k", rows(shard + 1), shard + 1) for shard in range(3)]
    manifest = store.finish(CLUSTERS, records[:2], "key", settings="s", libraries={"polars": "2"}, added_tokens={})
    assert (manifest.totals.rows_in, manifest.totals.kept) == (3, 3)
    left = sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file())
    assert left == [
        "clusters/kept/00000.arrow",
        "clusters/kept/00001.arrow",
        "clusters/manifest.json",
        "clusters/shards/00000.json",
        "clusters/shards/00001.json",
    ]


def test_finishing_leaves_no_empty_directory(store):
    commit(store, 0, "k", rows(2, dropped=1), 3)
    again = commit(store, 0, "k2", rows(3), 3)
    store.finish(CLUSTERS, [again], "key", settings="s", libraries={}, added_tokens={})
    assert sorted(path.name for path in (store.root / "clusters").iterdir()) == ["kept", "manifest.json", "shards"]


def test_the_bytes_do_not_depend_on_how_a_frame_is_chunked(store):
    whole = rows(6)
    commit(store, 0, "k", whole, 6)
    commit(store, 1, "k", pl.concat([whole[:2], whole[2:]], rechunk=False), 6)
    kept = store.root / "clusters" / "kept"
    assert (kept / "00000.arrow").read_bytes() == (kept / "00001.arrow").read_bytes()
