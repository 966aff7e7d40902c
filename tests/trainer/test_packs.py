"""Reading packs: verified bytes, exact batches, and errors that name what is wrong."""

import contextlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.checksum import PackedRow
from schemas.manifest import FileRecord
from tests.trainer.conftest import USED, make_shard, make_tokenizer, pack_rows, used_bytes
from trainer.data.packs import Packs, read_manifest, split_files
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
    assert packs.n_trained.tolist() == [2, 2]
    assert packs.root_weights.tolist() == [2**0.5 + 1, 2.5**0.5 + 1]


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


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FileRecord, bytes]:
    """Return the stage, the record and the bytes of a shard of six packs, three of them with loss weights."""
    stage, tokenizer = tmp_path_factory.mktemp("shard"), make_tokenizer()
    rows = [row for weighted in (True, False) for row in pack_rows("train", 3, tokenizer, seed=1, weighted=weighted)]
    file = make_shard(stage, "kept/train/00000.arrow", rows)
    return stage, file, (stage / file.path).read_bytes()


def readings(stage: Path, file: FileRecord) -> list[PackedRow | None]:
    """Return what is read of each pack, None for what is refused. Raises DataError if the shard is, at the start."""
    packs = Packs(stage, [file])
    rows: list[PackedRow | None] = [None] * len(packs)
    for pack in range(len(packs)):
        with contextlib.suppress(DataError):
            rows[pack] = packs.row(pack)
    return rows


def is_same(one: PackedRow, other: PackedRow) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", USED)
@given(data=st.data())
def test_a_flipped_bit_of_what_is_trained_with_is_found(
    name: str, shard: tuple[Path, FileRecord, bytes], data: st.DataObject
) -> None:
    stage, file, good = shard
    bad = bytearray(good)
    bad[data.draw(st.sampled_from(used_bytes(good)[name]))] ^= 1 << data.draw(st.integers(0, 7))
    (stage / file.path).write_bytes(bytes(bad))
    try:
        found = readings(stage, file)
    except DataError:
        return
    finally:
        (stage / file.path).write_bytes(good)
    assert None in found


@settings(max_examples=300)
@given(data=st.data())
def test_after_any_flipped_bit_a_pack_is_what_it_was_or_refused(
    shard: tuple[Path, FileRecord, bytes], data: st.DataObject
) -> None:
    stage, file, good = shard
    expected = readings(stage, file)
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (stage / file.path).write_bytes(bytes(bad))
    try:
        found = readings(stage, file)
    except DataError:
        return
    finally:
        (stage / file.path).write_bytes(good)
    assert None not in expected
    assert all(got is None or (want and is_same(got, want)) for got, want in zip(found, expected, strict=True))


