"""Optimizer state shared out among ranks: ZeRO, stage 1 (Rajbhandari et al. 2020).

Every rank has all weights and all gradients, and the moments of its own share of the weights only. It updates that share, and
the ranks send each other what they have updated.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.world import World

BUCKET: Final = 1 << 25
"""Values that are sent at once, as one vector: small weights would cost a message each."""


def share_out(sizes: Sequence[int], world: int) -> list[int]:
    """Return the rank of each weight: the largest first, always to the rank with the least so far."""
    ranks, load = [0] * len(sizes), [0] * world
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        ranks[i] = min(range(world), key=lambda rank: (load[rank], rank))
        load[ranks[i]] += sizes[i]
    return ranks


class ShardedAdamW(torch.optim.AdamW):
    """AdamW over a rank's share of the weights, whose `step` leaves all weights updated on all ranks.

    Its `param_groups` and `state` are those of the share. An element is updated as plain AdamW does it, bit for bit, for
    AdamW knows no neighbours.
    """

    def __init__(self, whole: torch.optim.AdamW, world: World) -> None:
        everything = [parameter for group in whole.param_groups for parameter in group["params"]]
        ranks = share_out([parameter.numel() for parameter in everything], world.size)
        self.shares: list[list[Tensor]] = [
            [parameter for parameter, owner in zip(everything, ranks, strict=True) if owner == rank]
            for rank in range(world.size)
        ]
        own = {id(parameter) for parameter in self.shares[world.rank]}
        groups = [
            group | {"params": [parameter for parameter in group["params"] if id(parameter) in own]}
            for group in whole.param_groups
        ]
        super().__init__(groups, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the share, then give it to the other ranks and take theirs. Every rank must come."""
        super().step(closure)
        for rank, share in enumerate(self.shares):
            for bucket in _buckets(share):
                _send(bucket, rank)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of the gradients of all weights, not only of the share's."""
        for share in self.shares:
            for parameter in share:
                if set_to_none or parameter.grad is None:
                    parameter.grad = None
                else:
                    parameter.grad.zero_()


def _send(bucket: Sequence[Tensor], owner: int) -> None:
    """Give what `owner` has in the weights of `bucket` to all ranks."""
    if len(bucket) == 1 and bucket[0].is_contiguous():
        dist.broadcast(bucket[0], src=owner)
        return
    flat = torch.cat([parameter.reshape(-1) for parameter in bucket])
    dist.broadcast(flat, src=owner)
    if dist.get_rank() == owner:
        return
    sizes = [parameter.numel() for parameter in bucket]
    for parameter, values in zip(bucket, torch.split(flat, sizes), strict=True):
        parameter.copy_(values.view_as(parameter))


def _buckets(share: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the weights of a share, of one type each time and not much more than BUCKET values unless one alone has more."""
    bucket: list[Tensor] = []
    n_values = 0
    for parameter in share:
        if bucket and (n_values + parameter.numel() > BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, n_values = [], 0
        bucket.append(parameter)
        n_values += parameter.numel()
    if bucket:
        yield bucket
