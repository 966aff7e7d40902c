"""AdamW, its groups of weights, and the learning rate of every step."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from schemas.settings import ConfigError
from schemas.training import Train
from trainer.model.decoder import Decoder
from trainer.model.lora import outer_names
from trainer.model.names import compiled, matching


def learning_rate(step: int, *, n_steps: int, train: Train) -> float:
    """Return the learning rate of the 0-based `step` of `n_steps`.

    It rises linearly over the warm-up, reaching lr on its last step, then falls from lr towards min_lr_ratio · lr,
    which the step after the last would have: no step is wasted at zero.
    """
    n_warmup = warmup_steps(n_steps, train)
    if step < n_warmup:
        return train.lr * (step + 1) / n_warmup
    if train.schedule == "constant":
        return train.lr
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    share = 1 - done if train.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return train.lr * (train.min_lr_ratio + (1 - train.min_lr_ratio) * share)


def warmup_steps(n_steps: int, train: Train) -> int:
    """Return how many steps the warm-up lasts."""
    if train.warmup_ratio is not None:
        return round(train.warmup_ratio * n_steps)
    return train.warmup_steps or 0


def make_adamw(model: Decoder, train: Train) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019) over the parameters of `model` that learn; only matrices decay.

    Raises ConfigError for a group of `train` that no weight is left for, or whose decay would concern no matrix.
    """
    return torch.optim.AdamW(
        parameter_groups(model, train), lr=train.lr, betas=(train.beta1, train.beta2), eps=train.eps, fused=True
    )


def parameter_groups(model: Decoder, train: Train) -> list[dict[str, Any]]:
    """Return what learns in groups of one factor on the learning rate, `lr_scale`, and one decay, in a fixed order."""
    outer = {name: tuple(outers) for name, outers in outer_names(model).items()}
    left = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    learning = {name: outer[name] for name in left}
    groups: list[dict[str, Any]] = []
    for i, group in enumerate(train.groups):
        where = f"[[train.groups]] {i + 1}, pattern"
        search = compiled(group.pattern, where=where).search
        if not any(search(name) for names in learning.values() for name in names):
            matching(group.pattern, outer, where=where)
            raise ConfigError(
                f"{where}: what {group.pattern!r} matches does not learn ([train] trainable, [lora]); drop it"
            )
        own = [left.pop(name) for name in matching(group.pattern, learning, where=where) if name in left]
        if not own:
            raise ConfigError(
                f"{where}: groups before it have all that {group.pattern!r} matches; drop it, or put it first"
            )
        if group.weight_decay and all(parameter.dim() <= 1 for parameter in own):
            raise ConfigError(
                f"{where}: {group.pattern!r} matches norms and biases only, which never decay; drop weight_decay = "
                f"{group.weight_decay}"
            )
        decay = train.weight_decay if group.weight_decay is None else group.weight_decay
        groups += _by_decay(own, decay, group.lr_scale)
    return groups + _by_decay(list(left.values()), train.weight_decay, 1.0)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Let the next update have the learning rate `lr`, each group's times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def _by_decay(parameters: Sequence[nn.Parameter], decay: float, lr_scale: float) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": decay, "lr_scale": lr_scale},
        {"params": vectors, "weight_decay": 0.0, "lr_scale": lr_scale},
    ]
    return [group for group in groups if group["params"]]
