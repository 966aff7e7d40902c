"""From logits to the next token, for several documents at once, each with its own chance.

Shapes: B documents, V vocabulary. The four changes of logits are those of Hugging Face's processors of the same names,
in the order in which `generate` applies them: repetition penalty, temperature, top-k, top-p.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from schemas.generation import Generation
from trainer.errors import ModelError


def penalise(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Return logits in which each token that was seen counts less, once, however often it was seen (Keskar et al. 2019)."""
    lowered_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, lowered_BV, logits_BV)


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Return logits of -inf for all but the `k` largest of each row, and those as large as the last of them."""
    least_B1 = logits_BV.topk(min(k, logits_BV.shape[-1])).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Return logits of -inf for all but the fewest likeliest tokens whose probabilities reach `p` (Holtzman et al. 2019)."""
    sorted_BV, order_BV = logits_BV.sort()
    is_out_BV = sorted_BV.softmax(-1).cumsum(-1) <= 1 - p
    is_out_BV[:, -1] = False
    return logits_BV.masked_fill(is_out_BV.scatter(1, order_BV, is_out_BV), -torch.inf)


def draw(logits_BV: Tensor, chances: Sequence[float]) -> Tensor:
    """Return a token of each row, [B], where the row's chance, in [0, 1), falls in the sum of its probabilities.

    One number decides, in float64, so that a document draws the same tokens on every device and beside any others, as far
    as its logits are the same.
    """
    summed_BV = logits_BV.double().softmax(-1).cumsum(-1)
    chances_B1 = torch.tensor(chances, dtype=torch.float64, device=logits_BV.device).unsqueeze(1)
    # right: what has no probability is never drawn
    return torch.searchsorted(summed_BV, chances_B1 * summed_BV[:, -1:], right=True).squeeze(1)


def next_tokens(
    logits_BV: Tensor, settings: Generation, generators: Sequence[torch.Generator], seen: Sequence[Tensor]
) -> list[int]:
    """Return the next token of each document.

    `seen` says for each one which tokens its prompt and answer have, [V]; it is needed with a repetition penalty alone.
    Raises ModelError where logits are no numbers.
    """
    logits_BV = logits_BV.float()
    if settings.repetition_penalty != 1:
        logits_BV = penalise(logits_BV, torch.stack(list(seen)), settings.repetition_penalty)
    if settings.temperature == 0:
        largest = logits_BV.max(-1)
        _require_numbers(largest.values.tolist())
        chosen: list[int] = largest.indices.tolist()
        return chosen
    logits_BV = logits_BV / settings.temperature
    if settings.top_k:
        logits_BV = keep_top_k(logits_BV, settings.top_k)
    if settings.top_p < 1:
        logits_BV = keep_top_p(logits_BV, settings.top_p)
    chances = [torch.rand((), dtype=torch.float64, generator=generator).item() for generator in generators]
    drawn: list[int] = draw(logits_BV, chances).tolist()
    _require_numbers([math.nan if token == logits_BV.shape[-1] else 0.0 for token in drawn])
    return drawn


def _require_numbers(found: Sequence[float]) -> None:
    if not all(map(math.isfinite, found)):
        raise ModelError(
            "what the model makes of a prompt is no number (NaN or infinite), so it can answer nothing: its weights are damaged, "
            "or training had diverged before they were saved. Take an earlier checkpoint, or train with a lower [train] lr"
        )
