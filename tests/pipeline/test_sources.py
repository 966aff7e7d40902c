"""From the files that are read to the packs: what is lost of each, and the tags that its conversations arrive with."""

import io
import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
from rich.console import Console

from pipeline.config import load_config
from pipeline.counts import sections
from pipeline.funnel import as_json, as_text
from pipeline.graph import GRAPH
from pipeline.run import build
from pipeline.sources import FileFate, by_source, file_fates, together
from schemas.manifest import Manifest, ShardRecord, read_manifests, total
from tests.corpus import write_config, write_corpus

ODD = 'a,"b"|`c`\n\x1b[31m<script>\\'
"""A tag that is code, markup, a line end and a colour to whoever takes it for one."""
TAGGED = {"a": (), "b": ("domain:code", ODD), "c": ("domain:code", "lang:en")}


def build_three_files(directory: Path, *settings: str) -> Path:
    """Build a run of three files: one with broken lines, one with many copies, and one whose records have tags of their own."""
    write_corpus(directory / "a.jsonl", 60, seed=1, bad_every=4)
    write_corpus(directory / "b.jsonl", 90, seed=2, copy_every=3)
    records = write_corpus(directory / "c.jsonl", 120, seed=3).read_text().splitlines()
    own = [
        json.loads(line) | ({"tags": ["own"]} if i < 10 else {}) | {"source": "wiki"} for i, line in enumerate(records)
    ]
    (directory / "c.jsonl").write_text("".join(json.dumps(record) + "\n" for record in own))
    sets = "".join(
        f"[[source.sets]]\ninputs = [{json.dumps(str(directory / f'{name}.jsonl'))}]\ntags = {json.dumps(tags)}\n"
        for name, tags in TAGGED.items()
        if tags
    )
    config = write_config(directory, str(directory / "a.jsonl"), extra=sets)
    build(load_config(config, assignments=list(settings)))
    return directory / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_three_files(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module", params=["drop", "windows"])
def of_each(request: pytest.FixtureRequest, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The totals of each file and stage, also of a run that cuts conversations into windows."""
    if request.param == "windows":
        directory = tmp_path_factory.mktemp("windows")
        run = build_three_files(directory, "tokenize.too_long=windows", "pack.max_seq_len=72")
    return by_source(read_manifests(run))


def test_what_a_stage_keeps_of_a_file_is_what_the_next_gets_of_it(of_each):
    assert len(of_each) == 3
    for path, stages in of_each.items():
        assert list(stages) == [stage.name for stage in GRAPH]
        for stage in GRAPH:
            found = stages[stage.name]
            assert found.rows_in == found.kept + sum(found.dropped.values()), path
            before = stages.get(stage.reads[0])
            if before is None:
                continue
            windows = next(each for each in GRAPH if each.name == stage.reads[0]).expands
            assert found.rows_in >= before.kept if windows else found.rows_in == before.kept, (path, stage.name)


def test_the_files_add_up_to_the_stage(run):
    shown = as_json(read_manifests(run))
    for name, totals in shown["stages"].items():
        for key in ("in", "kept", "tokens", "supervised"):
            assert sum(stages[name][key] for stages in shown["sources"].values()) == totals[key], (name, key)


def test_the_json_says_what_each_stage_dropped_of_a_file(run):
    sources = as_json(read_manifests(run))["sources"]
    found = {Path(path).name: stages for path, stages in sources.items()}
    assert found["a.jsonl"]["ingest"]["dropped"] == {"bad_json": 15}
    assert found["a.jsonl"]["dedup"]["dropped"] == {}
    assert found["b.jsonl"]["ingest"]["counts"] == {"records": 90, "shape/messages": 90}
    assert sum(found["b.jsonl"]["dedup"]["dropped"].values()) > 10


def test_the_side_table_has_the_tags_of_every_conversation(run):
    packs = pl.scan_ipc(run / "pack/kept/*/*.arrow").select("ids", "tags", "seq_lengths").collect()
    table = packs.explode("ids", "tags", "seq_lengths").rename({"ids": "id", "seq_lengths": "n_tokens"})
    of_rows = pl.scan_ipc(run / "mask/kept/*.arrow").select("id", "n_tokens").collect()
    assert sorted(table.select("id", "n_tokens").rows()) == sorted(of_rows.rows())
    for id_, tags in table.select("id", "tags").iter_rows():
        path, _, line = id_.rpartition(":")
        name = Path(path).stem
        own = ("own",) if name == "c" and int(line) <= 10 else ()
        assert tuple(tags) == (*TAGGED[name], *own, *(("source:wiki",) if name == "c" else ()))


def test_tags_are_in_every_stage_that_has_them(run):
    for stage in GRAPH:
        if "tags" in stage.writes.names and stage.name != "pack":
            tags = pl.scan_ipc(run / stage.name / "kept/*.arrow").select("source", "tags").collect()
            of_b = tags.filter(pl.col("source").str.ends_with("b.jsonl"))["tags"].to_list()
            assert of_b
            assert all(each == list(TAGGED["b"]) for each in of_b), stage.name


def test_tokens_are_counted_under_each_tag(run):
    manifests = read_manifests(run)
    counts = manifests["pack"].totals.counts
    packed = {Path(path).name: stages["pack"] for path, stages in by_source(manifests).items()}
    for measure, field in (("tokens", "tokens"), ("trained", "supervised"), ("conversations", "kept")):
        of_tag = {
            tag: sum(counts.get(f"tagged/{split}/{measure}/{tag}", 0) for split in ("train", "validation"))
            for tag in ("domain:code", ODD, "lang:en", "source:wiki")
        }
        of_b, of_c = getattr(packed["b.jsonl"], field), getattr(packed["c.jsonl"], field)
        assert of_tag == {"domain:code": of_b + of_c, ODD: of_b, "lang:en": of_c, "source:wiki": of_c}


def test_dedup_still_counts_losses_by_the_source_that_a_record_names(run):
    counts = read_manifests(run)["clusters"].totals.counts
    assert (counts["rows/source:wiki"], counts["lost/source:wiki"]) == (120, 0)


def test_an_odd_tag_is_only_seen(run):
    console = Console(width=200, file=io.StringIO(), record=True, force_terminal=True)
    console.print(as_text(read_manifests(run)))
    shown = console.export_text()
    assert r'a,"b"|`c`\x0a\x1b[31m<script>' in shown
    card = (run / "README.md").read_text()
    assert r'a,"b"\|\`c\`\\x0a\\x1b[31m&lt;script&gt;' in card
    assert not [c for c in card if not c.isprintable() and c != "\n"]
    assert "<script>" not in card.replace(r'`a,"b"|\x60c\x60\x0a\x1b[31m<script>\`', "")


def test_the_packs_open_as_a_data_set_with_their_tags(run, tmp_path):
    packs = datasets.load_dataset(str(run), split="train", cache_dir=str(tmp_path))
    assert all(len(row["tags"]) == len(row["ids"]) for row in packs)
    assert {tag for row in packs for tags in row["tags"] for tag in tags} >= {"domain:code", ODD, "source:wiki"}


def made(path: str, n_in: int, *, drop: int, tokens: int = 0, supervised: int = 0) -> dict[str, Manifest]:
    kept = n_in - drop
    dropped = {"bad_json": drop} if drop else {}
    records = {
        "ingest": ShardRecord(shard=0, key="", source=path, rows_in=n_in, kept=kept, dropped=dropped),
        "pack": ShardRecord(
            shard=0, key="", source=path, rows_in=kept, kept=kept, dropped={}, tokens=tokens, supervised=supervised
        ),
    }
    return {
        stage: Manifest(stage=stage, key="", libraries={}, totals=total((record,)), shards=(record,))
        for stage, record in records.items()
    }


def joined(*parts: dict[str, Manifest]) -> dict[str, Manifest]:
    found = {}
    for stage in ("ingest", "pack"):
        shards = tuple(shard for part in parts for shard in part[stage].shards)
        found[stage] = Manifest(stage=stage, key="", libraries={}, totals=total(shards), shards=shards)
    return found


def test_the_file_that_lost_most_stands_first_and_files_of_few_behind():
    manifests = joined(
        made("a", 1000, drop=10, tokens=50, supervised=20),
        made("few", 99, drop=99),
        made("b", 500, drop=250),
        made("a", 1000, drop=0, tokens=50),
    )
    assert [(fate.path, fate.n_in, fate.lost, fate.tokens, fate.trained) for fate in file_fates(manifests)] == [
        ("b", 500, 250, 0, 0),
        ("a", 2000, 10, 100, 20),
        ("few", 99, 99, 0, 0),
    ]
    table, *_ = sections(manifests)
    assert table.headings == ("file", "in", "after ingest", "packed", "tokens", "trained", "lost")
    assert table.rows == [
        ("b", "500", "250", "250", "-", "-", "50.0 %"),
        ("a", "2,000", "1,990", "1,990", "100", "20.0 %", "0.5 %"),
        ("few", "99", "0", "0", "-", "-", "100 %"),
    ]


def test_of_many_files_the_others_are_summed():
    manifests = joined(*(made(f"{i:02}", 200, drop=i, tokens=10) for i in range(20)))
    table, *_ = sections(manifests)
    assert len(table.rows) == 16
    assert table.rows[0] == ("19", "200", "181", "181", "10", "-", "9.5 %")
    assert table.rows[15] == ("5 others", "1,000", "990", "990", "50", "-", "1.0 %")


def test_windows_are_no_gain_that_hides_a_loss():
    one = FileFate("a", 10, {"ingest": 8, "pack": 30}, 10, 2, 5, 5)
    two = FileFate("b", 10, {"ingest": 10}, 10, 0, 0, 0)
    assert together([one, two], "both") == FileFate("both", 20, {"ingest": 18, "pack": 30}, 20, 2, 5, 5)


def test_one_file_needs_no_table_of_files():
    assert list(sections(made("a", 10, drop=1))) == []


def test_what_was_not_asked_for_is_not_lost_and_the_worst_file_comes_first():
    def shard(number: int, source: str, dropped: dict[str, int], kept: int) -> ShardRecord:
        n_in = kept + sum(dropped.values())
        return ShardRecord(
            shard=number, key="", rows_in=n_in, kept=kept, dropped=dropped, counts={}, files=(), source=source
        )

    sampled, broken = {"not_sampled": 900, "bad_json": 5}, {"bad_json": 300}
    shards = (shard(0, "long/sampled.jsonl", sampled, 95), shard(1, "b.jsonl", broken, 700))
    manifest = Manifest(stage="ingest", key="", libraries={}, totals=total(shards), shards=shards)
    assert [fate[:5] for fate in file_fates({"ingest": manifest})] == [
        ("b.jsonl", 1000, {"ingest": 700}, 1000, 300),
        ("long/sampled.jsonl", 1000, {"ingest": 95}, 100, 5),
    ]


def test_names_of_files_are_shown_whole_however_narrow_the_page():
    paths = [f"{'d' * 70}/train-0000{i}.parquet" for i in range(2)]
    out = io.StringIO()
    Console(file=out, width=80).print(as_text(joined(*(made(path, 200, drop=i) for i, path in enumerate(paths)))))
    _, _, table = out.getvalue().partition("what became of each file")
    assert "…" not in table
    assert all(path in "".join(line[:40].split(" ")[0] for line in table.splitlines()) for path in paths)
