"""The trained model as a Hugging Face directory: weights, config, tokenizer, template and stop ids together."""

import shutil
from pathlib import Path
from typing import Final

import msgspec
import torch
from safetensors.torch import save_file

from trainer.architecture import hugging_face_config
from trainer.errors import DataError
from trainer.files import replacing_directory
from trainer.generate import GenerationConfig
from trainer.model import Decoder
from trainer.weights import to_hugging_face

COPIED: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def export(path: Path, model: Decoder, *, run: Path, generation: GenerationConfig, dtype: str) -> None:
    """Write `model` to `path`, replacing what was there at once; `dtype` is float32 or bfloat16.

    Raises DataError when a file of RUN/tokenizer is missing.
    """
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    tensors = {name: parameter.detach().cpu().to(kind) for name, parameter in model.named_parameters()}
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
        for name in COPIED:
            try:
                shutil.copyfile(run / "tokenizer" / name, temporary / name)
            except FileNotFoundError:
                raise DataError(f"{run / 'tokenizer' / name}: not found; rebuild it with `make data`") from None
