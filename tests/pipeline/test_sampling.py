"""Samples of the records: exact, nested, drawn from everywhere, and nothing is rebuilt but what they change."""

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.catalog import Catalog
from pipeline.config import load_config
from pipeline.run import build
from pipeline.source import Source, SourceSet, read_chunk
from pipeline.source.sampling import draws
from schemas.settings import ConfigError
from tests.corpus import ROOT


def records(n: int, kind: str) -> list[dict[str, Any]]:
    def said(i: int) -> list[dict[str, str]]:
        return [
            {"role": "user", "content": f"{kind} {i}?"},
            {"role": "assistant", "content": f"{i * 7919} of {kind}."},
        ]

    return [{"messages": said(i)} for i in range(n)]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with three files of 400, 300 and 100 records, in several chunks each."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records(400, "a")))
    (tmp_path / "b.json").write_text(json.dumps(records(300, "b")))
    lines = "".join(json.dumps(record) + "\n" for record in records(100, "c"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    return tmp_path


def sampled(root: Path, **settings: Any) -> set[str]:
    """Return the names of the records that are read; all others must be there, and say why they are not."""
    source = Source(shard_bytes=4096, **settings)
    catalog = Catalog(root / "run", source)
    lines = pl.concat([read_chunk(chunk, source) for chunk in catalog.chunks()])
    left_out = lines.filter(pl.col("skip") == "not_sampled")
    assert left_out["raw"].null_count() == left_out.height
    assert lines["skip"].drop_nulls().unique().to_list() in ([], ["not_sampled"])
    taken = lines.filter(pl.col("skip").is_null())
    assert taken["raw"].null_count() == 0
    assert taken.height + left_out.height == 800
    names = taken.select(pl.col("source").str.split("/").list.last() + ":" + pl.col("line").cast(pl.String)).to_series()
    return set(names)


def sets(root: Path, **of_a: Any) -> tuple[SourceSet, ...]:
    return (SourceSet(inputs=(f"{root}/a.jsonl",), **of_a), SourceSet(inputs=(f"{root}/b.json", f"{root}/c.jsonl.gz")))


def test_a_limit_takes_exactly_so_many_from_everywhere_and_smaller_ones_are_part_of_it(files: Path):
    drawn = [sampled(files, inputs=(str(files),), limit=n) for n in (1, 10, 100, 400, 799)]
    assert [len(names) for names in drawn] == [1, 10, 100, 400, 799]
    assert all(small < large for small, large in pairwise(drawn))
    by_file = Counter(name.split(":")[0] for name in drawn[3])
    # 200, 150 and 50 expected; four standard deviations of the hypergeometric draw are 40, 39 and 27
    assert abs(by_file["a.jsonl"] - 200) < 40
    assert abs(by_file["b.json"] - 150) < 39
    assert abs(by_file["c.jsonl.gz"] - 50) < 27
    assert len(sampled(files, inputs=(str(files),), limit=800)) == 800
    assert len(sampled(files, inputs=(str(files),), limit=10**12)) == 800
    assert sampled(files, inputs=(str(files),), limit=10, seed=1) != drawn[1]


def test_a_share_and_a_limit_of_a_set_leave_other_sets_alone(files: Path):
    drawn = [sampled(files, sets=sets(files, share=share)) for share in (0.05, 0.2, 0.9)]
    assert all(small < large for small, large in pairwise(drawn))
    assert [sum(name[0] != "a" for name in names) for names in drawn] == [400] * 3
    of_a = [sum(name[0] == "a" for name in names) for names in drawn]
    assert np.allclose(of_a, [20, 80, 360], atol=32)  # four standard deviations of 400 draws at 0.2
    limited = sampled(files, sets=sets(files, limit=30))
    assert Counter(name[0] == "a" for name in limited) == {True: 30, False: 400}
    both = sampled(files, sets=sets(files, limit=30, share=0.2))
    assert len(both) == 430
    assert both < drawn[1] | {name for name in limited if name[0] != "a"}


def test_a_limit_of_all_takes_from_what_sets_offer_in_proportion(files: Path):
    """A tenth of one set stays about a tenth of it in a sample of both."""
    drawn = sampled(files, sets=sets(files, share=0.1), limit=100)
    assert len(drawn) == 100
    of_a = {name for name in drawn if name[0] == "a"}
    assert 1 <= len(of_a) <= 25  # 40 of 440 are offered, so 9 are expected
    assert of_a < sampled(files, sets=sets(files, share=0.1))


def test_draws_are_uniform_and_those_of_a_release_stay():
    drawn = draws("data/a.jsonl", 7, np.arange(1, 100_001))
    shares = np.bincount((drawn >> np.uint64(59)).astype(np.int64), minlength=16) / len(drawn)
    assert np.allclose(shares, 1 / 16, atol=0.0031)  # four standard deviations
    assert [f"{value:016x}" for value in drawn[:2].tolist()] == RELEASED


RELEASED = ["1563359741b15e04", "1f23834c25c9862d"]
"""Draws that a release may not change: they decide what runs of long ago read."""


def test_a_torn_file_is_seen_in_every_sample(tmp_path: Path):
    (tmp_path / "torn.json").write_text("[" + ",\n".join(json.dumps(record) for record in records(50, "a")))
    source = Source(inputs=(str(tmp_path / "torn.json"),), limit=1)
    lines = pl.concat([read_chunk(chunk, source) for chunk in Catalog(tmp_path / "run", source).chunks()])
    assert lines.height == 51
    assert (lines["skip"] == "not_sampled").sum() == 49
    assert lines["skip"][-1] != "not_sampled"


def test_blank_lines_draw_too_but_are_no_records(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n\n" for record in records(50, "a")))
    source = Source(inputs=(str(tmp_path),), limit=30)
    lines = pl.concat([read_chunk(chunk, source) for chunk in Catalog(tmp_path / "run", source).chunks()])
    assert lines.height == 50
    assert lines["skip"].null_count() <= 30


def test_a_sample_ends_in_the_build_with_every_record_accounted_for(files: Path):
    config = files / "config.toml"
    config.write_text(
        f'run = "{files}/run"\nseed = 3\n[source]\ninputs = ["{files}/a.jsonl", "{files}/b.json"]\nshard_bytes = 4096\n'
        f'[clusters]\nthreshold = 1.0\n[tokenize]\ntokenizer = "{ROOT}/data/tokenizer"\n'
    )

    def ingest(*assignments: str) -> tuple[Any, dict[str, str]]:
        built = build(load_config(config, assignments=assignments), until="length", workers=1)
        manifest = built.manifests["ingest"]
        return manifest.totals, {record.shard: record.key for record in manifest.shards}

    totals, before = ingest("source.limit=60")
    assert (totals.kept, totals.dropped) == (60, {"not_sampled": 640})
    again = ingest("source.limit=61")
    assert again[0].kept == 61
    assert sum(before[shard] != key for shard, key in again[1].items()) == 1  # the shard of the one more
    assert ingest("source.limit=61", "source.seed=4")[0].kept == 61
    assert ingest()[0].kept == 700
    assert load_config(config).source.seed == 3


@pytest.mark.parametrize(
    ("setting", "problem"),
    [("limit=0", "limit = 0"), ("seed=-1", "seed = -1"), ("sets=[{inputs = ['a'], share = 0.0}]", "share")],
)
def test_samples_of_nothing_are_refused(setting: str, problem: str):
    with pytest.raises(ConfigError, match=problem):
        load_config(ROOT / "configs" / "tiny.toml", assignments=[f"source.{setting}"])
