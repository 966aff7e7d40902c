"""The trained model as a Hugging Face directory: weights, config, tokenizer, template and stop ids together."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file

from trainer.data.assets import GenerationConfig
from trainer.files import replacing_directory
from trainer.model.architecture import hugging_face_config
from trainer.model.decoder import Decoder
from trainer.model.layout import to_hugging_face
from trainer.model.lora import merged_tensors


def export(
    path: Path, model: Decoder, *, assets: Mapping[str, bytes], generation: GenerationConfig, dtype: str
) -> None:
    """Write `model`, its adapters added in, and the files `assets` (by relative path) to `path`, replacing it.

    `dtype` is float32 or bfloat16; sums with adapters are rounded to it once. Weights that were narrowed must be wide again.
    """
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    tensors = {name: tensor.to(kind).cpu() for name, tensor in merged_tensors(model)}
    config = hugging_face_config(model.architecture, dtype=dtype) | {
        "bos_token_id": generation.bos_token_id,
        "eos_token_id": generation.eos_token_id,
        "pad_token_id": generation.pad_token_id,
    }
    with replacing_directory(path) as temporary:
        save_file(
            to_hugging_face(tensors, model.architecture), temporary / "model.safetensors", metadata={"format": "pt"}
        )
        text = msgspec.json.format(msgspec.json.encode(config), indent=2)
        (temporary / "config.json").write_bytes(text + b"\n")
        for name, data in assets.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(data)
