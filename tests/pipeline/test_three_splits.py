"""A test split goes the way of the other two: into packs of its own, onto the card, and out of it as a data set."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import datasets
import polars as pl
import pytest

from pipeline.card import dataset_card
from pipeline.config import load_config
from pipeline.graph import by_name
from pipeline.halves import split
from pipeline.look import look
from pipeline.store import Store
from schemas.files import write_whole
from schemas.manifest import read_manifests
from stages.pack import Pack, pack_conversations
from tests.corpus import ROOT

SCHEMA = {
    "id": pl.String,
    "split": pl.String,
    "input_ids": pl.List(pl.Int32),
    "labels": pl.List(pl.Int32),
    "loss_weights": pl.List(pl.Float32),
    "n_tokens": pl.Int32,
    "n_supervised": pl.Int32,
}
SHARDS = [
    {"a:1": "train", "a:2": "test", "a:3": "train", "a:4": "validation"},
    {"a:5": "test", "a:6": "test"},  # a shard without rows to train on
]


def tagged(ids: Iterable[str]) -> pl.DataFrame:
    """The conversations with these ids; those of an even number have tags."""
    tags = {id_: ["domain:code", "even"] if int(id_[2:]) % 2 == 0 else [] for id_ in ids}
    return pl.DataFrame(list(tags.items()), {"id": pl.String, "tags": pl.List(pl.String)}, orient="row")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root, pack = tmp_path / "run", by_name("pack")
    store, records = Store(root), []
    for number, splits in enumerate(SHARDS):
        rows = [(id_, name, [1, 2, 3], [-100, 2, 3], None, 3, 2) for id_, name in splits.items()]
        out = pack_conversations(pl.DataFrame(rows, SCHEMA, orient="row"), tagged(splits), Pack(max_seq_len=8))
        records.append(store.commit(pack, number, "k", split(pack, number, out, len(rows))))
    store.finish(pack, records, "k", settings="", libraries={}, added_tokens={})
    (tmp_path / "my.toml").write_text(f'run = "{root}"\n[source]\ninputs = ["a"]\n')
    write_whole(root / "README.md", dataset_card(load_config(tmp_path / "my.toml"), read_manifests(root)).encode())
    return root


def test_each_split_has_packs_of_its_own(run):
    found = {
        name: [id_ for ids in pl.scan_ipc(run / f"pack/kept/{name}/*.arrow").collect()["ids"] for id_ in ids]
        for name in ("train", "validation", "test")
    }
    assert found == {"train": ["a:1", "a:3"], "validation": ["a:4"], "test": ["a:2", "a:5", "a:6"]}


def test_the_run_is_a_data_set_of_three_splits(run, tmp_path):
    packs = datasets.load_dataset(str(run), cache_dir=str(tmp_path / "cache"))
    assert {name: sum(map(len, packs[name]["ids"])) for name in packs} == {"train": 2, "validation": 1, "test": 3}
    assert packs["test"]["ids"][:] == [["a:2"], ["a:5", "a:6"]]
    assert packs["test"]["tags"][:] == [[["domain:code", "even"]], [[], ["domain:code", "even"]]]


def test_a_test_pack_can_be_looked_at_by_the_id_of_a_conversation(run):
    (run / "tokenizer").mkdir()
    shutil.copy(ROOT / "data" / "tokenizer" / "tokenizer.json", run / "tokenizer" / "tokenizer.json")
    parts = [str(part) for part in look(run, "pack", row=0, id="a:5", dropped=False, in_colour=False)]
    assert "split: test" in parts
    assert "--- a:5: 3 tokens" in parts
    assert "--- a:6: 3 tokens tagged 'domain:code', 'even'" in parts


def test_a_split_that_is_no_more_leaves_nothing_behind(run):
    store, pack = Store(run), by_name("pack")
    rows = [(id_, "train", [1, 2, 3], [-100, 2, 3], None, 3, 2) for id_ in ("a:5", "a:6")]
    out = pack_conversations(pl.DataFrame(rows, SCHEMA, orient="row"), tagged(["a:5", "a:6"]), Pack(max_seq_len=8))
    store.commit(pack, 1, "k2", split(pack, 1, out, 2))
    assert sorted(str(path.relative_to(run)) for path in run.glob("pack/kept/*/00001.arrow")) == [
        "pack/kept/train/00001.arrow"
    ]
