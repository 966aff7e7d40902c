"""Reading packs: verified bytes, exact batches, and errors that name what is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.manifest import FileRecord
from trainer.data.packs import Packs, read_manifest, split_files, verify
from trainer.errors import DataError

ROW: dict[str, object] = {
    "ids": ["a:1", "a:2"],
    "split": "train",
    "input_ids": [5, 6, 7, 8, 9],
    "labels": [-100, 6, 7, -100, 9],
    "loss_weights": None,
    "seq_lengths": [3, 2],
    "n_supervised": 3,
    "weight_sum": 3.0,
}
WriteShard = Callable[[Path, str, list[dict[str, object]]], FileRecord]


def packs_of(stage: Path, write_shard: WriteShard, *rows: dict[str, object]) -> Packs:
    return Packs(stage, [write_shard(stage, "kept/train/00000.arrow", list(rows))])


def test_a_batch_holds_tokens_positions_and_shifted_targets(tmp_path: Path, write_shard: WriteShard) -> None:
    packs = packs_of(tmp_path, write_shard, ROW, ROW | {"loss_weights": [0.0, 0.5, 2.0, 0.0, 1.0], "weight_sum": 3.5})
    batch = packs.read([1, 0], vocab_size=10)
    assert batch.input_ids_T.tolist() == [5, 6, 7, 8, 9] * 2
    assert batch.positions_T.tolist() == [0, 1, 2, 0, 1] * 2
    assert batch.lengths == (3, 2, 3, 2)
    assert batch.rows_S.tolist() == [0, 1, 3, 5, 6, 8]
    assert batch.targets_S.tolist() == [6, 7, 9] * 2
    assert batch.weights_S.tolist() == [0.5, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert packs.ids([1, 0]) == ["a:1", "a:2"] * 2
    assert packs.n_tokens.tolist() == [5, 5]
    assert packs.sum_squares.tolist() == [13, 13]
    assert packs.weights.tolist() == [3.0, 3.5]
    assert packs.longest == 3


def test_metadata_of_packs_with_any_number_of_conversations(tmp_path: Path, write_shard: WriteShard) -> None:
    empty = ROW | {"ids": [], "input_ids": [], "labels": [], "seq_lengths": [], "n_supervised": 0, "weight_sum": 0.0}
    packs = packs_of(tmp_path, write_shard, empty, ROW, empty, empty, ROW | {"seq_lengths": [5]}, empty)
    assert packs.n_tokens.tolist() == [0, 5, 0, 0, 5, 0]
    assert packs.sum_squares.tolist() == [0, 13, 0, 0, 25, 0]
    assert packs.longest == 5
    nothing = Packs(tmp_path, [])
    assert (nothing.n_tokens.tolist(), nothing.longest) == ([], 0)


def test_no_packs_give_one_token_that_trains_nothing(tmp_path: Path, write_shard: WriteShard) -> None:
    batch = packs_of(tmp_path, write_shard, ROW).read([], vocab_size=10)
    assert (batch.input_ids_T.tolist(), batch.lengths, batch.rows_S.tolist()) == ([0], (1,), [])


def test_packs_of_all_shards_and_record_batches_are_one_sequence(run: Path) -> None:
    packs = Packs(run / "pack", split_files(read_manifest(run), "train"))
    assert len(packs) == 23
    for pack in range(23):
        ids, labels = packs.tokens(pack)
        assert len(ids) == len(labels) == packs.n_tokens[pack]
        assert (labels != -100).sum() == packs.n_supervised[pack]
    lines = [int(name.split(":")[1]) for name in packs.ids(range(23))]
    assert lines == list(range(1, len(lines) + 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [5, 6, 7, -100, 9], "n_supervised": 4}, "first label of a conversation is trained"),
        ({"labels": [-100, 6, 7, 8, 9], "n_supervised": 4}, "first label of a conversation is trained"),
        ({"seq_lengths": [3, 1]}, "5 input_ids, 5 labels, seq_lengths sum to 4"),
        ({"seq_lengths": [5, 0]}, "a conversation without tokens"),
        ({"input_ids": [5, 6, 7, 8, 10]}, "token ids 5 to 10, the model knows 0 to 9"),
        ({"n_supervised": 2}, "3 trained labels, n_supervised says 2"),
    ],
)
def test_an_unusable_pack_is_named(
    change: dict[str, object], said: str, tmp_path: Path, write_shard: WriteShard
) -> None:
    packs = packs_of(tmp_path, write_shard, ROW | change)
    with pytest.raises(DataError, match=said) as caught:
        packs.read([0], vocab_size=10)
    assert "a:1" in str(caught.value)


def test_every_flipped_bit_of_a_shard_is_found(run: Path) -> None:
    manifest = read_manifest(run)
    file = split_files(manifest, "train")[0]
    path = run / "pack" / file.path
    good = path.read_bytes()
    assert verify(run / "pack", file) is None
    for at in np.random.default_rng(0).integers(0, len(good) * 8, 200).tolist():
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        path.write_bytes(bytes(bad))
        problem = verify(run / "pack", file)
        assert problem is not None
        assert str(path) in problem
        assert f"the manifest says {file.sha256}" in problem
        assert "chatloom data CONFIG --verify" in problem


def test_a_missing_shard_is_named(run: Path) -> None:
    file = split_files(read_manifest(run), "train")[0]
    (run / "pack" / file.path).unlink()
    assert "00000.arrow: No such file" in str(verify(run / "pack", file))


@pytest.mark.parametrize("path", ["kept/train/../../../secret", "kept/train/a/b.arrow"])
def test_a_manifest_cannot_lead_outside_its_stage(path: str, run: Path) -> None:
    manifest = run / "pack" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("kept/train/00000.arrow", path))
    with pytest.raises(DataError, match=r"no shard's path"):
        split_files(read_manifest(run), "train")


def test_a_batch_moves_as_a_whole(tmp_path: Path, write_shard: WriteShard) -> None:
    batch = packs_of(tmp_path, write_shard, ROW).read([0], vocab_size=10)
    moved = batch.to(torch.device("meta"))
    assert {t.device.type for t in (moved.input_ids_T, moved.positions_T, moved.rows_S, moved.targets_S)} == {"meta"}
    assert moved.lengths == batch.lengths
