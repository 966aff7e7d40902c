"""Attention inside documents only: tokens of one pack never see those of another conversation."""

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch lie, as the kernels want it; made once, used by every layer."""

    lengths: tuple[int, ...]
    longest: int
    borders: Tensor | None
    """On CUDA: int32 [documents + 1], where each document starts, then where the last one ends."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Documents":
        """Return the documents of `lengths` for kernels on `device`."""
        borders = None
        if device.type == "cuda":
            host = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
            borders = host.pin_memory().to(device, non_blocking=True)
        return cls(tuple(lengths), max(lengths), borders)


def attend(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, documents: Documents, *, window: int | None) -> Tensor:
    """Return causal attention of each document to itself, [T, H, D]; the documents' lengths sum to T.

    `window` is how many tokens a token sees, itself included; None: all before it.
    """
    if documents.borders is not None and v_TKD.dtype in (torch.bfloat16, torch.float16):
        capability = torch.cuda.get_device_capability(v_TKD.device)
        if suits_varlen(v_TKD.shape[-1], capability, arguments_of_varlen(), needs_window=window is not None):
            return _attend_varlen(q_THD, k_TKD, v_TKD, documents, window)
    if len(documents.lengths) == 1:
        return _attend_one(q_THD, k_TKD, v_TKD, window)
    # split, not slices: its backward is one concatenation, where each slice's would fill a tensor of zeros of full size
    parts = zip(*(torch.split(x, list(documents.lengths)) for x in (q_THD, k_TKD, v_TKD)), strict=True)
    return torch.cat([_attend_one(q, k, v, window) for q, k, v in parts])


def suits_varlen(head_dim: int, capability: tuple[int, int], arguments: frozenset[str], *, needs_window: bool) -> bool:
    """Tell whether the variable-length kernel, FlashAttention 2, has what is asked; `arguments` are its own, or none."""
    if not arguments or (needs_window and "window_size" not in arguments):
        return False
    return head_dim % 8 == 0 and head_dim <= 256 and capability >= (8, 0)


def _attend_one(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    length = q.shape[0]
    mask = None
    if window is not None and length > window:
        i = torch.arange(length, device=q.device)
        distance = i[:, None] - i
        mask = (distance >= 0) & (distance < window)
    return _sdpa(q, k, v, mask=mask, is_causal=mask is None)


def attend_cached(q_THD: Tensor, k_SKD: Tensor, v_SKD: Tensor, *, window: int | None) -> Tensor:
    """Return attention of the last T of S tokens to all S, causally, [T, H, D]."""
    n_new, n_all = q_THD.shape[0], k_SKD.shape[0]
    if n_new == n_all:
        return _attend_one(q_THD, k_SKD, v_SKD, window)
    at = torch.arange(n_all - n_new, n_all, device=q_THD.device)
    distance = at[:, None] - torch.arange(n_all, device=q_THD.device)
    mask = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    return _sdpa(q_THD, k_SKD, v_SKD, mask=mask, is_causal=False)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, is_causal: bool) -> Tensor:
    # on a CPU autocast would narrow what the caller has widened on purpose
    with torch.autocast("cpu", enabled=False):
        out = functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            attn_mask=mask,
            is_causal=is_causal,
            enable_gqa=q.shape[1] != k.shape[1],
        )
    return out[0].transpose(0, 1)


@functools.cache
def arguments_of_varlen() -> frozenset[str]:
    """Return the names of the arguments of torch's variable-length attention, which differ between its versions."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    names = arguments_of_varlen()
    options: dict[str, Any] = {}
    if "window_size" in names:
        options["window_size"] = (-1 if window is None else window - 1, 0)
    else:
        options["is_causal"] = True
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in names:
            options["enable_gqa"] = True
        else:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    borders, longest = documents.borders, documents.longest
    kernel: Any = varlen_attn
    out: Tensor = kernel(q.contiguous(), k.contiguous(), v.contiguous(), borders, borders, longest, longest, **options)
    return out
