"""The gradient of a step is that of one conversation per forward pass, however the step is divided.

The reference shares nothing with the trainer but the model: it reads packs token by token, takes full logits of one
conversation at a time in float64, and divides as the definition of each kind of mean says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from schemas.manifest import FileRecord
from schemas.models import Lora, Model
from tests.trainer.tiny import shake, tiny_model
from trainer.data.means import LossMean, reweighted, step_weight
from trainer.data.packs import Packs
from trainer.data.stream import costs, deal, micro_batches, order, step_packs, steps_per_epoch
from trainer.evaluation import evaluate
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder, initialise
from trainer.model.lora import adapt
from trainer.step import Precision, accumulate
from trainer.trainable import select
from trainer.world import World

CPU = torch.device("cpu")
DOUBLE = Precision(device=CPU, dtype=torch.float64)
VOCABULARY = 61
BATCH = 4
SHARD = "kept/train/00000.arrow"
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-12, 1e-11
Recipe = tuple[bool, LossMean, float]
"""Whether tokens are weighted, what weighs the same, and the z-loss."""
RECIPES: list[Recipe] = [
    (False, "token", 0.0),
    (True, "token", 0.03),
    (False, "sample", 0.0),
    (True, "sample", 0.03),
    (False, "sqrt", 0.03),
    (True, "sqrt", 0.0),
]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A conversation as the reference reads it."""

    ids: list[int]
    labels: list[int]
    weights: list[float]


def small_model() -> Decoder:
    sizes = Model(
        hidden_size=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        model_type="qwen3",
        initializer_range=0.3,  # so that what a token reads of others is felt
    )
    model = Decoder(new_architecture(sizes, vocab_size=VOCABULARY))
    initialise(model, seed=0)
    return model.double()


def pack_row(rng: np.random.Generator, n_documents: int, *, weighted: bool, is_masked: bool) -> dict[str, object]:
    lengths = rng.integers(1, 12, n_documents).tolist()
    ids = rng.integers(0, VOCABULARY, sum(lengths)).tolist()
    first = set(np.cumsum([0, *lengths]).tolist())
    is_trained = [not is_masked and i not in first and bool(rng.random() < 0.6) for i in range(len(ids))]
    weights = [float(np.float32(rng.choice([0.1, 0.7, 3.0]))) if t else 0.0 for t in is_trained]
    return {
        "ids": [f"x:{rng.integers(10**9)}" for _ in lengths],
        "split": "train",
        "input_ids": ids,
        "labels": [token if t else -100 for token, t in zip(ids, is_trained, strict=True)],
        "seq_lengths": lengths,
        "loss_weights": weights if weighted else None,
        "n_supervised": sum(is_trained),
        "weight_sum": float(sum(weights)) if weighted else float(sum(is_trained)),
    }


@pytest.fixture(params=RECIPES, ids=["-".join(map(str, recipe)) for recipe in RECIPES])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    found: Recipe = request.param
    return found


@pytest.fixture
def write_packs(tmp_path: Path, write_shard: Callable[..., FileRecord]) -> Callable[[bool], Packs]:
    def write(weighted: bool) -> Packs:
        rng = np.random.default_rng(5)
        # packs of 1 to 5 documents, two of them without any trained token; the third step of an epoch has 3 of 11 packs
        rows = [pack_row(rng, 1 + i % 5, weighted=weighted, is_masked=i in (4, 7)) for i in range(11)]
        return Packs(tmp_path, [write_shard(tmp_path, SHARD, rows)])

    return write


def documents(packs: Packs, chosen: Sequence[int]) -> list[Document]:
    found = []
    for pack in chosen:
        row, start = packs.row(pack), 0
        weights = [1.0] * len(row.labels) if row.loss_weights is None else row.loss_weights.astype(float).tolist()
        for length in row.seq_lengths.tolist():
            own = slice(start, start + length)
            found.append(
                Document(ids=row.input_ids[own].tolist(), labels=row.labels[own].tolist(), weights=weights[own])
            )
            start += length
    return found


