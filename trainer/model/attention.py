"""Attention inside documents only: tokens of one pack never see those of another conversation."""

import contextlib
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

varlen_attn: Any = None
"""torch's variable-length attention, where there is a device that it runs on: importing it takes a second."""
if torch.cuda.is_available():
    with contextlib.suppress(ImportError):  # not in every build of torch
        from torch.nn.attention.varlen import varlen_attn

VARLEN_ARGUMENTS: Final = frozenset(inspect.signature(varlen_attn).parameters if varlen_attn is not None else ())
"""Names of the arguments of torch's variable-length attention, which differ between its versions."""
RECOMPILE_LIMIT: Final = 32
"""Variants of compiled code that a block may have; adapters make 8 of them."""


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch lie, as the kernels want it; made once, used by every layer."""

    lengths: tuple[int, ...]
    longest: int
    """No document has more tokens."""
    borders: Tensor | None
    """On CUDA: int32, where each document starts, then where the last one ends, once or several times."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Documents":
        """Return the documents of `lengths` for kernels on `device`."""
        if device.type != "cuda":
            return cls(tuple(lengths), max(lengths), None)
        # both in few sizes, so that compiled code fits the next batch as well: documents of no tokens cost nothing
        n_borders = power_of_two(len(lengths), at_least=16) + 1
        host = torch.full((n_borders,), sum(lengths), dtype=torch.int32)
        host[0], host[1 : len(lengths) + 1] = 0, torch.tensor(lengths).cumsum(0)
        return cls(
            tuple(lengths),
            power_of_two(max(lengths), at_least=128),
            host.pin_memory().to(device, non_blocking=True),
        )


def attend(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, documents: Documents, *, window: int | None) -> Tensor:
    """Return causal attention of each document to itself, [T, H, D]; the documents' lengths sum to T.

    `window` is how many tokens a token sees, itself included; None: all before it.
    """
    is_narrow = v_TKD.dtype in (torch.bfloat16, torch.float16)
    if (
        documents.borders is not None
        and is_narrow
        and _has_varlen(v_TKD.shape[-1], v_TKD.device.index or 0, window is not None)
    ):
        return _attend_varlen(q_THD, k_TKD, v_TKD, documents, window)
    out_THD: Tensor = _attend_each(q_THD, k_TKD, v_TKD, documents, window)
    return out_THD


def _has_varlen(head_dim: int, device: int, needs_window: bool) -> bool:
    return suits_varlen(head_dim, torch.cuda.get_device_capability(device), VARLEN_ARGUMENTS, needs_window=needs_window)


def _attend_each(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, documents: Documents, window: int | None) -> Tensor:
    # never compiled: the code would be that of one list of lengths
    if len(documents.lengths) == 1:
        return _attend_one(q_THD, k_TKD, v_TKD, window)
    # split, not slices: its backward is one concatenation, where each slice's would fill a tensor of zeros of full size
    parts = zip(*(torch.split(x, list(documents.lengths)) for x in (q_THD, k_TKD, v_TKD)), strict=True)
    return torch.cat([_attend_one(q, k, v, window) for q, k, v in parts])


def power_of_two(n: int, *, at_least: int) -> int:
    """Return the lowest power of two that is neither below `n` nor below `at_least`, which is one."""
    return max(at_least, 1 << (n - 1).bit_length())


@functools.cache
def prepare_to_compile() -> None:
    """Let blocks that are compiled ask once for the kernel, keep the loop over documents as it is, and have one code each.

    Not done when this module is imported, for the compiler takes a second to import.
    """
    from torch._dynamo import config

    # inside DistributedDataParallel a block would be cut at every 25 MB of weights, to send their gradients sooner; blocks,
    # each compiled by itself, are cut finely enough
    config.optimize_ddp = False
    # one block's code has variants: frozen or learning input, one size or any, gradients or none; past the limit it would run
    # as it is written, slowly, for the rest of the run
    config.recompile_limit = RECOMPILE_LIMIT
    names: dict[str, Any] = globals()
    names["_has_varlen"] = torch.compiler.assume_constant_result(_has_varlen)  # type: ignore[no-untyped-call]
    names["_attend_each"] = torch.compiler.disable(_attend_each)  # type: ignore[no-untyped-call]


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
    if k.shape[1] != q.shape[1] and q.is_cuda and (mask is not None or q.dtype == torch.float32):
        # of its kernels only FlashAttention shares key heads, and it knows neither masks nor float32; the rest would hold all
        # scores of a document at once
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
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


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int | None) -> Tensor:
    names = VARLEN_ARGUMENTS
    options: dict[str, Any] = {}
    if "window_size" in names:
        options["window_size"] = (-1 if window is None else window - 1, 0)
    else:
        options["is_causal"] = True
    # the kernel has always shared key heads among query heads; since 2.12 its wrapper wants to be told
    if q.shape[1] != k.shape[1] and "enable_gqa" in names:
        options["enable_gqa"] = True
    borders, longest = documents.borders, documents.longest
    out: Tensor = varlen_attn(
        q.contiguous(), k.contiguous(), v.contiguous(), borders, borders, longest, longest, **options
    )
    return out
