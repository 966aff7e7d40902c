"""Checkpoints that survive being torn, cut, flipped and interrupted at any write."""

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from schemas.models import Lora, Model
from schemas.training import Train, Trainable
from tests.trainer.tiny import tiny_batch, tiny_model
from trainer import checkpoint
from trainer.checkpoint import State
from trainer.data.stream import Cursor
from trainer.errors import CheckpointsUnusable, ModelError, PlanMismatch, StorageError
from trainer.frozen import narrow
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.model.lora import adapt, outer_names
from trainer.optim import make_adamw
from trainer.trainable import select
from trainer.world import World


def trained(seed: int = 0, model_type: str = "qwen3") -> tuple[Decoder, torch.optim.AdamW]:
    sizes = msgspec.convert({"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}, Model)
    sizes = msgspec.structs.replace(sizes, model_type=model_type)
    model = Decoder(new_architecture(sizes, vocab_size=20))
    initialise(model, seed=seed)
    optimizer = make_adamw(model, Train())
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    optimizer.step()
    return model, optimizer


def state(n_steps: int) -> State:
    return State(cursor=Cursor(epoch=1, step=2), n_steps=n_steps, plan={"seed": 1}, tokens=7, loss_sum=0.1)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_weights_moments_and_state_come_back_bit_for_bit(model_type: str, tmp_path: Path) -> None:
    model, optimizer = trained(0, model_type)
    path = checkpoint.save(tmp_path, state(1), model, optimizer, keep=2)
    other, _ = trained(1, model_type)
    empty = make_adamw(other, Train())
    found = checkpoint.read_state(path)
    assert msgspec.structs.replace(found, files={}, sizes={}) == state(1)
    checkpoint.restore(path, found, other, empty)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(optimizer.state[a]["exp_avg"], empty.state[b]["exp_avg"])
        assert torch.equal(optimizer.state[a]["exp_avg_sq"], empty.state[b]["exp_avg_sq"])
        assert torch.equal(optimizer.state[a]["step"], empty.state[b]["step"])


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    model, optimizer = trained()
    for n in (1, 2, 3):
        checkpoint.save(tmp_path, state(n), model, optimizer, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    model, optimizer = trained()
    checkpoint.save(tmp_path, state(1), model, optimizer, keep=2)
    newest = checkpoint.save(tmp_path, state(2), model, optimizer, keep=2)
    first = tmp_path / "step-00000001"
    rng = np.random.default_rng(0)
    for file in sorted(newest.iterdir()):
        good = file.read_bytes()
        for _ in range(40):
            bad = bytearray(good)
            at = int(rng.integers(0, len(good) * 8))
            bad[at // 8] ^= 1 << at % 8
            file.write_bytes(bytes(bad))
            found, problems = checkpoint.newest_whole(tmp_path)
            assert (found, list(problems)) == (first, [newest]), (file.name, at)
            file.write_bytes(good[: int(rng.integers(0, len(good)))])
            assert checkpoint.newest_whole(tmp_path)[0] == first
        file.unlink()
        assert checkpoint.newest_whole(tmp_path)[0] == first
        file.write_bytes(good)
    assert checkpoint.find(tmp_path, lambda _: None) == newest


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_what_is_broken_is_moved_aside_and_never_costs_a_whole_one(tmp_path: Path) -> None:
    model, optimizer = trained()
    for n in (1, 2, 3):
        checkpoint.save(tmp_path, state(n), model, optimizer, keep=3)
    for n in (2, 3):
        flip(checkpoint.at_step(tmp_path, n) / "model.safetensors")
    said: list[str] = []
    assert checkpoint.find(tmp_path, said.append) == tmp_path / "step-00000001"
    assert [line.split(":")[0][-13:] for line in said] == ["step-00000003", "step-00000002"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "rejected-step-00000002",
        "rejected-step-00000003",
        "step-00000001",
    ]
    # the next one written is kept, whatever lies there, and so is the whole one before it
    checkpoint.save(tmp_path, state(2), model, optimizer, keep=2)
    assert checkpoint.find(tmp_path, said.append) == tmp_path / "step-00000002"
    assert (tmp_path / "step-00000001").is_dir()


def test_a_torn_checkpoint_is_not_counted_among_those_to_keep(tmp_path: Path) -> None:
    model, optimizer = trained()
    for n in (1, 2):
        checkpoint.save(tmp_path, state(n), model, optimizer, keep=9)
    torn = tmp_path / "step-00000002" / "optimizer.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    checkpoint.save(tmp_path, state(3), model, optimizer, keep=2)
    assert {p.name for p in tmp_path.iterdir()} >= {"step-00000001", "step-00000003"}


def test_checkpoints_of_which_none_is_whole_are_a_reason_to_stop_every_time(tmp_path: Path) -> None:
    model, optimizer = trained()
    for n in (1, 2):
        flip(checkpoint.save(tmp_path, state(n), model, optimizer, keep=2) / "optimizer.safetensors")
    for _ in range(2):
        with pytest.raises(CheckpointsUnusable) as caught:
            checkpoint.find(tmp_path, print)
        assert {"step-00000001", "step-00000002", "--fresh."} <= {
            w.strip(":") for w in re.split(r"[/\s]", str(caught.value))
        }
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / f"rejected-{path.name}")
    with pytest.raises(CheckpointsUnusable, match="rejected-step-00000002: moved aside"):
        checkpoint.find(tmp_path, print)


class CrashError(BaseException):
    """The process is gone: nothing in the code under test catches this."""


def break_at(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    """Let the k-th flush or rename from now on, counted from 0, and all after it, fail."""
    real_fsync, real_rename, real_replace = os.fsync, Path.rename, Path.replace
    left = k

    def count() -> None:
        nonlocal left
        if left == 0:
            raise CrashError
        left -= 1

    def fsync(descriptor: int) -> None:
        count()
        real_fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        count()
        return real_rename(self, target)

    def replace(self: Path, target: Path) -> Path:
        count()
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "rename", rename)


def test_a_crash_at_any_flush_or_rename_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained()
    found_steps: list[int] = []
    for k in range(100):
        home = tmp_path / str(k)
        checkpoint.save(home, state(1), model, optimizer, keep=1)
        break_at(monkeypatch, k)
        try:
            checkpoint.save(home, state(2), model, optimizer, keep=1)
        except CrashError:
            monkeypatch.undo()
        else:
            monkeypatch.undo()
            break
        found = checkpoint.find(home, lambda _: None)
        assert found is not None
        found_steps.append(checkpoint.step_of(found))
        assert not list(home.glob(".*"))
    # three files, their directory, the rename; then its flush, and the old one's way out
    assert found_steps == [1, 1, 1, 1, 1, 2, 2]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.find(tmp_path, print) is None
    assert checkpoint.find(tmp_path / "absent", print) is None


def test_another_plan_names_every_difference(tmp_path: Path) -> None:
    with pytest.raises(PlanMismatch) as caught:
        checkpoint.check_plan(tmp_path, {"seed": 1, "batch": 4, "lr": 0.1}, {"seed": 2, "batch": 4, "clip": 1.0})
    assert "  seed: 1 in the checkpoint, 2 now" in str(caught.value)
    assert "  lr: 0.1 in the checkpoint, None now" in str(caught.value)
    assert "  clip: None in the checkpoint, 1.0 now" in str(caught.value)
    assert "batch" not in str(caught.value)


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(1), *trained(), keep=1)
    assert sorted(file.name for file in path.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    for file in path.glob("*.safetensors"):
        # a safetensors file starts with the length of its JSON header
        header = file.read_bytes()
        length = int.from_bytes(header[:8], "little")
        assert isinstance(msgspec.json.decode(header[8 : 8 + length]), dict)


PARTIAL = [
    ("llama", Lora(rank=3, targets=("all-linear",)), None),
    ("gpt2", Lora(rank=3, dropout=0.2, targets=("q_proj", "c_fc")), ("norms",)),
    ("qwen2", Lora(), ("last_block", "biases")),
    ("gpt2", Lora(), "last_block"),
]


def partial(family: str, lora: Lora, trainable: Trainable | None) -> tuple[Decoder, torch.optim.AdamW]:
    model = tiny_model(family)
    adapt(model, lora, seed=0)
    select(model, trainable)
    narrow(model, torch.bfloat16)
    return model, make_adamw(model, Train(weight_decay=0.1))


def steps(model: Decoder, optimizer: torch.optim.Optimizer, *numbers: int) -> None:
    for number in numbers:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(tiny_batch(14, 9, seed=number, step=number)).objective
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(("family", "lora", "trainable"), PARTIAL)
def test_what_learns_is_all_that_is_stored_and_goes_on_bit_for_bit(
    family: str, lora: Lora, trainable: Trainable | None, tmp_path: Path
) -> None:
    model, optimizer = partial(family, lora, trainable)
    steps(model, optimizer, 0, 1, 2)
    path = checkpoint.save(tmp_path, state(3), model, optimizer, keep=1)
    steps(model, optimizer, 3, 4)
    other, empty = partial(family, lora, trainable)
    checkpoint.restore(path, checkpoint.read_state(path), other, empty)
    steps(other, empty, 3, 4)
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name
        assert optimizer.state[a].keys() == empty.state[b].keys()
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, empty.state[b][key]), (name, key)
    outer = {outer for name, p in model.named_parameters() if p.requires_grad for outer in outer_names(model)[name]}
    assert set(load_file(path / "model.safetensors")) == outer
    moments = {f"{moment}.{name}" for moment in ("exp_avg", "exp_avg_sq") for name in outer}
    assert set(load_file(path / "optimizer.safetensors")) == moments


def share_of(model: Decoder, rank: int, size: int) -> torch.optim.AdamW:
    own = [parameter for i, parameter in enumerate(model.parameters()) if i % size == rank]
    return torch.optim.AdamW(own, lr=1e-2, betas=(0.9, 0.95), fused=True)


def world_of(rank: int, size: int) -> World:
    return World(rank=rank, size=size, local_rank=rank, local_size=size, device=torch.device("cpu"))


def test_moments_of_many_ranks_are_read_by_any_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("qwen2")
    whole, shares = make_adamw(model, Train(lr=1e-2)), [share_of(model, rank, 3) for rank in range(3)]
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for share in shares:
        share.step()
    with torch.no_grad():
        for parameter, old in zip(model.parameters(), before, strict=True):
            parameter.copy_(old)
    whole.step()
    barrier = threading.Barrier(3)

    def together(self: World, do: Callable[[], object]) -> object:
        # ranks as threads: each does its part, and none goes on before all have
        try:
            return do()
        finally:
            barrier.wait(timeout=30)

    monkeypatch.setattr(World, "together", together)
    stale = tmp_path / ".tmp-step-00000001-shares"
    stale.mkdir()
    (stale / "optimizer-00007.safetensors").write_bytes(b"of a run that was killed")
    with ThreadPoolExecutor(3) as pool:
        ranks = [
            pool.submit(checkpoint.save_shares, tmp_path, state(1), model, shares[rank], world_of(rank, 3), keep=1)
            for rank in range(3)
        ]
        paths = {rank.result() for rank in ranks}
    assert paths == {tmp_path / "step-00000001"}
    (path,) = paths
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    found = checkpoint.read_state(path)
    names = [f"optimizer-{rank:05d}.safetensors" for rank in range(3)]
    assert sorted(found.files) == ["model.safetensors", *names]
    assert checkpoint.newest_whole(tmp_path) == (path, {})
    for size in (1, 2, 5):
        for rank in range(size):
            other = tiny_model("qwen2", seed=9)
            optimizer = share_of(other, rank, size)
            checkpoint.restore(path, found, other, optimizer)
            mine = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            assert set(optimizer.state) == set(mine)
            for a, b in zip(model.parameters(), other.parameters(), strict=True):
                assert torch.equal(a, b)
                for key, value in optimizer.state.get(b, {}).items():
                    assert torch.equal(value, whole.state[a][key])
    flip(path / names[1])
    assert checkpoint.newest_whole(tmp_path)[0] is None


def test_shares_that_cannot_be_written_are_one_error(tmp_path: Path) -> None:
    model, optimizer = trained()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="step-00000001: could not be written"):
        checkpoint.save_shares(tmp_path / "file", state(1), model, optimizer, world_of(0, 1), keep=1)


def test_the_best_is_kept_however_old(tmp_path: Path) -> None:
    model, optimizer = trained()
    for n in range(1, 7):
        checkpoint.save(tmp_path, state(n), model, optimizer, keep=2, also={2})
    assert sorted(checkpoint.step_of(path) for path in tmp_path.iterdir()) == [2, 5, 6]
    checkpoint.save(tmp_path, state(7), model, optimizer, keep=2, also={6})
    assert sorted(checkpoint.step_of(path) for path in tmp_path.iterdir()) == [6, 7]


def test_a_checkpoint_of_other_weights_is_refused_by_name(tmp_path: Path) -> None:
    one, other = partial("llama", Lora(rank=3, targets=("q_proj",)), None), partial("llama", Lora(), "norms")
    path = checkpoint.save(tmp_path, state(1), *one, keep=1)
    with pytest.raises(ModelError, match=r"step-00000001: model.layers.0.input_layernorm.weight is missing"):
        checkpoint.restore(path, checkpoint.read_state(path), *other)
