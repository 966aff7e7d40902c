"""What a block does to each token alone."""

from torch import Tensor, nn
from torch.nn import functional

from trainer.model.architecture import Architecture
from trainer.model.linear import Linear


class SwiGLU(nn.Module):
    """Feed-forward with a gate (Shazeer 2020)."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.gate_up_proj = Linear(a.hidden_size, 2 * a.intermediate_size, bias=False)
        self.down_proj = Linear(a.intermediate_size, a.hidden_size, bias=False)

    def forward(self, x_TC: Tensor, keys_T: Tensor | None) -> Tensor:
        """Return down(silu(gate(x)) · up(x)), [T, C]."""
        gate, up = self.gate_up_proj(x_TC, keys_T).chunk(2, dim=-1)
        out: Tensor = self.down_proj(functional.silu(gate) * up, keys_T)
        return out


class GELU(nn.Module):
    """Feed-forward with biases and a GELU (Hendrycks and Gimpel 2016), of which gelu_new is the tanh approximation."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.up_proj = Linear(a.hidden_size, a.intermediate_size)
        self.down_proj = Linear(a.intermediate_size, a.hidden_size)
        self.approximate = "tanh" if a.hidden_act == "gelu_new" else "none"

    def forward(self, x_TC: Tensor, keys_T: Tensor | None) -> Tensor:
        """Return down(gelu(up(x))), [T, C]."""
        up = self.up_proj(x_TC, keys_T)
        out: Tensor = self.down_proj(functional.gelu(up, approximate=self.approximate), keys_T)
        return out


def make_feed_forward(a: Architecture) -> SwiGLU | GELU:
    """Return the feed-forward branch of a block."""
    return SwiGLU(a) if a.hidden_act == "silu" else GELU(a)
