"""How much memory a step will take: the step itself, run on tensors that have shapes and no data."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.model.decoder import Batch, Decoder

MOMENT_BYTES = 8
"""AdamW's two moments of a value, in float32."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one rank at the moment of a step that needs most, beside what the program itself takes."""

    weights: int
    optimizer: int
    passing: int
    """Activations, logits and gradients, at their peak together."""

    @property
    def total(self) -> int:
        """Return all of them."""
        return self.weights + self.optimizer + self.passing


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides how large a forward pass is."""

    n_tokens: int
    n_rows: int
    """Trained rows."""
    is_bfloat16: bool
    has_gradients: bool
    """Whether gradients are already there when it begins: of a micro-batch before, or in the buckets that ranks share."""
    drops: bool = False


def trace(make_model: Callable[[], Decoder], shape: Shape, *, ranks_of_optimizer: int = 1) -> Memory:
    """Return what a step of the model that `make_model` makes will need, without allocating it.

    The forward and backward pass that training runs is run on fake tensors (torch's own, of torch.compile) while storages are
    counted as they come and go. It takes some 40 ms per layer. On a GPU in bfloat16 attention needs less than is counted here:
    a CPU takes it in float32. `make_model` decides what learns, and in which types weights are.
    """
    counter = _Storages()
    with FakeTensorMode(allow_non_fake_inputs=True), counter:
        model = make_model()
        weights = sum({p.untyped_storage()._cdata: p.untyped_storage().nbytes() for p in model.parameters()}.values())
        counter.peak = counter.now
        for _ in range(1 + shape.has_gradients):
            _pass(model, shape)
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Memory(
        weights=weights, optimizer=-(-MOMENT_BYTES * learning // ranks_of_optimizer), passing=counter.peak - weights
    )


def _pass(model: Decoder, shape: Shape) -> None:
    # at least two documents: attention takes one by one, and what it keeps of many is what it keeps of two
    longest = min(-(-shape.n_tokens // 2), model.architecture.max_position_embeddings)
    lengths = [min(longest, shape.n_tokens - start) for start in range(0, shape.n_tokens, longest)]
    whole = torch.zeros(shape.n_tokens, dtype=torch.int64)
    rows = torch.zeros(shape.n_rows, dtype=torch.int64)
    batch = Batch(
        input_ids_T=whole,
        positions_T=whole,
        lengths=tuple(lengths),
        rows_S=rows,
        targets_S=rows,
        weights_S=torch.zeros(shape.n_rows),
        dropout_keys_T=whole if shape.drops else None,
    )
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=shape.is_bfloat16):
        objective = model(batch).objective
    torch.autograd.backward(objective * 0.5)


class _Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations make, as long as each lives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            n_bytes = storage.nbytes()
            self._seen[storage] = None
            self.now += n_bytes
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, n_bytes)

    def _release(self, n_bytes: int) -> None:
        self.now -= n_bytes
