"""Builds of a small corpus: what is reused, what is redone, and that it never matters to the bytes."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from pipeline import pool
from pipeline.config import load_config
from pipeline.graph import NAMES
from pipeline.progress import Progress
from pipeline.run import build
from schemas.errors import GateError
from schemas.manifest import read_manifests
from schemas.settings import ConfigError
from tests.corpus import ROOT, shards_of, write_config, write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "in" / "a.jsonl", 300, bad_every=50, copy_every=20)


def rebuilt(built) -> dict[str, int]:
    """Shards of each stage that were computed."""
    return {
        name: sum(timing.stage == name for timing in built.timings)
        for name in NAMES
        if any(t.stage == name for t in built.timings)
    }


def test_every_line_ends_in_exactly_one_place(tmp_path, corpus):
    built = build(load_config(write_config(tmp_path, corpus)))
    run = tmp_path / "run"
    packed = pl.concat(
        pl.read_ipc(path).select(pl.col("ids").explode().alias("id"))
        for path in sorted(run.glob("pack/kept/*/*.arrow"))
    )
    dropped = pl.concat(pl.read_ipc(path).select("id") for path in sorted(run.glob("[!p]*/dropped/*.arrow")))
    too_long = [name for path in run.glob("pack/dropped/*.arrow") for name in pl.read_ipc(path)["ids"].explode()]
    ids = sorted([*packed["id"], *dropped["id"], *too_long])
    assert ids == sorted(f"{corpus}:{line}" for line in range(1, 301))
    assert built.manifests["ingest"].totals.dropped == {"bad_json": 6}
    assert built.manifests["dedup"].totals.dropped.get("near_duplicate", 0) > 0


def test_nothing_is_done_twice(tmp_path, corpus):
    config = load_config(write_config(tmp_path, corpus))
    first = build(config)
    assert first.n_shards > 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.arrow")}
    again = build(config)
    assert again.was_fresh
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_setting_rebuilds_from_its_stage_on(tmp_path, corpus):
    path = write_config(tmp_path, corpus)
    n = build(load_config(path)).n_shards
    done = rebuilt(build(load_config(path, assignments=["mask.preset=last"])))
    assert done["mask"] == n
    assert n - 4 <= done["pack"] <= n  # the same comes out for a small shard in which the assistant speaks once
    done = rebuilt(build(load_config(path, assignments=["mask.preset=last", "clusters.keep=first"])))
    assert not {"ingest", "length", "signatures"} & set(done)


def test_what_comes_out_the_same_leaves_the_rest_as_it_is(tmp_path, corpus):
    path = write_config(tmp_path, corpus)
    n = build(load_config(path)).n_shards
    # no conversation is that long: length is run again, and finds the same rows
    assert rebuilt(build(load_config(path, assignments=["length.max_chars=900000"]))) == {"length": n}


def test_appended_lines_cost_the_last_shard(tmp_path, corpus):
    path = write_config(tmp_path, corpus)
    fits = ["pack.max_seq_len=2048"]  # a shard whose new lines are all dropped would end before pack
    n = build(load_config(path, assignments=fits)).n_shards
    write_corpus(tmp_path / "more.jsonl", 3, seed=9)
    with corpus.open("a") as file:
        file.write((tmp_path / "more.jsonl").read_text())
    done = rebuilt(build(load_config(path, assignments=fits)))
    # the last shard, and perhaps a new one behind it
    assert done["ingest"] == done["tokenize"] == done["pack"] <= 2 < n


def test_the_bytes_are_the_same_for_any_history(tmp_path, corpus):
    path = write_config(tmp_path, corpus)
    build(load_config(path))
    straight = shards_of(tmp_path / "run")
    build(load_config(path, assignments=["length.min_chars=60", "mask.preset=last"]))
    assert shards_of(tmp_path / "run") != straight
    build(load_config(path))
    assert shards_of(tmp_path / "run") == straight
    build(load_config(path), fresh=True)
    assert shards_of(tmp_path / "run") == straight


def test_the_bytes_are_the_same_for_any_number_of_workers(tmp_path, corpus, monkeypatch):
    path = write_config(tmp_path, corpus)
    build(load_config(path), workers=1)
    straight = shards_of(tmp_path / "run")
    monkeypatch.setattr("pipeline.pool.ENOUGH_BYTES", 0)
    for workers in (2, 3):
        assert build(load_config(path), workers=workers, fresh=True).timings
        assert shards_of(tmp_path / "run") == straight


def test_fewer_inputs_leave_no_stray_shards(tmp_path, corpus):
    other = write_corpus(tmp_path / "in" / "b.jsonl", 100, seed=5)
    path = write_config(tmp_path, f"{corpus.parent}/*.jsonl")
    build(load_config(path))
    other.unlink()
    build(load_config(path))
    left = shards_of(tmp_path / "run")
    build(load_config(path), fresh=True)
    assert shards_of(tmp_path / "run") == left


def test_a_file_that_sorts_first_costs_its_own_shards(tmp_path, corpus):
    path = write_config(tmp_path, f"{corpus.parent}/*.jsonl")
    n = build(load_config(path)).n_shards
    write_corpus(corpus.parent / "0.jsonl", 30, seed=5)
    built = build(load_config(path))
    assert built.n_shards > n
    done = rebuilt(built)
    assert done["ingest"] == done["signatures"] == done["tokenize"] == built.n_shards - n
    moved = shards_of(tmp_path / "run")
    build(load_config(path), fresh=True)
    assert shards_of(tmp_path / "run") == moved
    assert build(load_config(path)).was_fresh
    (corpus.parent / "0.jsonl").unlink()
    assert "ingest" not in rebuilt(build(load_config(path)))  # and back


def test_compressed_inputs_build_again_only_when_they_change(tmp_path, corpus):
    import gzip

    packed = tmp_path / "in" / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(corpus.read_bytes()))
    path = write_config(tmp_path, packed)
    first = build(load_config(path))
    assert first.manifests["ingest"].totals.rows_in == 300
    assert build(load_config(path)).was_fresh
    assert not (tmp_path / "run" / ".spool").exists()
    # the code or settings of ingest change: the file is unpacked once more
    assert rebuilt(build(load_config(path, assignments=["ingest.max_depth=40"])))["ingest"] == first.n_shards


def test_a_damaged_input_shard_is_named_not_used(tmp_path, corpus):
    path = write_config(tmp_path, corpus)
    build(load_config(path))
    shard = tmp_path / "run" / "length" / "kept" / "00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    from pipeline.store import DamagedShardError

    assert build(load_config(path)).was_fresh  # a glance does not see it
    with pytest.raises(DamagedShardError, match=r"length/kept/00001\.arrow"):
        build(load_config(path, assignments=["dedup.validation=0.2"]))
    done = rebuilt(build(load_config(path, assignments=["dedup.validation=0.2"]), verify=True))
    assert done["length"] == 1
    assert done["pack"] > 1


def test_a_gate_names_the_stage_the_file_and_the_rows(tmp_path, corpus):
    template = tmp_path / "endless.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    path = write_config(tmp_path, corpus, extra=f'[render]\ntemplate = "{template}"\n')
    with pytest.raises(
        GateError, match=r"mask \(.*a\.jsonl, shard 0\).*do not end on a trained stop token.*a\.jsonl:3 "
    ):
        build(load_config(path))


def test_a_stage_is_never_complete_beside_a_newer_one_before_it(tmp_path, corpus):
    path = write_config(tmp_path, corpus)
    build(load_config(path))
    tokenizer = (tmp_path / "run" / "tokenizer" / "tokenizer.json").read_bytes()
    build(load_config(path, assignments=["length.min_chars=200"]), until="length")
    assert list(read_manifests(tmp_path / "run")) == ["ingest", "length"]
    other = tmp_path / "tokenizer"
    shutil.copytree(ROOT / "data" / "tokenizer", other)
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + " ")
    build(load_config(path, assignments=[f"tokenize.tokenizer={other}"]), until="dedup")
    assert (tmp_path / "run" / "tokenizer" / "tokenizer.json").read_bytes() == tokenizer
    built = build(load_config(path, assignments=[f"tokenize.tokenizer={other}"]))
    digest = hashlib.sha256((other / "tokenizer.json").read_bytes()).hexdigest()
    assert built.manifests["pack"].assets["tokenizer/tokenizer.json"] == digest


def test_a_mistake_leaves_no_run_directory(tmp_path, corpus):
    path = write_config(tmp_path, corpus)
    for wrong in (["tokenize.tokenizer=none"], ['source.inputs=["none*"]']):
        with pytest.raises(ConfigError):
            build(load_config(path, assignments=wrong))
    assert not (tmp_path / "run").exists()


def test_until_stops_there(tmp_path, corpus):
    built = build(load_config(write_config(tmp_path, corpus)), until="length")
    assert list(built.manifests) == ["ingest", "length"]
    assert not (tmp_path / "run" / "signatures").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_watcher_hears_how_much_of_the_corpus_is_read(tmp_path, corpus, workers, monkeypatch):
    class Heard(Progress):
        def reading(self, stage, name, n_read, n_shards) -> None:
            heard.append((stage, name, n_read, n_shards))

    heard: list[tuple[str, str, int, int]] = []
    monkeypatch.setattr(pool, "ENOUGH_BYTES", 0)
    config = load_config(write_config(tmp_path, corpus))
    n = build(config, workers=workers, until="clusters", progress=Heard()).n_shards
    stage, name, n_read, n_shards = heard[-1]
    assert (stage, name, n_shards) == ("clusters", "signatures", n)
    assert n_read >= n


def start(path: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys, pipeline.pool\n"
        "pipeline.pool.ENOUGH_BYTES = 0\n"
        "from pipeline.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    # -c has no importable main module, which is what the workers need here
    return subprocess.Popen(
        [sys.executable, "-c", code, "data", str(path), "--workers", "2"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_killed_at_any_moment_the_next_build_ends_with_the_same_bytes(tmp_path, corpus):
    others = write_corpus(tmp_path / "others.jsonl", 60, seed=3)
    clusters = f'[clusters]\nagainst = ["{others}"]\nevaluations = ["{others}"]\nmax_source_loss = 1\n'
    path = write_config(tmp_path, corpus, extra=clusters)
    run = tmp_path / "run"
    build(load_config(path))
    straight, n_files = shards_of(run), len(list(run.rglob("*")))
    shutil.rmtree(run)
    rng = random.Random(7)
    codes = []
    for share in (0.1, 0.4, 0.7):  # of what is to be written, from the first stage to the last
        process = start(path)
        while len(list(run.rglob("*"))) < share * n_files and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        codes.append(process.wait())
    assert codes == [-signal.SIGKILL] * 3
    build(load_config(path))
    assert shards_of(tmp_path / "run") == straight
    assert not list((tmp_path / "run").rglob(".tmp-*"))


def test_interrupted_it_ends_soon_and_says_how_to_go_on(tmp_path, corpus):
    path = write_config(tmp_path, corpus, shard_bytes=2 << 10)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "data", str(path), "--workers", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while process.poll() is None and not list((tmp_path / "run").glob("ingest/kept/*.arrow")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert out.splitlines()[-1] == f"chatloom data {path} --workers 1"
