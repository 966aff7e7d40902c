"""Dropout without a generator: whether an element is left out follows from where it stands, and from nothing else.

An element's names are (seed, step, pack, position in the pack, layer, site, channel). So a step leaves out the same ones
however its packs are dealt to micro-batches and ranks, after a resume, when a block is computed a second time in the
backward pass, and on every device.
"""

import functools
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
_ODD: Final = (0x7FEB352D, 0x5851F42D, 0x1E3779B1)
"""Factors of the mixers, odd and below 2^31."""
_LOW: Final = 0xFFFFFFFF


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
    """Return which elements stay, bool [T, C].

    A mix takes 32 bits, multiplies them into 63 and keeps those in the middle, to which all of them contribute. No product
    overflows, which compiled C++ leaves undefined.
    """
    x_TC = (keys_T & _LOW)[:, None] ^ _channels(keys_T, n_channels, site)
    x_TC = _mixed(x_TC, 0)
    x_TC ^= ((keys_T >> 32) & _LOW)[:, None]
    return _mixed(x_TC, 2) >= round(share * 2**32)


@torch.library.custom_op("chatloom::channels", mutates_args=())
def _channels(keys_T: Tensor, n: int, site: int) -> Tensor:
    """Return 32 bits for each of `n` channels of a site, int64 [C], where the keys are.

    Compiled code calls it as it stands: where it counts channels up itself, inductor 2.13 takes all that follows from them
    through float32 on a CPU.
    """
    return _counted(n, site, keys_T.device).clone()  # for who calls owns what it gets


@_channels.register_fake
def _(keys_T: Tensor, n: int, site: int) -> Tensor:  # noqa: ARG001
    return keys_T.new_empty(n)


@functools.cache
def _counted(n: int, site: int, device: torch.device) -> Tensor:
    # a width below 2^20 keeps the channels of one site apart from those of the next
    return _mixed(_mixed(torch.arange(n, device=device) + (site * 0x100001 & _LOW), 0), 1)


def _mixed(x: Tensor, which: int) -> Tensor:
    """Change the 32 bits of each element of `x` in place, and return it."""
    x *= _ODD[which]
    x >>= 16
    x &= _LOW
    return x
