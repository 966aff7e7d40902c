"""Normalisation: the gradient of a step is that of one conversation per forward pass, however it is divided."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from schemas.models import Model
from schemas.training import Train
from trainer.data.packs import Packs, read_manifest, split_files
from trainer.data.stream import costs, deal, micro_batches, order, step_packs, steps_per_epoch
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder, initialise
from trainer.step import Precision, accumulate, choose_precision, validation_loss
from trainer.world import World

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=CPU)
WriteRun = Callable[..., Path]
VOCABULARY = 400
BATCH = 5


def wide_model() -> Decoder:
    model = Decoder(
        new_architecture(
            Model(
                hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, model_type="qwen3"
            ),
            vocab_size=VOCABULARY,
        )
    )
    initialise(model, seed=0)
    return model.double()


def read_double(packs: Packs, group: Sequence[int]) -> Batch:
    return packs.read(group, vocab_size=VOCABULARY)


def gradients(model: Decoder) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def reference(model: Decoder, packs: Packs, chosen: Sequence[int]) -> tuple[float, list[Tensor]]:
    """Return loss and gradient by full logits, one conversation per forward pass, divided by the step's weight."""
    model.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64)
    weight = 0.0
    for pack in chosen:
        batch = read_double(packs, [pack])
        ends = torch.tensor(batch.lengths).cumsum(0).tolist()
        trained = dict(zip(batch.rows_S.tolist(), zip(batch.targets_S, batch.weights_S, strict=True), strict=True))
        for start, end in zip([0, *ends], ends, strict=False):
            logits = model.logits(batch.input_ids_T[start:end], (end - start,))
            for row in range(start, end):
                if row in trained:
                    target, w = trained[row]
                    total = total - w.double() * logits[row - start].log_softmax(0)[target]
                    weight += float(w)
    (total / weight).backward()  # type: ignore[no-untyped-call]
    return float(total.detach()) / weight, gradients(model)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_do_not_depend_on_world_micro_batch_or_packing(
    weighted: bool, tmp_path: Path, write_run: WriteRun
) -> None:
    run = write_run(tmp_path / "run", n_train=12, weighted=weighted)
    packs = Packs(run / "pack", split_files(read_manifest(run), "train"))
    model = wide_model()
    cost = costs(packs.n_tokens, packs.sum_squares, hidden_size=16)
    packs_of_epoch = order(len(packs), seed=3, epoch=0)
    assert steps_per_epoch(len(packs), BATCH) == 3
    # the last step is short: 2 packs, so world 3 has a rank without any
    for step in (0, 2):
        chosen = step_packs(packs_of_epoch, step, BATCH)
        assert len(chosen) == (5 if step == 0 else 2)
        expected_loss, expected = reference(model, packs, chosen)
        weight = float(packs.weights[chosen].sum())
        for world in (1, 2, 3):
            for micro in (1, 2, 4):
                summed = [torch.zeros_like(p) for p in model.parameters()]
                loss = 0.0
                for hand in deal(chosen, cost, world):
                    model.zero_grad(set_to_none=True)
                    losses = accumulate(
                        model,
                        micro_batches(hand, micro),
                        lambda group: read_double(packs, group),
                        scale=world / weight,
                        precision=Precision(device=CPU, dtype=torch.float64),
                    )
                    assert all(p.grad is not None for p in model.parameters())
                    # what the reduction of DistributedDataParallel does
                    summed = [a + b / world for a, b in zip(summed, gradients(model), strict=True)]
                    loss += float(sum(losses))
                assert loss / weight == pytest.approx(expected_loss, rel=1e-13)
                for got, wanted in zip(summed, expected, strict=True):
                    assert (got - wanted).abs().max() <= 1e-12 * wanted.abs().max()


def test_validation_loss_is_the_mean_over_trained_tokens_not_over_packs(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run", weighted=True)
    packs = Packs(run / "pack", split_files(read_manifest(run), "validation"))
    model = wide_model()
    expected, _ = reference(model, packs, range(len(packs)))
    for micro in (1, 3):
        got = validation_loss(
            model, packs, ALONE, micro_batch=micro, precision=Precision(device=CPU, dtype=torch.float64)
        )
        assert got == pytest.approx(expected, rel=1e-13)


def test_no_validation_packs_give_no_validation_loss(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    nothing = Packs(run / "pack", [])
    precision = Precision(device=CPU, dtype=torch.float32)
    assert validation_loss(wide_model(), nothing, ALONE, micro_batch=1, precision=precision) is None


def test_the_arithmetic_is_what_the_config_says() -> None:
    assert choose_precision(Train(dtype="float32"), ALONE).dtype == torch.float32
    assert choose_precision(Train(dtype="bfloat16"), ALONE).dtype == torch.bfloat16
    has_native = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    assert (choose_precision(Train(dtype="auto"), ALONE).dtype == torch.bfloat16) == has_native
