"""Packs of a test split are nobody's here: neither trained on nor measured, nor read."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from schemas.manifest import FileRecord, Manifest, total
from tests.trainer.conftest import make_tokenizer, pack_rows
from trainer.data.inputs import open_inputs
from trainer.data.packs import read_manifest, split_files
from trainer.entry import main
from trainer.world import World

ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))


@pytest.fixture
def with_test(run: Path, write_shard: Callable[..., FileRecord]) -> Path:
    rows = pack_rows("test", 4, make_tokenizer(), seed=3, weighted=False)
    file = write_shard(run / "pack", "kept/test/00000.arrow", rows)
    manifest = read_manifest(run)
    shards = tuple(msgspec.structs.replace(shard, files=(*shard.files, file)) for shard in manifest.shards)
    changed: Manifest = msgspec.structs.replace(manifest, shards=shards, totals=total(shards))
    (run / "pack" / "manifest.json").write_bytes(msgspec.json.encode(changed))
    return run


def test_the_other_splits_are_read_as_if_it_were_not_there(with_test: Path) -> None:
    inputs = open_inputs(with_test, ALONE)
    assert (len(inputs.packs), len(inputs.validation)) == (23, 5)
    assert set(inputs.files) == {"train", "validation"}
    ids = [*inputs.packs.ids(range(23)), *inputs.validation.ids(range(5))]
    assert {id_.partition(".")[0] for id_ in ids} == {"train", "validation"}
    assert len(split_files(read_manifest(with_test), "test")) == 1


def test_its_bytes_do_not_matter(with_test: Path) -> None:
    (with_test / "pack" / "kept" / "test" / "00000.arrow").write_bytes(b"damaged")
    assert len(open_inputs(with_test, ALONE).packs) == 23


def test_a_run_with_one_is_trained_on(with_test: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(with_test / "config.toml"), "--set", "train.steps=3", "--set", "train.eval_every=0"]
    assert main([*words, "--dry-run"]) == 0
    assert "validation packs  5 (" in capsys.readouterr().out
    assert main(words) == 0
    assert (with_test / "train" / "export" / "model.safetensors").is_file()
