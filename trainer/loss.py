"""Cross-entropy on the supervised rows only, in chunks, without ever holding the logits of a whole batch."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 2048
"""Rows whose logits exist at one time."""


class Loss(NamedTuple):
    """What is minimised, and what of it is cross-entropy; the latter is for people and has no gradient."""

    objective: Tensor
    cross_entropy: Tensor


def cross_entropy(
    hidden_SC: Tensor, head_VC: Tensor, targets_S: Tensor, weights_S: Tensor, *, z_loss: float = 0.0
) -> Loss:
    """Return the sum over rows of weight × (cross-entropy(head · hidden, target) + z_loss × lse²), as at least float32.

    lse is the logarithm of the softmax's denominator; its square keeps logits from drifting (z-loss, Chowdhery et al. 2022).
    The gradients of both inputs are computed in the forward pass, chunk by chunk, and kept instead of the logits;
    that of the head is summed in float32, for rounding every chunk to bfloat16 first biases training. Under autocast
    the products run in its dtype. No rows give a zero that still touches `hidden_SC` and `head_VC`. Backward runs once.
    """
    dtype = _product_dtype(hidden_SC)
    return Loss(*_CrossEntropy.apply(hidden_SC, head_VC, targets_S, weights_S, z_loss, dtype))  # type: ignore[no-untyped-call]


@torch.no_grad()
def row_losses(hidden_SC: Tensor, head_VC: Tensor, targets_S: Tensor) -> Tensor:
    """Return the cross-entropy of every row, unweighted, as at least float32, [S]; there is no gradient."""
    dtype = _product_dtype(hidden_SC)
    losses = torch.empty(len(targets_S), dtype=_wide(hidden_SC), device=hidden_SC.device)
    with torch.autocast(hidden_SC.device.type, enabled=False):
        head = head_VC.to(dtype)
        for start in range(0, len(targets_S), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = (hidden_SC[rows].to(dtype) @ head.T).to(losses.dtype)
            losses[rows] = logits.logsumexp(1) - logits.gather(1, targets_S[rows, None])[:, 0]
    return losses


def _product_dtype(hidden_SC: Tensor) -> torch.dtype:
    # a custom function sees tensors as they are, so autocast must be applied here
    kind = hidden_SC.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_SC.dtype


def _wide(hidden_SC: Tensor) -> torch.dtype:
    return torch.promote_types(hidden_SC.dtype, torch.float32)


class _CrossEntropy(torch.autograd.Function):
    """Loss whose gradients are ready when its value is."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SC: Tensor,
        head_VC: Tensor,
        targets_S: Tensor,
        weights_S: Tensor,
        z_loss: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        wide = _wide(hidden_SC)
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        with torch.autocast(hidden_SC.device.type, enabled=False):
            head = head_VC.to(dtype)
            loss = torch.zeros((), dtype=wide, device=hidden_SC.device)
            square = torch.zeros_like(loss)
            d_hidden = torch.empty_like(hidden_SC) if needs_hidden else None
            d_head = torch.zeros(head_VC.shape, dtype=wide, device=head_VC.device) if needs_head else None
            for start in range(0, len(targets_S), CHUNK):
                rows = slice(start, start + CHUNK)
                hidden = hidden_SC[rows].to(dtype)
                targets, weights_S1 = targets_S[rows, None], weights_S[rows, None].to(wide)
                logits = (hidden @ head.T).to(wide)
                target, peak = logits.gather(1, targets), logits.amax(1, keepdim=True)
                chances = _softmax_in_place(logits)
                # the greatest chance is at least 1 / V, so its logarithm is exact where that of the target's is not
                norm = peak - chances.amax(1, keepdim=True).log()
                loss += (weights_S1 * (norm - target)).sum()
                if z_loss:
                    square += (weights_S1 * norm * norm).sum()
                    chances.mul_(1 + 2 * z_loss * norm)
                d_logits = chances.scatter_add_(1, targets, torch.full_like(target, -1)).to(dtype)
                # weights scale rows, so they go to the narrow factor of each product, not to the logits
                if d_hidden is not None:
                    d_hidden[rows] = (d_logits @ head) * weights_S1
                if d_head is not None:
                    _add_product(d_head, d_logits.T, (hidden * weights_S1).to(dtype))
        ctx.save_for_backward(d_hidden, d_head)
        ctx.head_dtype = head_VC.dtype
        ctx.mark_non_differentiable(loss)
        return loss + z_loss * square, loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        scale = grads[0]
        d_hidden, d_head = ctx.saved_tensors
        # in place: a second backward pass would find the tensors changed, and autograd refuses that
        return (
            None if d_hidden is None else d_hidden.mul_(scale.to(d_hidden.dtype)),
            None if d_head is None else d_head.mul_(scale).to(ctx.head_dtype),
            None,
            None,
            None,
            None,
        )


def _softmax_in_place(logits: Tensor) -> Tensor:
    """Return the softmax of each row; on a CPU in the same memory, where fresh pages cost more than the arithmetic."""
    return torch.softmax(logits, 1, out=logits) if logits.device.type == "cpu" else torch.softmax(logits, 1)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to `total` without rounding the product to the dtype of its factors."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda:
        total.add_(torch.mm(left, right, out_dtype=total.dtype))
    else:
        with _narrow_factors():
            total.addmm_(left.to(total.dtype), right.to(total.dtype))


@contextlib.contextmanager
def _narrow_factors() -> Iterator[None]:
    """Let a CPU that multiplies bfloat16 natively round the factors of float32 products to it; sums stay float32.

    Factors that were bfloat16 before are unchanged by it, so the result is the same, in half the time.
    """
    settings: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009 - which its types do not know
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before
