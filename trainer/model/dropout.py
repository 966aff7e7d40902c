"""Dropout without a generator: whether an element is left out follows from where it stands, and from nothing else.

An element's names are (seed, step, pack, position in the pack, layer, site, channel). So a step leaves out the same ones
however its packs are dealt to micro-batches and ranks, after a resume, when a block is computed a second time in the
backward pass, and on every device.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.splitmix import mixed, sequence

BRANCH_OF_ATTENTION: Final = 0
BRANCH_OF_FEED_FORWARD: Final = 1
EMBEDDING: Final = 2
ADAPTERS: Final = 16
"""First site of adapters; those below are the model's own. A site is a place within one block."""
_ODD: Final = (0x7FEB352D, 0x846CA68B - 2**32, 0x9E3779B1 - 2**32)
"""Factors of 32-bit mixers: two found by search (Wellons 2018), and 2^32 over the golden ratio."""


def keys(*, seed: int, step: int, packs: Sequence[int], sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return a number for each token of `packs`, of `sizes` tokens each, laid end to end: its names down to its position.

    `step` counts the updates done since the run began, `packs` are indices into the whole split.
    """
    found = [sequence(mixed(seed, step, pack), n) for pack, n in zip(packs, sizes, strict=True)]
    return np.concatenate([np.zeros(0, dtype=np.uint64), *found]).view(np.int64)


def keys_of_layer(keys_T: Tensor, layer: int) -> Tensor:
    """Return the keys of one block: with its layer in them sites have the same numbers in all blocks, which compile once."""
    x = keys_T + (mixed(layer) - 2**63)
    x = (x ^ (x >> 32)) * (0xD6E8FEB86659FD93 - 2**64)
    return x ^ (x >> 32)


def drop(x_TC: Tensor, keys_T: Tensor | None, site: int, share: float) -> Tensor:
    """Return `x_TC` with a `share` of its elements set to 0 and the others divided by 1 - share (Srivastava et al. 2014).

    Without keys or share it is `x_TC` itself: nothing is computed. The bits of an element are a 32-bit mix of both halves of
    its token's key with its channel.
    """
    if keys_T is None or share == 0.0:
        return x_TC
    return torch.where(_kept(keys_T, x_TC.shape[-1], site, share), x_TC * (1.0 / (1.0 - share)), 0.0)


@torch.no_grad()
def _kept(keys_T: Tensor, n_channels: int, site: int, share: float) -> Tensor:
    """Return which elements stay, bool [T, C]."""
    # 32-bit products: half the memory traffic of 64-bit ones, and one instruction on every machine
    low_T1 = keys_T.to(torch.int32)[:, None]
    high_T1 = (keys_T >> 32).to(torch.int32)[:, None]
    # a width below 2^20 keeps the channels of one site apart from those of the next
    channels_C = torch.arange(n_channels, dtype=torch.int32, device=keys_T.device) + (site * 0x100001 & 0x3FFFFFFF)
    x_TC = low_T1 ^ _mix(channels_C * _ODD[2])
    x_TC *= _ODD[0]
    x_TC ^= (x_TC >> 15) & 0x1FFFF
    x_TC += high_T1
    x_TC *= _ODD[1]
    x_TC ^= (x_TC >> 16) & 0xFFFF
    return x_TC >= min(round(share * 2**32) - 2**31, 2**31 - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 16) & 0xFFFF)) * _ODD[0]
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _ODD[1]
    return x ^ ((x >> 16) & 0xFFFF)
