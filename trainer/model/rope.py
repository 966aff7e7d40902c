"""Rotary positions: frequencies with Hugging Face's scalings, and the rotation itself."""

import math

import torch
from torch import Tensor

from trainer.model.architecture import Architecture


def inverse_frequencies(architecture: Architecture) -> Tensor:
    """Return the angle per position of each pair of channels, float32, shape [head_dim / 2].

    Sources: Su et al. 2021 (RoPE); Chen et al. 2023 (linear); the Llama 3.1 release (llama3).
    """
    exponents = torch.arange(0, architecture.head_dim, 2, dtype=torch.int64).float() / architecture.head_dim
    plain = 1.0 / (architecture.rope_theta**exponents)
    scaling = architecture.rope_scaling
    if scaling is None:
        return plain
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    original = scaling.original_max_position_embeddings
    if low is None or high is None or original is None:  # linear
        stretched: Tensor = plain / scaling.factor
        return stretched
    wavelength = 2 * math.pi / plain
    slow = torch.where(wavelength > original / low, plain / scaling.factor, plain)
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * slow / scaling.factor + smooth * slow
    is_between = ~(wavelength < original / high) & ~(wavelength > original / low)
    return torch.where(is_between, between, slow)


def rotation(frequencies: Tensor, positions_T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles at `positions_T`, each [T, 1, head_dim], computed in float32 or wider.

    The first half of the sines is negative, as `rotate` wants them.
    """
    wide = torch.promote_types(frequencies.dtype, dtype)
    angles = positions_T[:, None].to(wide) * frequencies.to(wide)
    cosines, sines = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat((cosines, cosines), dim=-1)[:, None], torch.cat((-sines, sines), dim=-1)[:, None]


def rotate(x_THD: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of channels (i, i + head_dim / 2) of `x_THD` by its angle."""
    # halves that change places in one copy: slices would each be filled up with zeros in the backward pass
    return x_THD * cosines + x_THD.roll(x_THD.shape[-1] // 2, dims=-1) * sines
