"""The chunked loss on supervised rows against the loss on full logits."""

import pytest
import torch
from torch.nn import functional

import trainer.loss
from trainer.loss import cross_entropy


def both(dtype: torch.dtype, n: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return (loss, d hidden, d head) of ours, in chunks of 7 rows, and of the full logits."""
    monkeypatch.setattr(trainer.loss, "CHUNK", 7)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 12, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(31, 12, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, 31, (n,), generator=generator)
    weights = torch.rand(n, generator=generator, dtype=torch.float64).to(dtype)
    ours = cross_entropy(hidden, head, targets, weights)
    full = weights @ functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    results = [[loss, *torch.autograd.grad(loss * 0.3, (hidden, head))] for loss in (ours, full)]
    return results[0], results[1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("n", [1, 7, 30])
def test_loss_and_gradients_equal_those_of_full_logits(
    dtype: torch.dtype, tolerance: float, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ours, full in zip(*both(dtype, n, monkeypatch), strict=True):
        assert (ours - full).abs().max() <= tolerance * full.abs().max()


def test_no_supervised_rows_give_a_zero_that_still_reaches_both_inputs() -> None:
    hidden = torch.zeros(0, 4, requires_grad=True)
    head = torch.ones(5, 4, requires_grad=True)
    loss = cross_entropy(hidden, head, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert head.grad is not None
    assert torch.equal(head.grad, torch.zeros(5, 4))
    assert hidden.grad is not None


def test_a_row_of_weight_two_counts_as_the_row_twice() -> None:
    torch.manual_seed(0)
    hidden, head, target = torch.randn(1, 4), torch.randn(5, 4), torch.tensor([3])
    heavy = cross_entropy(hidden, head, target, torch.tensor([2.0]))
    twice = cross_entropy(hidden.repeat(2, 1), head, target.repeat(2), torch.ones(2))
    assert torch.equal(heavy, twice)


def test_the_head_s_gradient_is_summed_in_float32_under_bfloat16_products() -> None:
    # 4,096 equal contributions: bfloat16 sums would stop growing after 256 of them
    hidden = torch.full((4096, 2), 1.0)
    head = torch.zeros(2, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(hidden, head, torch.zeros(4096, dtype=torch.int64), torch.ones(4096))
    loss.backward()  # type: ignore[no-untyped-call]
    assert head.grad is not None
    assert head.grad.tolist() == [[-2048.0, -2048.0], [2048.0, 2048.0]]


def test_evaluation_computes_no_gradient() -> None:
    with torch.no_grad():
        loss = cross_entropy(torch.ones(3, 4), torch.ones(5, 4), torch.tensor([0, 1, 2]), torch.ones(3))
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(3 * torch.tensor(5.0).log().item())
