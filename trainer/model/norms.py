"""Vectors brought to one scale."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.model.architecture import Architecture


class RMSNorm(nn.Module):
    """Scale each vector to a root mean square of 1 (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x`, in its own dtype; on CUDA autocast makes it float32."""
        # the weight as it is: queries and keys come in bfloat16, and to round a weight to it would lose what it learned
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class LayerNorm(nn.Module):
    """Bring each vector to mean 0 and variance 1, then to a learned scale and shift (Ba et al. 2016)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x`, in its own dtype."""
        return functional.layer_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def make_norm(a: Architecture) -> RMSNorm | LayerNorm:
    """Return a norm of the residual stream."""
    return (LayerNorm if a.layer_norm else RMSNorm)(a.hidden_size, a.rms_norm_eps)
