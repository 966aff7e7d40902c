"""What weighs the same in a step: each trained token, each conversation, or something between the two.

A conversation lies whole in one pack, so the weight of its tokens follows from its pack alone, and the divisor of a step
from what is stored with each pack: neither needs to hear from other ranks.
"""

from dataclasses import replace
from typing import Literal

import torch

from trainer.data.packs import Packs
from trainer.data.stream import Floats, Integers
from trainer.model.decoder import Batch

LossMean = Literal["token", "sample", "sqrt"]


def step_weight(packs: Packs, chosen: Integers | list[int], loss_mean: LossMean) -> float:
    """Return what the summed losses of the packs `chosen`, all those of a step, are divided by.

    With w the weight of a conversation's trained tokens, that is the sum over conversations of w, of 1 where w is not 0, or
    of the root of w.
    """
    per_pack: dict[LossMean, Integers | Floats]
    per_pack = {"token": packs.weights, "sample": packs.n_trained, "sqrt": packs.root_weights}
    return float(per_pack[loss_mean][chosen].sum())


def reweighted(batch: Batch, loss_mean: LossMean) -> Batch:
    """Return `batch`, which lies on the CPU, with the weights of each conversation divided by w or by the root of w.

    Then sum(weights × losses) / step_weight is the mean over conversations of their own weighted means, each counting as
    1, or as the root of w. Weights become float64, so that a float64 model sees them exact.
    """
    if loss_mean == "token":
        return batch
    of_row_S = documents_of(batch)
    weights_S = batch.weights_S.double()
    sums_D = torch.zeros(len(batch.lengths), dtype=torch.float64).index_add_(0, of_row_S, weights_S)
    divisors_D = sums_D if loss_mean == "sample" else sums_D.sqrt()
    return replace(batch, weights_S=weights_S / divisors_D[of_row_S])


def documents_of(batch: Batch) -> torch.Tensor:
    """Return the index of the document of every supervised row, int64 [S], where `rows_S` lies."""
    ends_D = torch.tensor(batch.lengths, device=batch.rows_S.device).cumsum(0)
    return torch.searchsorted(ends_D, batch.rows_S, right=True)