def losses_of(model: Decoder, document: Document, z_loss: float) -> tuple[Tensor, Tensor, float]:
    """Return (weighted sum of objectives, of cross-entropies, sum of weights) of one conversation alone."""
    logits = model.logits(torch.tensor(document.ids), (len(document.ids),))
    objective, plain, weight = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0.0
    for i, (label, w) in enumerate(zip(document.labels, document.weights, strict=True)):
        if label != -100:
            log_sum = torch.log(torch.exp(logits[i - 1]).sum())
            plain = plain + w * (log_sum - logits[i - 1, label])
            objective = objective + w * (log_sum - logits[i - 1, label] + z_loss * log_sum**2)
            weight += w
    return objective, plain, weight


def reference(
    model: Decoder, conversations: Sequence[Document], mean: LossMean, z_loss: float
) -> tuple[float, list[Tensor]]:
    """Return cross-entropy and gradient of a step by the definition of its mean."""
    model.zero_grad(set_to_none=True)
    found = [losses_of(model, document, z_loss) for document in conversations]
    found = [(objective, plain, weight) for objective, plain, weight in found if weight]
    shares = {
        "token": [1.0 for _ in found],
        "sample": [1.0 / weight for *_, weight in found],
        "sqrt": [1.0 / weight**0.5 for *_, weight in found],
    }[mean]
    total = sum(share * weight for share, (*_, weight) in zip(shares, found, strict=True))
    objective = torch.stack([s * o for s, (o, *_) in zip(shares, found, strict=True)]).sum() / total
    plain = sum(s * float(p.detach()) for s, (_, p, _) in zip(shares, found, strict=True)) / total
    objective.backward()  # type: ignore[no-untyped-call]
    return plain, gradients(model)


