"""Attention inside documents only: tokens of one pack never see those of another conversation."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def attend(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, lengths: Sequence[int], *, window: int | None) -> Tensor:
    """Return causal attention of each document to itself, [T, H, D]; `lengths` sum to T.

    `window` is how many tokens a token sees, itself included; None: all before it.
    """
    if q_THD.is_cuda and q_THD.dtype in (torch.bfloat16, torch.float16) and _varlen() is not None:
        return _attend_varlen(q_THD, k_TKD, v_TKD, lengths, window)
    if len(lengths) == 1:
        return _attend_one(q_THD, k_TKD, v_TKD, window)
    # split, not slices: its backward is one concatenation, where each slice's would fill a tensor of zeros of full size
    parts = zip(*(torch.split(x, list(lengths)) for x in (q_THD, k_TKD, v_TKD)), strict=True)
    return torch.cat([_attend_one(q, k, v, window) for q, k, v in parts])


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
def _varlen() -> tuple[Any, frozenset[str]] | None:
    """Return torch's variable-length attention and the names of its arguments, which differ between versions."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn, frozenset(inspect.signature(varlen_attn).parameters)


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], window: int | None) -> Tensor:
    found = _varlen()
    if found is None:
        raise RuntimeError("no variable-length attention in this torch")
    kernel, names = found
    options: dict[str, Any] = {}
    if "window_size" in names:
        options["window_size"] = (-1 if window is None else window - 1, 0)
    elif window is None or max(lengths) <= window:
        options["is_causal"] = True
    else:
        raise RuntimeError(f"this torch has no sliding window of {window} tokens on CUDA; a newer one has")
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in names:
            options["enable_gqa"] = True
        else:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(q.device, non_blocking=True)
    longest = max(lengths)
    out: Tensor = kernel(q.contiguous(), k.contiguous(), v.contiguous(), ends, ends, longest, longest, **options)
    return out
