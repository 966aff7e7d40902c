"""The chunked loss on supervised rows against the loss on full logits."""

import pytest
import torch
from torch.nn import functional

import trainer.loss
from trainer.loss import cross_entropy, row_losses


def both(
    dtype: torch.dtype, n: int, monkeypatch: pytest.MonkeyPatch, z_loss: float = 0.0
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return (objective, cross-entropy, d hidden, d head) of ours, in chunks of 7 rows, and of the full logits."""
    monkeypatch.setattr(trainer.loss, "CHUNK", 7)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 12, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(31, 12, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, 31, (n,), generator=generator)
    weights = torch.rand(n, generator=generator, dtype=torch.float64).to(dtype)
    ours = cross_entropy(hidden, head, targets, weights, z_loss=z_loss)
    logits = hidden @ head.T
    plain = weights @ functional.cross_entropy(logits, targets, reduction="none")
    full = (plain + z_loss * (weights @ logits.logsumexp(1).square()), plain)
    results = [[*loss, *torch.autograd.grad(loss[0] * 0.3, (hidden, head))] for loss in ((ours[0], ours[1]), full)]
    return results[0], results[1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("n", [1, 7, 30])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_loss_and_gradients_equal_those_of_full_logits(
    dtype: torch.dtype, tolerance: float, n: int, z_loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ours, full in zip(*both(dtype, n, monkeypatch, z_loss), strict=True):
        assert (ours - full).abs().max() <= tolerance * full.abs().max()


def test_what_is_logged_of_a_loss_with_z_is_its_cross_entropy_which_has_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, _ = both(torch.float64, 9, monkeypatch)
    with_z, _ = both(torch.float64, 9, monkeypatch, z_loss=0.5)
    assert torch.equal(with_z[1], plain[1])
    assert with_z[0] > plain[0] + 1.0
    assert not with_z[1].requires_grad


def test_no_supervised_rows_give_a_zero_that_still_reaches_both_inputs() -> None:
    hidden = torch.zeros(0, 4, requires_grad=True)
    head = torch.ones(5, 4, requires_grad=True)
    loss = cross_entropy(hidden, head, torch.zeros(0, dtype=torch.int64), torch.zeros(0), z_loss=1e-4).objective
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert head.grad is not None
    assert torch.equal(head.grad, torch.zeros(5, 4))
    assert hidden.grad is not None


def test_a_row_of_weight_two_counts_as_the_row_twice() -> None:
    torch.manual_seed(0)
    hidden, head, target = torch.randn(1, 4), torch.randn(5, 4), torch.tensor([3])
    heavy = cross_entropy(hidden, head, target, torch.tensor([2.0])).objective
    twice = cross_entropy(hidden.repeat(2, 1), head, target.repeat(2), torch.ones(2)).objective
    assert torch.equal(heavy, twice)


def test_the_loss_of_a_target_with_a_chance_too_small_for_float32_is_still_exact() -> None:
    # exp(-200) is 0 in float32: a loss taken from the chance itself would be infinite
    head = torch.tensor([[200.0], [0.0], [-1.0]], requires_grad=True)
    loss = cross_entropy(torch.ones(1, 1), head, torch.tensor([1]), torch.ones(1))
    assert loss.cross_entropy.item() == 200.0
    (d_head,) = torch.autograd.grad(loss.objective, head)
    assert d_head[:, 0].tolist() == [1.0, -1.0, 0.0]


def test_the_head_s_gradient_is_summed_in_float32_under_bfloat16_products() -> None:
    # 4,096 equal contributions: bfloat16 sums would stop growing after 256 of them
    hidden = torch.full((4096, 2), 1.0)
    head = torch.zeros(2, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(hidden, head, torch.zeros(4096, dtype=torch.int64), torch.ones(4096)).objective
    loss.backward()  # type: ignore[no-untyped-call]
    assert head.grad is not None
    assert head.grad.tolist() == [[-2048.0, -2048.0], [2048.0, 2048.0]]


def test_the_head_s_gradient_under_bfloat16_is_not_rounded_to_it() -> None:
    # 1 + 2^-10 needs 11 bits, a bfloat16 has 8; the product is large enough for a CPU to do it in bfloat16
    n = 1024
    hidden = torch.zeros(n, 64)
    hidden[0, 0], hidden[1, 0] = 1.0, 2.0**-10
    head = torch.zeros(64, 64, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(hidden, head, torch.zeros(n, dtype=torch.int64), torch.full((n,), 64.0)).objective
    loss.backward()  # type: ignore[no-untyped-call]
    assert head.grad is not None
    assert head.grad[:2, 0].tolist() == [-63 * (1 + 2.0**-10), 1 + 2.0**-10]
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


def test_a_second_backward_pass_is_refused_not_wrong() -> None:
    head = torch.ones(5, 4, requires_grad=True)
    loss = cross_entropy(torch.ones(3, 4), head, torch.tensor([0, 1, 2]), torch.ones(3)).objective
    (loss * 0.5).backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_losses_of_rows_are_those_of_full_logits_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.loss, "CHUNK", 7)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(30, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    head, targets = torch.randn(31, 12, generator=generator, dtype=torch.float64), torch.arange(30)
    losses = row_losses(hidden, head, targets)
    full = functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    assert not losses.requires_grad
    assert (losses - full).abs().max() <= 1e-13 * full.max()


def test_evaluation_computes_no_gradient() -> None:
    with torch.no_grad():
        loss = cross_entropy(torch.ones(3, 4), torch.ones(5, 4), torch.tensor([0, 1, 2]), torch.ones(3)).objective
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(3 * torch.tensor(5.0).log().item())


def test_a_large_vocabulary_is_taken_in_fewer_rows() -> None:
    found = [trainer.loss._rows_at_once(n) for n in (2_048, 32_000, 151_936, 10**9)]
    assert found == [2_048, 2_048, 883, 1]
