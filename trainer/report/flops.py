"""Useful floating-point operations of training, counted from what is really trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.model.decoder import Decoder

if TYPE_CHECKING:  # which reads Arrow, and nothing here does
    from trainer.data.packs import Packs

FORWARD, BACK_TO_INPUT, BACK_TO_WEIGHT = 2, 2, 2
"""Operations per weight and token: a multiplication and an addition forward, and for each gradient that is needed."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations that one forward and backward pass cannot do without, as a linear function of three counts.

    A matrix of N weights costs 2N per token forward, 2N for the gradient of its input and 2N for its own (Kaplan et al. 2020;
    Chowdhery et al. 2022, PaLM, appendix B): 6N where it learns, 4N where it is frozen and something before it learns, 2N
    where nothing at or below it does. Adapters are matrices that learn. The head counts on trained rows only, and so does all
    of the last block that follows its attention. A token and one that it sees cost 4 · (query heads · head width) per block
    forward, products with keys and with values, and twice that backward; PaLM counts the whole square of a document, here it
    is the half that causal attention needs, or the band of a sliding window. Looking up embeddings is free, norms, biases,
    activations and the optimizer are not counted. What gradient checkpointing computes again is not useful.
    """

    per_token: float
    per_row: float
    """Per trained row, for the head and the end of the last block."""
    per_pair: float
    """Per pair of a token and one that it sees, itself included."""
    window: int | None = None
    """Tokens that a token sees, itself included; None: all of its document before it."""

    def of(self, *, n_tokens: float, n_rows: float, n_pairs: float) -> float:
        """Return the operations of so many tokens, trained rows and pairs."""
        return self.per_token * n_tokens + self.per_row * n_rows + self.per_pair * n_pairs

    def of_packs(self, packs: "Packs", chosen: Sequence[int] | npt.NDArray[np.int64]) -> float:
        """Return the operations of a step that trains the packs `chosen`."""
        tokens, chosen = float(packs.n_tokens[chosen].sum()), np.asarray(chosen, dtype=np.int64)
        window = packs.longest if self.window is None else self.window
        # lengths of single documents lie on disk, and only those longer than the window make a difference
        inside = chosen[packs.longest_of[chosen] <= window]
        pairs = float(packs.sum_squares[inside].sum() + packs.n_tokens[inside].sum()) / 2
        for pack in chosen[packs.longest_of[chosen] > window]:
            pairs += count_pairs(packs.document_lengths(int(pack)), window)
        return self.of(n_tokens=tokens, n_rows=float(packs.n_supervised[chosen].sum()), n_pairs=pairs)


def count_pairs(lengths: npt.ArrayLike, window: int | None = None) -> int:
    """Return how many pairs of a token and one that it sees documents of `lengths` have: n (n + 1) / 2 without a window."""
    n = np.asarray(lengths, dtype=np.int64)
    seen = n if window is None else np.minimum(n, window)
    return int((seen * (seen + 1) // 2 + (n - seen) * seen).sum())


def count_work(model: Decoder) -> Work:
    """Return the work of training `model`, on any device, as its weights are asked to learn now."""
    a = model.architecture
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    per_token = per_row = per_pair = 0.0
    # whether something at or below this place learns, so that gradients must come down to it
    is_reached = any(is_on for name, is_on in learns.items() if name.startswith("embed_"))
    heads = a.num_attention_heads * a.head_dim
    for i, block in enumerate(model.layers):
        is_reached |= any(learns[f"layers.{i}.{name}"] for name, _ in block.named_parameters())
        for name, weight in block.named_parameters():
            if weight.dim() != 2:
                continue
            work = _per_weight(is_reached, weight.requires_grad) * weight.numel()
            if i == len(model.layers) - 1 and "qkv_proj" not in name:
                per_row += work
            else:
                per_token += work
        per_pair += heads * (4 + 8 * is_reached)
    is_reached |= any(is_on for name, is_on in learns.items() if name.startswith("norm."))
    if model.lm_head is None:
        head = model.embed_tokens.weight
        per_row += _per_weight(is_reached, head.requires_grad) * head.numel()
    else:
        for weight in model.lm_head.parameters():
            if weight.dim() == 2:
                per_row += _per_weight(is_reached, weight.requires_grad) * weight.numel()
    return Work(per_token=per_token, per_row=per_row, per_pair=per_pair, window=a.sliding_window)


def _per_weight(is_reached: bool, is_learning: bool) -> int:
    return FORWARD + BACK_TO_INPUT * is_reached + BACK_TO_WEIGHT * is_learning
