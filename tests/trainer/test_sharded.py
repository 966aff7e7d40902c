"""Optimizer state that is shared out among ranks, against an optimizer that has all of it."""

import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from schemas.models import Model
from schemas.training import Group, Train
from tests.trainer import processes
from trainer import checkpoint
from trainer.checkpoint import State
from trainer.data.stream import Cursor
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.optim import make_adamw, set_learning_rate
from trainer.sharded import ShardedAdamW, share_out
from trainer.world import World

TRAIN = Train(weight_decay=0.1, groups=(Group(pattern="embed_tokens", lr_scale=0.25, weight_decay=0.0),))
SIZES = Model(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, model_type="qwen2")


def make_model() -> Decoder:
    model = Decoder(new_architecture(SIZES, vocab_size=64))
    initialise(model, seed=3)
    return model


def update(model: Decoder, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """Do the steps `first` to `last` on gradients that are a function of the step, as reduced ones are equal on all ranks."""
    for step in range(first, last + 1):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_learning_rate(optimizer, 1e-2 / step)
        optimizer.step()
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())


def everything(model: Decoder) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def n_moments(optimizer: torch.optim.Optimizer) -> int:
    return sum(tensor.numel() for state in optimizer.state.values() for tensor in state.values() if tensor.dim() > 0)


def save_to(home: Path, n_steps: int, model: Decoder, optimizer: torch.optim.Optimizer, world: World) -> None:
    state = State(cursor=Cursor(), n_steps=n_steps, plan={})
    if isinstance(optimizer, ShardedAdamW):
        checkpoint.save_shares(home, state, model, optimizer, world, keep=9)
    else:
        checkpoint.save(home, state, model, optimizer, keep=9)


def restore_from(home: Path, n_steps: int, model: Decoder, optimizer: torch.optim.Optimizer) -> None:
    path = checkpoint.at_step(home, n_steps)
    checkpoint.restore(path, checkpoint.read_state(path), model, optimizer)


def two_ranks(home: Path) -> None:
    """Do steps 1 to 3, save, wait for one process that does step 4 and saves, then do step 5, all into `home`."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    world = World(rank=rank, size=2, local_rank=rank, local_size=2, device=torch.device("cpu"))
    model = make_model()
    optimizer = ShardedAdamW(make_adamw(model, TRAIN), world)
    update(model, optimizer, 1, 3)
    save_to(home, 3, model, optimizer, world)
    torch.save((everything(model), n_moments(optimizer)), home / f"rank-{rank}-3.pt")
    until = time.monotonic() + 60
    while not checkpoint.at_step(home, 4).exists() and time.monotonic() < until:
        time.sleep(0.01)
    model = make_model()
    optimizer = ShardedAdamW(make_adamw(model, TRAIN), world)
    restore_from(home, 4, model, optimizer)
    update(model, optimizer, 5, 5)
    save_to(home, 5, model, optimizer, world)
    torch.save((everything(model), n_moments(optimizer)), home / f"rank-{rank}-5.pt")
    dist.destroy_process_group()


def test_shares_give_the_weights_of_a_whole_optimizer_bit_for_bit_from_2_ranks_to_1_to_2(tmp_path: Path) -> None:
    ranks = processes.Ranks(two_ranks, tmp_path, world=2)
    whole = make_model()
    adamw = make_adamw(whole, TRAIN)
    update(whole, adamw, 1, 3)
    expected = {3: everything(whole)}

    ranks.wait_for(checkpoint.at_step(tmp_path, 3).exists)
    assert checkpoint.newest_whole(tmp_path) == (checkpoint.at_step(tmp_path, 3), {})
    files = sorted(path.name for path in checkpoint.at_step(tmp_path, 3).iterdir())
    assert files == ["model.safetensors", "optimizer-00000.safetensors", "optimizer-00001.safetensors", "state.json"]
    alone = make_model()
    optimizer = make_adamw(alone, TRAIN)
    restore_from(tmp_path, 3, alone, optimizer)
    update(alone, optimizer, 4, 4)
    save_to(tmp_path, 4, alone, optimizer, _alone())
    processes.completed(ranks)

    update(whole, adamw, 4, 5)
    expected[5] = everything(whole)
    n_values = sum(parameter.numel() for parameter in whole.parameters())
    for step in (3, 5):
        held = []
        for rank in range(2):
            weights, n = torch.load(tmp_path / f"rank-{rank}-{step}.pt")
            assert all(torch.equal(a, b) for a, b in zip(weights, expected[step], strict=True))
            held.append(n)
        assert sum(held) == n_moments(adamw) == 2 * n_values
        assert max(held) < 0.55 * sum(held)


def _alone() -> World:
    return World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))


def test_the_largest_go_first_and_a_rank_may_get_none() -> None:
    assert share_out([5, 100, 40, 60, 5], 2) == [0, 0, 1, 1, 1]
    assert share_out([7], 3) == [0]
    model = make_model()
    optimizer = make_adamw(model, TRAIN)
    world = World(rank=99, size=100, local_rank=99, local_size=100, device=torch.device("cpu"))
    empty = ShardedAdamW(optimizer, world)
    assert [group["params"] for group in empty.param_groups] == [[]] * len(optimizer.param_groups)
    assert [group["lr_scale"] for group in empty.param_groups] == [
        group["lr_scale"] for group in optimizer.param_groups
    ]
