"""The matrices of a model that adapters can be put beside."""

from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Linear):
    """A matrix of a block or the head, and its bias; what adapters take the place of, and therefore told which token is which."""

    def forward(self, x_TC: Tensor, keys_T: Tensor | None = None) -> Tensor:  # noqa: ARG002 - adapters drop by them
        """Return the product with each row of `x_TC`."""
        return functional.linear(x_TC, self.weight, self.bias)

    def low_rank(self, x_TC: Tensor, keys_T: Tensor | None = None) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002
        """Return u [T, R] and B [O, R] where adapters add u Bᵀ to the product, or None."""
        return None
