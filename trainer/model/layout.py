"""Names and shapes of weights on disk, as Hugging Face has them, for each weight of a Decoder."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor

from trainer.errors import ModelError
from trainer.model.architecture import Architecture

FUSED: Final = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Matrices that are one in memory and several on disk, in the Llama family."""
_GPT2: Final = (
    ("embed_tokens.", "transformer.wte."),
    ("embed_positions.", "transformer.wpe."),
    ("norm.", "transformer.ln_f."),
    ("layers.", "transformer.h."),
    ("input_layernorm.", "ln_1."),
    ("post_attention_layernorm.", "ln_2."),
    ("self_attn.qkv_proj.", "attn.c_attn."),
    ("self_attn.o_proj.", "attn.c_proj."),
    ("mlp.up_proj.", "mlp.c_fc."),
    ("mlp.down_proj.", "mlp.c_proj."),
)
"""Decoder's names of GPT-2's parts, and Hugging Face's."""
_NO_WEIGHTS: Final = re.compile(r"(^|\.)rotary_emb\.inv_freq$|(^|\.)attn\.(masked_)?bias$")
"""Rotary frequencies, which follow from config.json, and GPT-2's masks, which old versions of transformers stored."""


def names_on_disk(name: str, architecture: Architecture) -> list[str]:
    """Return Hugging Face's names of what Decoder calls `name`: one, or those that are fused in it, in their order."""
    if name.startswith("lm_head."):
        return [name]
    if architecture.model_type == "gpt2":
        return [_name_in_gpt2(name)]
    fused = _fused(name)
    return [f"model.{name}"] if fused is None else [f"model.{name.replace(fused, part)}" for part in FUSED[fused]]


def to_hugging_face(tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Return `tensors`, named as Decoder names them, under Hugging Face's names with fused matrices split.

    Works for anything shaped like the parameters, so the optimizer's moments go through it too.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        outer, fused = names_on_disk(name, architecture), _fused(name)
        if len(outer) == 1 or fused is None:
            split[outer[0]] = (tensor.T if _is_transposed(name, architecture) else tensor).contiguous()
            continue
        for part_name, part in zip(outer, torch.split(tensor, _widths(fused, architecture)), strict=True):
            split[part_name] = part.contiguous()
    return split


def from_hugging_face(
    tensors: Mapping[str, Tensor], architecture: Architecture, names: Iterable[str], *, where: str
) -> dict[str, Tensor]:
    """Return the tensors called `names`, as Decoder names them, joined from `tensors` under Hugging Face's names.

    Raises ModelError naming every tensor that is missing.
    """
    joined: dict[str, Tensor] = {}
    missing: list[str] = []
    for name in names:
        parts = names_on_disk(name, architecture)
        absent = [part for part in parts if part not in tensors]
        missing += absent
        if not absent:
            whole = _joined([tensors[part] for part in parts], name, architecture, where)
            joined[name] = whole.T.contiguous() if _is_transposed(name, architecture) and whole.dim() == 2 else whole
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ModelError(f"{where}: weights of a {architecture.model_type} model are missing: {shown}")
    return joined


def weights_among(tensors: Mapping[str, Tensor], architecture: Architecture, *, where: str) -> dict[str, Tensor]:
    """Return what a model directory stores, less what is no weight, under today's names.

    The first GPT-2 checkpoints lack the prefix that transformers writes. Raises ModelError when one weight is there twice.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _NO_WEIGHTS.search(name):
            continue
        is_bare = architecture.model_type == "gpt2" and name.startswith(("wte.", "wpe.", "ln_f.", "h."))
        outer = f"transformer.{name}" if is_bare else name
        if outer in found:
            raise ModelError(f"{where}: {outer} is there twice, with and without its prefix; which one is the model's?")
        found[outer] = tensor
    return found


def _fused(name: str) -> str | None:
    return next((fused for fused in FUSED if f".{fused}." in name), None)


def _widths(fused: str, a: Architecture) -> list[int]:
    if fused == "gate_up_proj":
        return [a.intermediate_size, a.intermediate_size]
    return [a.num_attention_heads * a.head_dim] + [a.num_key_value_heads * a.head_dim] * 2


def _name_in_gpt2(name: str) -> str:
    for ours, theirs in _GPT2:
        name = re.sub(rf"(^|(?<=\.)){re.escape(ours)}", theirs, name, count=1)
    return name


def _is_transposed(name: str, architecture: Architecture) -> bool:
    """Tell whether a matrix lies [in, out] on disk: those of GPT-2's blocks, which are convolutions of width 1 there."""
    return architecture.model_type == "gpt2" and name.startswith("layers.") and name.endswith("_proj.weight")


def _joined(parts: list[Tensor], name: str, a: Architecture, where: str) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    widths = _widths(_fused(name) or "", a)
    # each by itself: one that is too short and one that is too long would make a whole of the right size
    is_fit = all(part.dim() > 0 and len(part) == width for part, width in zip(parts, widths, strict=True))
    if not is_fit or len({part.shape[1:] for part in parts}) > 1 or len({part.dtype for part in parts}) > 1:
        found = ", ".join(f"{tuple(part.shape)} {part.dtype}" for part in parts)
        raise ModelError(
            f"{where}: the parts of {name} do not fit each other: {found}; config.json says that they have {widths} rows, and "
            "they must be of one type"
        )
    return torch.cat(parts)
