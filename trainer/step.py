"""The arithmetic of one optimizer step, on one rank."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from schemas.training import Train
from trainer.loss import Loss
from trainer.model.decoder import Batch, Decoder
from trainer.world import World

Item = TypeVar("Item")
Read = Callable[[Sequence[int]], Batch]
"""Packs to their batch, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Where and in which arithmetic matrices are multiplied."""

    device: torch.device
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """Return the type's name, as configs have it."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        """Return a context in which products run in this dtype; weights and sums stay float32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype == torch.bfloat16)


def choose_precision(train: Train, world: World) -> Precision:
    """Return the arithmetic that `train` asks for; auto takes bfloat16 where every rank's hardware multiplies it."""
    if train.dtype == "auto":
        lacking = world.max(0.0 if _has_bfloat16(world.device) else 1.0)[0]
        dtype = torch.float32 if lacking else torch.bfloat16
    else:
        dtype = torch.float32 if train.dtype == "float32" else torch.bfloat16
    return Precision(device=world.device, dtype=dtype)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def accumulate(
    network: Decoder | DistributedDataParallel,
    groups: Sequence[Item],
    read: Callable[[Item], Batch],
    *,
    scale: float,
    precision: Precision,
    z_loss: float = 0.0,
) -> list[Tensor]:
    """Add the gradient of scale × objective of each group of packs to the parameters; return the unscaled cross-entropies.

    `scale` is world / N, N being trainer.data.means.step_weight of the whole step, over all ranks and groups, for the
    reduction divides by world. Ranks meet once, in the last group's backward pass, however many groups each has.
    """
    losses: list[Tensor] = []
    for i, group in enumerate(groups):
        batch = read(group).to(precision.device)
        is_last = i == len(groups) - 1
        meeting = (
            network.no_sync()
            if isinstance(network, DistributedDataParallel) and not is_last
            else contextlib.nullcontext()
        )
        with meeting:
            with precision.autocast():
                loss: Loss = network(batch, z_loss)
            torch.autograd.backward(loss.objective * scale)
        losses.append(loss.cross_entropy.double())
    return losses
