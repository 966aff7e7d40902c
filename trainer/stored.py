"""The tensors of a checkpoint: the weights that learn and their moments, under the names that others know them by."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.errors import ModelError
from trainer.model.decoder import Decoder
from trainer.model.layout import from_hugging_face, names_on_disk, to_hugging_face
from trainer.model.lora import adapter_tensors

MOMENTS: Final = ("exp_avg", "exp_avg_sq")


def weights_of(model: Decoder) -> dict[str, Tensor]:
    """Return the weights that learn, on the host."""
    learning = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
    return _outer(model, learning)


def moments_of(model: Decoder, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments of the weights that `optimizer` updates, on the host; zeros before its first update."""
    tensors: dict[str, Tensor] = {}
    held = _held(model, optimizer)
    for moment in MOMENTS:
        own = {
            name: optimizer.state[parameter][moment].cpu()
            if moment in optimizer.state[parameter]
            else torch.zeros_like(parameter, device="cpu")
            for name, parameter in held.items()
        }
        tensors |= {f"{moment}.{name}": tensor for name, tensor in _outer(model, own).items()}
    return tensors


@torch.no_grad()
def put_weights(model: Decoder, path: Path) -> None:
    """Give the weights of `model` that learn the values in a file. Raises ModelError when one is missing."""
    with contextlib.ExitStack() as opened:
        inner = _Inner(model, [path], opened)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(inner.tensor(name))


def put_moments(model: Decoder, optimizer: torch.optim.Optimizer, paths: Iterable[Path], *, n_steps: int) -> None:
    """Give `optimizer` the moments, after `n_steps` updates, of those weights that it updates, from whichever file has them.

    Raises ModelError when one is missing.
    """
    with contextlib.ExitStack() as opened:
        inner = _Inner(model, paths, opened)
        for name, parameter in _held(model, optimizer).items():
            state = optimizer.state[parameter]
            state["step"] = torch.tensor(float(n_steps), dtype=torch.float32, device=parameter.device)
            for moment in MOMENTS:
                tensor = inner.tensor(name, prefix=f"{moment}.")
                state[moment] = tensor.to(device=parameter.device, dtype=parameter.dtype)


class _Inner:
    """Tensors in files by the names that Decoder has for them, each read when it is asked for."""

    def __init__(self, model: Decoder, paths: Iterable[Path], opened: contextlib.ExitStack) -> None:
        self._architecture, self._adapters = model.architecture, adapter_tensors(model)
        self._files: dict[str, Any] = {}
        self._where = ""
        for path in paths:
            try:
                file = opened.enter_context(safe_open(path, framework="pt"))
            except OSError as error:
                raise ModelError(f"{path}: {error.strerror or error}") from None
            except SafetensorError as error:
                raise ModelError(f"{path}: not a readable safetensors file: {error}") from None
            self._files |= dict.fromkeys(file.keys(), file)
            self._where = str(path.parent)

    def tensor(self, name: str, *, prefix: str = "") -> Tensor:
        """Return the tensor of a parameter, or of what is shaped like it and named with a `prefix`."""
        is_own = name not in self._adapters
        outers = names_on_disk(name, self._architecture) if is_own else [self._adapters[name][0]]
        if missing := [outer for outer in outers if prefix + outer not in self._files]:
            raise ModelError(f"{self._where}: {prefix}{missing[0]} is missing")
        parts: dict[str, Tensor] = {outer: self._files[prefix + outer].get_tensor(prefix + outer) for outer in outers}
        if not is_own:
            return parts[outers[0]]
        return from_hugging_face(parts, self._architecture, [name], where=self._where)[name]


def _held(model: Decoder, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Return the parameters that `optimizer` updates: all that learn, or a rank's share of them."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in held}


def _outer(model: Decoder, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors that are shaped like parameters and named like them, under the names of others."""
    adapters = adapter_tensors(model)
    own = {name: tensor for name, tensor in tensors.items() if name not in adapters}
    beside = {adapters[name][0]: tensor for name, tensor in tensors.items() if name in adapters}
    return to_hugging_face(own, model.architecture) | beside
