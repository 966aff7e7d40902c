"""torch.compile for each block of a decoder, and batches of few sizes, so that what was compiled fits the next one."""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch.nn import functional

from schemas.training import Train
from trainer.model.attention import prepare_to_compile
from trainer.model.decoder import Batch, Decoder

TILE: Final = 128
"""Batches have a multiple of so many tokens, as the kernels' tiles have."""
NEARLY_FULL: Final = 0.9
"""Batches that are filled to this share get the size of a full one."""


def is_compiled(train: Train, device: torch.device) -> bool:
    """Tell whether `train` wants compiled blocks on `device`."""
    return train.compile == "on" or (train.compile == "auto" and device.type == "cuda")


def compile_blocks(model: Decoder, *, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let every block run as compiled code, all the same code; names of weights stay as they are.

    To be done before the model is wrapped for several ranks. Nothing is compiled until the first batch. Reading on from a
    cache runs as written all the same: of the steps of an answer no two have the same shapes.
    """
    prepare_to_compile()
    model.is_compiled = True
    for block in model.layers:
        block.compile(backend=backend)


def padded(batch: Batch, *, full: int) -> Batch:
    """Return `batch` with a document at its end that trains nothing, so that its size is one of few.

    A batch that is nearly `full` tokens long gets that size, for which the code is compiled without a free dimension; any
    other gets the next multiple of TILE.
    """
    n_tokens = len(batch.input_ids_T)
    wanted = full if NEARLY_FULL * full <= n_tokens <= full else -(-n_tokens // TILE) * TILE
    n_more = wanted - n_tokens
    if n_more == 0:
        return batch
    positions_T = torch.arange(n_more, device=batch.positions_T.device, dtype=batch.positions_T.dtype)
    keys_T = batch.dropout_keys_T
    return Batch(
        input_ids_T=functional.pad(batch.input_ids_T, (0, n_more)),
        positions_T=torch.cat((batch.positions_T, positions_T)),
        lengths=(*batch.lengths, n_more),
        rows_S=batch.rows_S,
        targets_S=batch.targets_S,
        weights_S=batch.weights_S,
        dropout_keys_T=None if keys_T is None else functional.pad(keys_T, (0, n_more)),
    )
