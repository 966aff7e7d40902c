"""AdamW, and the learning rate of every step."""

import math

import torch
from torch import nn

from schemas.training import Train


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


def make_adamw(model: nn.Module, train: Train) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019) over the parameters of `model`; only matrices decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, betas=(train.beta1, train.beta2), eps=train.eps, fused=True)