def test_a_bit_that_flips_while_training_is_found_and_the_pack_is_named(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    file = write_shard(tmp_path, "kept/train/00000.arrow", [ROW, ROW | {"ids": ["b:7", "b:8"]}])
    packs, path = Packs(tmp_path, [file]), tmp_path / file.path
    batch = packs.read([0, 1], vocab_size=10)
    data = path.read_bytes()
    at = max(used_bytes(data)["input_ids"]) - 3  # the last token's lowest byte, which is 9
    with path.open("r+b") as stream:  # in place: the mapping sees it
        stream.seek(at)
        stream.write(bytes([8]))
    assert torch.equal(packs.read([0], vocab_size=10).input_ids_T, batch.input_ids_T[:5])
    for read in (lambda: packs.read([0, 1], vocab_size=10), lambda: packs.tokens(1), lambda: packs.document_lengths(1)):
        with pytest.raises(
            DataError, match=r"00000\.arrow: row 1 \(b:7, b:8\): the pack is damaged: expected checksum"
        ):
            read()


@pytest.mark.parametrize("left", [0, 4096])
def test_a_file_that_is_cut_while_training_is_named_and_no_signal_ends_it(left: int, run: Path) -> None:
    packs = Packs(run / "pack", split_files(read_manifest(run), "train"))
    path, other = run / "pack" / "kept" / "train" / "00000.arrow", run / "pack" / "kept" / "train" / "00001.arrow"
    with path.open("r+b") as file:
        file.truncate(left)
    with pytest.raises(DataError, match=rf"00000.arrow: row 10: .* bytes when training began, and now {left:,}"):
        packs.read([10], vocab_size=400)
    before = packs.tokens(22)[0].tolist()
    other.unlink()  # what is mapped stays
    assert packs.tokens(22)[0].tolist() == before
    other.write_bytes(b"built anew")
    assert packs.tokens(22)[0].tolist() == before


def test_the_checksum_of_a_pack_is_what_its_documentation_says(tmp_path: Path, write_shard: WriteShard) -> None:
    file = write_shard(tmp_path, "kept/train/00000.arrow", [ROW | {"loss_weights": [0.0, 0.5, 2.0, 0.0, 1.0]}])
    counts = struct.pack("<6qd", 2, 5, 5, 5, 2, 3, 3.0)
    strings = struct.pack("<2i", 3, 3) + b"a:1a:2"
    tokens = struct.pack("<5i", 5, 6, 7, 8, 9) + struct.pack("<5i", -100, 6, 7, -100, 9)
    rest = struct.pack("<5f", 0, 0.5, 2, 0, 1) + struct.pack("<2i", 3, 2)
    with pa.memory_map(str(tmp_path / file.path)) as source:
        assert pa.ipc.open_file(source).read_all()["checksum"].to_pylist() == [
            zlib.crc32(counts + strings + tokens + rest)
        ]


def test_a_shard_of_another_build_is_refused_though_it_is_whole(tmp_path: Path, write_shard: WriteShard) -> None:
    file = write_shard(tmp_path, "kept/train/00000.arrow", [ROW])
    other = write_shard(tmp_path, "kept/train/00000.arrow", [ROW | {"input_ids": [5, 6, 7, 8, 8]}])
    assert (other.bytes, other.rows) == (file.bytes, file.rows)
    assert len(Packs(tmp_path, [other])) == 1
    with pytest.raises(DataError, match=r"00000\.arrow: the shard is damaged, or of another build"):
        Packs(tmp_path, [file])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "00000.arrow: No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "the shard is damaged: .* bytes, the manifest says"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "not a readable Arrow file"),
    ],
    ids=["missing", "truncated", "zeroed"],
)
def test_a_file_that_is_not_there_whole_is_refused_at_the_start(
    spoil: Callable[[Path], None], said: str, tmp_path: Path, write_shard: WriteShard
) -> None:
    file = write_shard(tmp_path, "kept/train/00000.arrow", [ROW])
    spoil(tmp_path / file.path)
    with pytest.raises(DataError, match=said):
        Packs(tmp_path, [file])


def test_packs_of_an_older_version_are_to_be_built_again(tmp_path: Path, write_shard: WriteShard) -> None:
    file = msgspec.structs.replace(write_shard(tmp_path, "kept/train/00000.arrow", [ROW]), checksums="")
    with pytest.raises(DataError, match="run `chatloom data CONFIG` again"):
        Packs(tmp_path, [file])


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


def test_a_manifest_of_another_version_or_stage_or_with_a_shard_twice_is_refused(run: Path) -> None:
    path, manifest = run / "pack" / "manifest.json", read_manifest(run)
    for change, said in (
        ({"format": 99}, "format 99 of stage 'pack'"),
        ({"stage": "mask"}, "format 1 of stage 'mask'"),
    ):
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **change)))
        with pytest.raises(DataError, match=said):
            read_manifest(run)
    twice = msgspec.structs.replace(manifest, shards=manifest.shards * 2)
    with pytest.raises(DataError, match="listed twice"):
        split_files(twice, "train")
