"""Adapters alone, as PEFT reads them: adapter_config.json, adapter_model.safetensors, and what a model is served with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from schemas.models import Lora
from schemas.settings import ConfigError
from trainer.files import replacing_directory
from trainer.model.decoder import Decoder
from trainer.model.layout import names_on_disk, to_hugging_face
from trainer.model.lora import Adapted, adapted_modules, own_parameters


def check_export(model: Decoder, lora: Lora, *, base: str | None) -> None:
    """Raise ConfigError when `lora` asks for adapters alone and those would not be all that a reader needs.

    `base` is the model they belong to, as it lies on disk or the hub; None: there is none like it.
    """
    if lora.rank == 0 or lora.merge:
        return
    why = _inexpressible(model)
    if base is None:
        why = "the model they belong to lies nowhere: it is a new one, or its embeddings were changed for added tokens"
    if why:
        raise ConfigError(f"[lora] merge = false: adapters alone would be of no use, because {why}; set merge = true")


def write_adapter(
    path: Path,
    model: Decoder,
    lora: Lora,
    *,
    base: str | None,
    revision: str | None = None,
    assets: Mapping[str, bytes],
) -> str | None:
    """Write the adapters of `model` and the files `assets` (by relative path) to `path`, replacing it.

    Modules that learn besides go with them, as PEFT's modules_to_save. Returns None, or why PEFT has no form for what
    learned; then nothing is written.
    """
    if why := _inexpressible(model):
        return why
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, module in adapted_modules(model):
        for outer, a_RC, b_OR in _pairs(model, name, module):
            tensors |= {f"{outer}.lora_A.weight": a_RC, f"{outer}.lora_B.weight": b_OR}
            ranks[outer] = len(a_RC)
    saved = _modules_that_learn(model)
    parameters = own_parameters(model)
    own = {name: parameters[name].detach().float() for name in parameters if name.rpartition(".")[0] in saved}
    tensors |= to_hugging_face(own, model.architecture)
    config = _config(model, lora, ranks) | {
        "base_model_name_or_path": base,
        "revision": revision,
        "modules_to_save": sorted({outer for name in saved for outer in _outer_modules(model, name)}) or None,
    }
    with replacing_directory(path) as temporary:
        for name, data in assets.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(data)
        text = msgspec.json.format(msgspec.json.encode(config), indent=2)
        (temporary / "adapter_config.json").write_bytes(text + b"\n")
        found = {f"base_model.model.{name}": tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(found, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
    return None


def _pairs(model: Decoder, name: str, module: Adapted) -> list[tuple[str, Tensor, Tensor]]:
    """Return name, A and B of each adapter as PEFT has them: the thirds of a c_attn are one, with their B down a diagonal."""
    outers = _outer_modules(model, name)
    with torch.no_grad():
        if len(outers) == 1:
            return [(outers[0], module.a_RC(), module.b_OR())]
        return [
            (part.name, module.lora_A[part.short].detach(), module.lora_B[part.short].detach()) for part in module.parts
        ]


def _config(model: Decoder, lora: Lora, ranks: Mapping[str, int]) -> dict[str, Any]:
    # alpha / rank stays what it is where several adapters have become one
    unusual = {name: rank for name, rank in ranks.items() if rank != lora.rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": _shortened(model, ranks),
        "rank_pattern": unusual,
        "alpha_pattern": {name: lora.alpha * rank / lora.rank for name, rank in unusual.items()},
        "fan_in_fan_out": model.architecture.model_type == "gpt2",
        "bias": "none",
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _shortened(model: Decoder, names: Mapping[str, int]) -> list[str]:
    """Return the last words of `names` where all matrices that end so are among them, else the whole names."""
    every = {
        outer
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        for outer in _outer_modules(model, name)
    }
    rest = {outer.rpartition(".")[2] for outer in every - names.keys()}
    short = {name: name.rpartition(".")[2] for name in names}
    return sorted({name if short[name] in rest else short[name] for name in names})


def _modules_that_learn(model: Decoder) -> set[str]:
    return {name.rpartition(".")[0] for name, parameter in own_parameters(model).items() if parameter.requires_grad}


def _outer_modules(model: Decoder, name: str) -> list[str]:
    return [outer.removesuffix(".weight") for outer in names_on_disk(f"{name}.weight", model.architecture)]


def _inexpressible(model: Decoder) -> str | None:
    """Return why PEFT has no form for what learns in `model`, or None."""
    learn = _modules_that_learn(model)
    if both := [name for name, _ in adapted_modules(model) if name in learn]:
        return (
            f"{_outer_modules(model, both[0])[0]} learns itself and has an adapter, which PEFT does not know together"
        )
    if model.lm_head is None and "embed_tokens" in learn:
        return "the embedding table, which is the head as well, learns itself, and PEFT would part the two"
    return None
