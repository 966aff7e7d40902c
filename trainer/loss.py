"""Cross-entropy on the supervised rows only, in chunks, without ever holding the logits of a whole batch."""

from typing import Any

import torch
from torch import Tensor

CHUNK = 2048
"""Rows whose logits exist at one time."""


def cross_entropy(hidden_SC: Tensor, head_VC: Tensor, targets_S: Tensor, weights_S: Tensor) -> Tensor:
    """Return the sum over rows of weight × cross-entropy(head · hidden, target), as a scalar of at least float32.

    The gradients of both inputs are computed in the forward pass, chunk by chunk, and kept instead of the logits;
    that of the head is summed in float32, for rounding every chunk to bfloat16 first biases training. Under autocast
    the products run in its dtype. No rows give a zero that still touches `hidden_SC` and `head_VC`.
    """
    # a custom function sees tensors as they are, so autocast must be applied here
    kind = hidden_SC.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_SC.dtype
    loss: Tensor = _CrossEntropy.apply(hidden_SC, head_VC, targets_S, weights_S, dtype)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Loss whose gradients are ready when its value is."""

    @staticmethod
    def forward(
        ctx: Any, hidden_SC: Tensor, head_VC: Tensor, targets_S: Tensor, weights_S: Tensor, dtype: torch.dtype
    ) -> Tensor:
        wide = torch.promote_types(hidden_SC.dtype, torch.float32)
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        with torch.autocast(hidden_SC.device.type, enabled=False):
            head = head_VC.to(dtype)
            loss = torch.zeros((), dtype=wide, device=hidden_SC.device)
            d_hidden = torch.empty_like(hidden_SC) if needs_hidden else None
            d_head = torch.zeros(head_VC.shape, dtype=wide, device=head_VC.device) if needs_head else None
            for start in range(0, len(targets_S), CHUNK):
                rows = slice(start, start + CHUNK)
                hidden = hidden_SC[rows].to(dtype)
                targets, weights = targets_S[rows, None], weights_S[rows].to(wide)
                logits = (hidden @ head.T).to(wide)
                top = logits.gather(1, targets)[:, 0]
                norm = logits.logsumexp(1)
                loss += weights @ (norm - top)
                if d_hidden is None and d_head is None:
                    continue
                d_logits = logits.sub_(norm[:, None]).exp_()
                d_logits.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=wide))
                narrow = d_logits.mul_(weights[:, None]).to(dtype)
                if d_hidden is not None:
                    d_hidden[rows] = narrow @ head
                if d_head is not None:
                    _add_product(d_head, narrow.T, hidden)
        ctx.save_for_backward(d_hidden, d_head)
        ctx.head_dtype = head_VC.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (scale,) = grads
        d_hidden, d_head = ctx.saved_tensors
        return (
            None if d_hidden is None else d_hidden * scale.to(d_hidden.dtype),
            None if d_head is None else (d_head * scale).to(ctx.head_dtype),
            None,
            None,
            None,
        )


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to `total` without rounding the product to the dtype of its factors."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda:
        total.add_(torch.mm(left, right, out_dtype=total.dtype))
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))