def gradients(model: Decoder) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def furthest(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the greatest error of any gradient, relative to the greatest element of its tensor."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(got, wanted, strict=True))


def reader(packs: Packs, mean: LossMean) -> Callable[[Sequence[int]], Batch]:
    return lambda group: reweighted(packs.read(group, vocab_size=VOCABULARY), mean)


def of_rank(
    network: Decoder | DistributedDataParallel,
    packs: Packs,
    chosen: Sequence[int],
    *,
    rank: int,
    world: int,
    micro: int,
    recipe: Recipe,
) -> float:
    """Do what a rank does of a step up to its gradient, and return its share of the loss."""
    _, mean, z_loss = recipe
    hand = deal(chosen, costs(packs.n_tokens, packs.sum_squares, hidden_size=16), world)[rank]
    weight = step_weight(packs, list(chosen), mean)
    losses = accumulate(
        network,
        micro_batches(hand, micro),
        reader(packs, mean),
        scale=world / weight,
        precision=DOUBLE,
        z_loss=z_loss,
    )
    return float(sum(losses)) / weight


def test_a_step_is_exact_on_any_number_of_ranks_at_any_micro_batch(
    recipe: Recipe, write_packs: Callable[[bool], Packs]
) -> None:
    weighted, mean, z_loss = recipe
    packs, model = write_packs(weighted), small_model()
    epoch = order(len(packs), seed=3, epoch=0)
    assert steps_per_epoch(len(packs), BATCH) == 3
    for step in (0, 2):
        chosen = step_packs(epoch, step, BATCH)
        assert len(chosen) == (4 if step == 0 else 3)
        wanted_loss, wanted = reference(model, documents(packs, chosen), mean, z_loss)
        # among 5 ranks one or two have nothing to do
        for world in (1, 2, 3, 5):
            for micro in (1, 2, 3, 4):
                summed, loss = [torch.zeros_like(p) for p in model.parameters()], 0.0
                for rank in range(world):
                    model.zero_grad(set_to_none=True)
                    loss += of_rank(model, packs, chosen, rank=rank, world=world, micro=micro, recipe=recipe)
                    assert all(p.grad is not None for p in model.parameters())
                    # what the reduction of DistributedDataParallel does
                    summed = [a + b / world for a, b in zip(summed, gradients(model), strict=True)]
                assert loss == pytest.approx(wanted_loss, rel=LOSS_TOLERANCE)
                assert furthest(summed, wanted) <= GRADIENT_TOLERANCE


def test_adapters_and_chosen_weights_are_as_exact(write_packs: Callable[[bool], Packs]) -> None:
    recipe: Recipe = (True, "sample", 0.03)
    packs, model = write_packs(True), tiny_model("qwen3", vocab_size=VOCABULARY, tie_word_embeddings=False)
    adapt(model, Lora(rank=3, targets=("all-linear", "lm_head")), seed=0)
    select(model, ("last_block",))
    shake(model)
    model.double()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = step_packs(order(len(packs), seed=3, epoch=0), 0, BATCH)
    wanted_loss, _ = reference(model, documents(packs, chosen), *recipe[1:])
    wanted = [p.grad.clone() for p in learning if p.grad is not None]
    assert len(wanted) == len(learning)
    for world, micro in ((1, 4), (2, 1), (5, 2)):
        summed, loss = [torch.zeros_like(p) for p in learning], 0.0
        for rank in range(world):
            model.zero_grad(set_to_none=True)
            loss += of_rank(model, packs, chosen, rank=rank, world=world, micro=micro, recipe=recipe)
            # a rank without packs touches every weight that learns, too
            summed = [a + p.grad / world for a, p in zip(summed, learning, strict=True) if p.grad is not None]
            assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
        assert loss == pytest.approx(wanted_loss, rel=LOSS_TOLERANCE)
        assert furthest(summed, wanted) <= GRADIENT_TOLERANCE


def test_a_fully_masked_pack_changes_nothing(write_packs: Callable[[bool], Packs]) -> None:
    packs, model = write_packs(True), small_model()
    assert packs.weights[[4, 7]].tolist() == [0.0, 0.0]
    for mean in ("token", "sample", "sqrt"):
        found = []
        for chosen in ([0, 3], [0, 4, 3, 7]):
            model.zero_grad(set_to_none=True)
            loss = of_rank(model, packs, chosen, rank=0, world=1, micro=2, recipe=(True, mean, 0.0))  # type: ignore[arg-type]
            found.append((loss, gradients(model)))
        assert found[1][0] == pytest.approx(found[0][0], rel=LOSS_TOLERANCE)
        assert furthest(found[1][1], found[0][1]) <= GRADIENT_TOLERANCE


def test_packing_does_not_matter_to_any_mean(
    tmp_path: Path, write_shard: Callable[..., FileRecord], write_packs: Callable[[bool], Packs]
) -> None:
    packed, model = write_packs(True), small_model()
    chosen = [0, 1, 2, 3]
    rows: list[dict[str, object]] = []
    for document in documents(packed, chosen):
        weights = [w if label != -100 else 0.0 for label, w in zip(document.labels, document.weights, strict=True)]
        rows.append(
            {
                "ids": [f"y:{len(rows)}"],
                "split": "train",
                "input_ids": document.ids,
                "labels": document.labels,
                "seq_lengths": [len(document.ids)],
                "loss_weights": weights,
                "n_supervised": sum(label != -100 for label in document.labels),
                "weight_sum": sum(weights),
            }
        )
    alone = Packs(tmp_path, [write_shard(tmp_path, "kept/train/00001.arrow", rows)])
    assert len(alone) == 1 + 2 + 3 + 4
    for mean in ("token", "sample", "sqrt"):
        found = []
        for packs, which in ((packed, chosen), (alone, list(range(len(alone))))):
            model.zero_grad(set_to_none=True)
            loss = of_rank(model, packs, which, rank=0, world=1, micro=3, recipe=(True, mean, 0.03))  # type: ignore[arg-type]
            found.append((loss, gradients(model)))
        assert found[1][0] == pytest.approx(found[0][0], rel=LOSS_TOLERANCE)
        assert furthest(found[1][1], found[0][1]) <= GRADIENT_TOLERANCE


def test_the_three_means_are_three_different_things(write_packs: Callable[[bool], Packs]) -> None:
    packs, model = write_packs(True), small_model()
    chosen = documents(packs, [0, 1, 2, 3])
    token, sample, sqrt = (reference(model, chosen, mean, 0.0)[1] for mean in ("token", "sample", "sqrt"))  # type: ignore[arg-type]
    assert furthest(sample, token) > 0.01
    assert furthest(sqrt, token) > 0.01
    assert furthest(sqrt, sample) > 0.01


def test_the_common_recipe_would_be_noticed(write_packs: Callable[[bool], Packs]) -> None:
    """The mean of the micro-batches' own means is what gradient accumulation usually computes."""
    packs, model = write_packs(False), small_model()
    chosen = step_packs(order(len(packs), seed=3, epoch=0), 0, BATCH)
    wanted_loss, wanted = reference(model, documents(packs, chosen), "token", 0.0)
    model.zero_grad(set_to_none=True)
    groups = [[pack] for pack in chosen if packs.weights[pack]]
    losses = [
        accumulate(
            model,
            [group],
            reader(packs, "token"),
            scale=1 / (packs.weights[group].sum() * len(groups)),
            precision=DOUBLE,
        )[0]
        / packs.weights[group].sum()
        for group in groups
    ]
    assert furthest(gradients(model), wanted) > 0.01
    assert abs(float(sum(losses)) / len(losses) / wanted_loss - 1) > 0.01


def test_documents_that_see_each_other_would_be_noticed(write_packs: Callable[[bool], Packs]) -> None:
    packs, model = write_packs(False), small_model()
    chosen = [2, 3]
    wanted_loss, wanted = reference(model, documents(packs, chosen), "token", 0.0)

    def as_one(group: Sequence[int]) -> Batch:
        batch = packs.read(group, vocab_size=VOCABULARY)
        return Batch(**{**vars(batch), "lengths": (len(batch.input_ids_T),)})

    model.zero_grad(set_to_none=True)
    weight = float(packs.weights[chosen].sum())
    (loss,) = accumulate(model, [chosen], as_one, scale=1 / weight, precision=DOUBLE)
    assert furthest(gradients(model), wanted) > 0.01
    assert abs(float(loss) / weight / wanted_loss - 1) > 0.01


def as_process(rank: int, size: int, stage: Path, files: list[FileRecord], out: Path) -> None:
    """Do one step and one evaluation as a rank among real ones, and leave behind what it found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 'meeting'}", rank=rank, world_size=size)
    packs, model = Packs(stage, files), small_model()
    network = DistributedDataParallel(model, gradient_as_bucket_view=True)
    found: dict[str, Any] = {}
    # a step of one pack leaves the second rank without any
    for name, chosen in (("full", [0, 1, 2, 3]), ("lonely", [3])):
        model.zero_grad(set_to_none=True)
        loss = of_rank(network, packs, chosen, rank=rank, world=size, micro=1, recipe=(True, "sqrt", 0.03))
        found[name] = (loss, gradients(model))
    world = World(rank=rank, size=size, local_rank=rank, local_size=size, device=CPU)
    evaluation = evaluate(model, packs, world, micro_batch=2, precision=DOUBLE)
    assert evaluation is not None
    found["evaluation"] = (evaluation.loss, evaluation.total.weight)
    torch.save(found, out / f"{rank}.pt")
    del network
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_two_real_processes_are_exact(
    tmp_path: Path, write_shard: Callable[..., FileRecord], write_packs: Callable[[bool], Packs]
) -> None:
    packs, model = write_packs(True), small_model()
    rng = np.random.default_rng(5)
    rows = [pack_row(rng, 1 + i % 5, weighted=True, is_masked=i in (4, 7)) for i in range(11)]
    files = [write_shard(tmp_path, SHARD, rows)]
    # forked, for a process that imports torch anew takes seconds
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        as_process, args=(2, tmp_path, files, tmp_path), nprocs=2, start_method="fork"
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, chosen in (("full", [0, 1, 2, 3]), ("lonely", [3])):
        wanted_loss, wanted = reference(model, documents(packs, chosen), "sqrt", 0.03)
        assert first[name][0] + second[name][0] == pytest.approx(wanted_loss, rel=LOSS_TOLERANCE)
        assert all(torch.equal(a, b) for a, b in zip(first[name][1], second[name][1], strict=True))
        assert furthest(first[name][1], wanted) <= GRADIENT_TOLERANCE
    loss, _ = reference(model, documents(packs, range(len(packs))), "token", 0.0)
    assert first["evaluation"] == second["evaluation"]
    assert first["evaluation"] == pytest.approx((loss, float(packs.weights.sum())), rel=LOSS_TOLERANCE)
