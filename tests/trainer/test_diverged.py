"""A step that goes wrong names the conversations it went wrong on, whatever they were together with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from schemas.manifest import FileRecord
from schemas.models import Model
from schemas.training import Train
from trainer.data.packs import Packs
from trainer.diverged import Divergence, diverged
from trainer.errors import Diverged
from trainer.job import Job
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder, initialise
from trainer.step import Precision, accumulate
from trainer.world import World

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=CPU)
SINGLE = Precision(device=CPU, dtype=torch.float32)
VOCABULARY, BAD = 30, 29


def small_model() -> Decoder:
    sizes = Model(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, tie_word_embeddings=False)
    model = Decoder(new_architecture(sizes, vocab_size=VOCABULARY))
    initialise(model, seed=0)
    return model


def write(stage: Path, write_shard: Callable[..., FileRecord]) -> list[FileRecord]:
    """Write four packs of three conversations; the second of the third pack has the token BAD, as one to read."""
    rows = []
    for pack in range(4):
        ids = [(5 * pack + i) % (VOCABULARY - 1) for i in range(12)]
        if pack == 2:
            ids[5] = BAD
        rows.append(
            {
                "ids": [f"x:{3 * pack + i}" for i in range(3)],
                "split": "train",
                "input_ids": ids,
                "labels": [-100, *ids[1:4], -100, -100, *ids[6:8], -100, *ids[9:]],
                "seq_lengths": [4, 4, 4],
                "loss_weights": None,
                "n_supervised": 8,
                "weight_sum": 8.0,
            }
        )
    return [write_shard(stage, "kept/train/00000.arrow", rows)]


def reader(packs: Packs) -> Callable[[Sequence[int]], Batch]:
    return lambda group: packs.read(group, vocab_size=VOCABULARY)


def found(
    home: Path, packs: Packs, model: Decoder, *, world: World = ALONE, hand: Sequence[int] = (3, 1, 2, 0), **others: Any
) -> tuple[Diverged, Divergence]:
    job = Job(run=home, seed=0, model=Model(), train=Train(), resume="", **others)
    if world.is_first:
        job.home.mkdir(parents=True)
    error = diverged(
        job,
        world,
        packs,
        model,
        reader(packs),
        SINGLE,
        chosen=[3, 1, 2, 0],
        hand=hand,
        step=8,
        epoch=1,
        lr=2e-5,
        grad_norm=float("nan"),
        scale=0.1,
    )
    path = job.home / "diverged.json"
    assert str(path) in str(error)
    return error, msgspec.json.decode(path.read_bytes() if world.is_first else b"null", type=Divergence | None)  # type: ignore[return-value]


def test_of_a_loss_that_is_not_finite_the_conversation_is_named(
    tmp_path: Path, write_shard: Callable[..., FileRecord]
) -> None:
    packs, model = Packs(tmp_path, write(tmp_path, write_shard)), small_model()
    with torch.no_grad():
        model.embed_tokens.weight[BAD] = torch.nan
    before = [parameter.detach().clone() for parameter in model.parameters()]
    error, record = found(tmp_path, packs, model)
    assert str(error).startswith("step 8 (epoch 1, lr 2e-05): the loss is not finite on x:7. The weights were not")
    assert f"`chatloom explain {tmp_path} --step 8 --loss`" in str(error)
    assert (record.step, record.epoch, record.lr, record.grad_norm) == (8, 1, 2e-5, None)
    assert (record.what, record.culprits) == ("loss", ["x:7"])
    assert [one.pack for one in record.packs] == [3, 1, 2, 0]
    for one in record.packs:
        assert one.ids == packs.ids([one.pack])
        assert [loss is None for loss in one.losses] == [name == "x:7" for name in one.ids]
        assert (one.grad_norm is None) == (one.pack == 2)
    for old, new in zip(before, model.parameters(), strict=True):
        assert np.array_equal(old.numpy(), new.detach().numpy(), equal_nan=True)
        assert new.grad is None


class Explodes(torch.autograd.Function):
    """The identity, whose gradient is infinite where a row of the input is of the token BAD."""

    @staticmethod
    def forward(ctx: Any, x_TC: Tensor, is_bad_T: Tensor) -> Tensor:
        ctx.save_for_backward(is_bad_T)
        return x_TC.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (is_bad_T,) = ctx.saved_tensors
        return torch.where(is_bad_T[:, None], torch.inf, grads[0]), None


def explode(model: Decoder) -> None:
    model.embed_tokens.register_forward_hook(
        lambda _, ids, out: Explodes.apply(out, ids[0] == BAD)  # type: ignore[no-untyped-call]
    )


def test_of_a_gradient_that_is_not_finite_though_losses_are_the_pack_is_named(
    tmp_path: Path, write_shard: Callable[..., FileRecord]
) -> None:
    packs, model = Packs(tmp_path, write(tmp_path, write_shard)), small_model()
    explode(model)
    losses = accumulate(model, [[3, 1], [2, 0]], reader(packs), scale=0.1, precision=SINGLE)
    assert torch.isfinite(torch.stack(losses)).all()
    assert not torch.isfinite(model.embed_tokens.weight.grad).all()  # type: ignore[arg-type]
    error, record = found(tmp_path, packs, model, phase="hard")
    assert "the losses are finite, but the gradient is not, on x:6, x:7, x:8. The" in str(error)
    assert f"`chatloom explain {tmp_path} --step 8 --phase hard --loss`" in str(error)
    assert (record.what, record.culprits) == ("gradient", ["x:6", "x:7", "x:8"])
    assert all(loss is not None for one in record.packs for loss in one.losses)
    norms = {one.pack: one.grad_norm for one in record.packs}
    assert norms[2] is None
    # the norm of a pack's gradient is that of a pass of its own
    quiet = small_model()
    accumulate(quiet, [[1]], reader(packs), scale=0.1, precision=SINGLE)
    squares = sum(float(p.grad.double().square().sum()) for p in quiet.parameters() if p.grad is not None)
    assert norms[1] == pytest.approx(squares**0.5, rel=1e-6)


def test_when_only_the_sum_is_not_finite_the_largest_gradient_is_named(
    tmp_path: Path, write_shard: Callable[..., FileRecord]
) -> None:
    packs, model = Packs(tmp_path, write(tmp_path, write_shard)), small_model()
    error, record = found(tmp_path, packs, model)
    largest = max(record.packs, key=lambda one: one.grad_norm or 0.0)
    assert record.what == "sum"
    assert record.culprits == largest.ids
    assert f"the largest gradient is that of {', '.join(largest.ids)}. The" in str(error)


def test_a_full_disk_does_not_take_the_place_of_the_message(
    tmp_path: Path, write_shard: Callable[..., FileRecord]
) -> None:
    packs = Packs(tmp_path, write(tmp_path, write_shard))
    job = Job(run=tmp_path / "nowhere", seed=0, model=Model(), train=Train(), resume="")
    numbers = {"step": 1, "epoch": 0, "lr": 1.0, "grad_norm": float("inf"), "scale": 1.0}
    error = diverged(job, ALONE, packs, small_model(), reader(packs), SINGLE, chosen=[0], hand=[0], **numbers)  # type: ignore[arg-type]
    assert isinstance(error, Diverged)
    assert not job.home.exists()


def as_process(rank: int, stage: Path, files: list[FileRecord], out: Path) -> None:
    """Diverge as one of two ranks, the first of which has the bad pack, and leave behind what is said."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 'meeting'}", rank=rank, world_size=2)
    packs, model = Packs(stage, files), small_model()
    explode(model)
    network = DistributedDataParallel(model, gradient_as_bucket_view=True)
    hand = [[3, 2], [1, 0]][rank]
    accumulate(network, [[pack] for pack in hand], reader(packs), scale=0.1, precision=SINGLE)
    assert not torch.isfinite(model.embed_tokens.weight.grad).all()  # type: ignore[arg-type]
    world = World(rank=rank, size=2, local_rank=rank, local_size=2, device=CPU)
    error, _ = found(out / "run", packs, model, world=world, hand=hand)
    (out / f"{rank}.txt").write_text(str(error))
    del network
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_all_ranks_say_the_same_whoever_had_the_pack(tmp_path: Path, write_shard: Callable[..., FileRecord]) -> None:
    files = write(tmp_path, write_shard)
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        as_process, args=(tmp_path, files, tmp_path), nprocs=2, start_method="fork"
    )
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert "but the gradient is not, on x:6, x:7, x:8. The" in first
    record = msgspec.json.decode((tmp_path / "run/train/diverged.json").read_bytes(), type=Divergence)
    assert [one.pack for one in record.packs] == [3, 1, 2, 0]
