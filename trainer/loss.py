"""Cross-entropy on the supervised rows only, in chunks, without ever holding the logits of a whole batch."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

CHUNK = 2048
"""Most rows whose logits exist at one time."""
LOGITS = 1 << 27
"""Most logits that exist at one time: half a gigabyte in float32, of which the arithmetic holds a few."""


class Loss(NamedTuple):
    """What is minimised, and what of it is cross-entropy; the latter is for people and has no gradient."""

    objective: Tensor
    cross_entropy: Tensor


LowRank = tuple[Tensor, Tensor]
"""u [S, R] and B [V, R]: what an adapter adds to the logits is u Bᵀ, which is never held for more than a chunk."""


def cross_entropy(
    hidden_SC: Tensor,
    head_VC: Tensor,
    targets_S: Tensor,
    weights_S: Tensor,
    *,
    z_loss: float = 0.0,
    low_rank: LowRank | None = None,
) -> Loss:
    """Return the sum over rows of weight × (cross-entropy(head · hidden, target) + z_loss × lse²), as at least float32.

    lse is the logarithm of the softmax's denominator; its square keeps logits from drifting (z-loss, Chowdhery et al. 2022).
    The gradients of all factors are computed in the forward pass, chunk by chunk, and kept instead of the logits;
    those of matrices are summed in float32, for rounding every chunk to bfloat16 first biases training. Under autocast
    the products run in its dtype. No rows give a zero that still touches every factor. Backward runs once.
    """
    factors = (hidden_SC, head_VC, *(low_rank or ()))
    return Loss(*_CrossEntropy.apply(targets_S, weights_S, z_loss, _product_dtype(hidden_SC), *factors))  # type: ignore[no-untyped-call]


@torch.no_grad()
def row_losses(hidden_SC: Tensor, head_VC: Tensor, targets_S: Tensor, low_rank: LowRank | None = None) -> Tensor:
    """Return the cross-entropy of every row, unweighted, as at least float32, [S]; there is no gradient."""
    dtype = _product_dtype(hidden_SC)
    losses = torch.empty(len(targets_S), dtype=_wide(hidden_SC), device=hidden_SC.device)
    lefts, rights = _sides((hidden_SC, head_VC, *(low_rank or ())))
    with torch.autocast(hidden_SC.device.type, enabled=False):
        matrices = [right.to(dtype) for right in rights]
        n_rows = _rows_at_once(len(head_VC))
        for start in range(0, len(targets_S), n_rows):
            rows = slice(start, start + n_rows)
            logits = _logits([left[rows].to(dtype) for left in lefts], matrices).to(losses.dtype)
            losses[rows] = logits.logsumexp(1) - logits.gather(1, targets_S[rows, None])[:, 0]
    return losses


def _rows_at_once(n_tokens: int) -> int:
    """Return how many rows of logits of a vocabulary of `n_tokens` are taken at one time."""
    return max(1, min(CHUNK, LOGITS // n_tokens))


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
        ctx: Any, targets_S: Tensor, weights_S: Tensor, z_loss: float, dtype: torch.dtype, *factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take factors two by two, rows first, then the matrix: the logits are the sum of their products."""
        (lefts, rights), (needs_left, needs_right) = _sides(factors), _sides(ctx.needs_input_grad[4:])
        wide, device = _wide(lefts[0]), lefts[0].device
        with torch.autocast(device.type, enabled=False):
            matrices = [right.to(dtype) for right in rights]
            loss = torch.zeros((), dtype=wide, device=device)
            square = torch.zeros_like(loss)
            d_lefts = [torch.empty_like(x) if needs else None for x, needs in zip(lefts, needs_left, strict=True)]
            d_rights = [
                torch.zeros_like(x, dtype=wide) if needs else None for x, needs in zip(rights, needs_right, strict=True)
            ]
            n_rows = _rows_at_once(len(rights[0]))
            for start in range(0, len(targets_S), n_rows):
                rows = slice(start, start + n_rows)
                narrow = [left[rows].to(dtype) for left in lefts]
                targets, weights_S1 = targets_S[rows, None], weights_S[rows, None].to(wide)
                logits = _readable(_logits(narrow, matrices), wide)
                target, peak = logits.gather(1, targets).to(wide), logits.amax(1, keepdim=True).to(wide)
                chances = _softmax(logits, wide)
                # the greatest chance is at least 1 / V, so its logarithm is exact where that of the target's is not
                norm = peak - chances.amax(1, keepdim=True).log()
                loss += (weights_S1 * (norm - target)).sum()
                if z_loss:
                    square += (weights_S1 * norm * norm).sum()
                    chances.mul_(1 + 2 * z_loss * norm)
                d_logits = chances.scatter_add_(1, targets, torch.full_like(target, -1)).to(dtype)
                # weights scale rows, so they go to the narrow factor of each product, not to the logits
                for left, matrix, d_left, d_right in zip(narrow, matrices, d_lefts, d_rights, strict=True):
                    if d_left is not None:
                        d_left[rows] = (d_logits @ matrix) * weights_S1
                    if d_right is not None:
                        _add_product(d_right, d_logits.T, (left * weights_S1).to(dtype))
        ctx.save_for_backward(*(d for pair in zip(d_lefts, d_rights, strict=True) for d in pair))
        ctx.dtypes = [factor.dtype for factor in factors]
        ctx.mark_non_differentiable(loss)
        return loss + z_loss * square, loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what was kept; in place: a second backward pass would find it changed, and autograd refuses that."""
        scaled = (
            None if d is None else d.mul_(grads[0].to(d.dtype)).to(dtype)
            for d, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (None, None, None, None, *scaled)


def _sides(factors: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    return factors[::2], factors[1::2]


def _logits(lefts: Sequence[Tensor], matrices: Sequence[Tensor]) -> Tensor:
    logits = lefts[0] @ matrices[0].T
    for left, matrix in zip(lefts[1:], matrices[1:], strict=True):
        logits.addmm_(left, matrix.T)
    return logits


def _readable(logits: Tensor, wide: torch.dtype) -> Tensor:
    """Return `logits` in the type in which this device reduces rows fastest; a GPU widens as it reads."""
    return logits.to(wide) if logits.device.type == "cpu" else logits


def _softmax(logits: Tensor, wide: torch.dtype) -> Tensor:
    """Return the softmax of each row, as `wide`; on a CPU in the same memory, for fresh pages cost more than the sums."""
    return torch.softmax(logits, 1, out=logits) if logits.device.type == "cpu" else torch.softmax(logits, 1, dtype=wide)


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
