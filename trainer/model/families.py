"""config.json of the families that are implemented, read strictly; what it leaves out is as in transformers."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from schemas.models import Positive, RopeBase, RopeScaling, Unit
from trainer.errors import ModelError

CLASSES: Final = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
_QWEN: Final = {"vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32}
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "qwen2": _QWEN | {"max_position_embeddings": 32_768},
    "qwen3": _QWEN | {"max_position_embeddings": 32_768, "head_dim": 128},
}
"""What transformers takes for keys that a family's config.json leaves out, where families differ."""
ROPE_TYPES: Final = ("default", "linear", "llama3")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What config.json says, as far as it concerns the arithmetic; keys that do not are passed over."""

    model_type: str
    vocab_size: Positive = 32_000
    hidden_size: Positive = 4096
    intermediate_size: Positive = 11_008
    num_hidden_layers: Positive = 32
    num_attention_heads: Positive = 32
    num_key_value_heads: Positive | None = None
    head_dim: Positive | None = None
    max_position_embeddings: Positive = 2048
    rms_norm_eps: Unit = 1e-6
    tie_word_embeddings: bool = False
    initializer_range: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.02
    hidden_act: str = "silu"
    attention_bias: bool | None = False
    mlp_bias: bool | None = False
    sliding_window: Positive | None = None
    use_sliding_window: bool | None = False
    rope_theta: RopeBase | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None

    def rope(self, path: Path) -> tuple[float, RopeScaling | None]:
        """Return base and stretch of the rotary positions, wherever the version of transformers wrote them."""
        given = {**(self.rope_parameters or {}), **(self.rope_scaling or {})}
        theta = given.pop("rope_theta", None)
        base = 10_000.0 if theta is None and self.rope_theta is None else self.rope_theta if theta is None else theta
        kind = given.get("rope_type") or given.get("type") or "default"
        if kind not in ROPE_TYPES:
            raise ModelError(f"{path}: rope_type {kind!r} is not implemented; expected one of {', '.join(ROPE_TYPES)}")
        if given.get("partial_rotary_factor", 1.0) != 1.0:
            raise ModelError(f"{path}: partial_rotary_factor is not implemented; expected 1.0")
        try:
            base = msgspec.convert(base, RopeBase)
            if kind == "default":
                return base, None
            known = set(RopeScaling.__struct_fields__)
            values = {name: value for name, value in given.items() if name in known and value is not None}
            if kind == "linear":
                values = {"factor": values["factor"]} if "factor" in values else {}
            return base, msgspec.convert(values | {"rope_type": kind}, RopeScaling)
        except msgspec.ValidationError as error:
            raise ModelError(f"{path}: rotary positions (rope_scaling, rope_theta): {error}") from None


def read_document(path: Path) -> dict[str, Any]:
    """Return the config.json at `path`, of a family that is implemented. Raises ModelError for anything else."""
    try:
        data: Any = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        if (path.parent / "adapter_config.json").is_file():
            raise ModelError(
                f"{path.parent}: adapters without their model; merge them into it first (PEFT: merge_and_unload, then "
                "save_pretrained), or train with [lora] merge = true, and give the whole"
            ) from None
        raise ModelError(
            f"{path}: {error.strerror or error}; [model] path must be a Hugging Face model directory "
            "(`hf download NAME --local-dir DIR` makes one) or a model's name on the hub"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path}: expected an object, got {type(data).__name__}; is this a model's config.json?")
    family = data.get("model_type")
    if not isinstance(family, str) or family not in CLASSES:
        raise ModelError(f"{path}: model_type {family!r} is not implemented; expected one of {', '.join(CLASSES)}")
    if data.get("quantization_config") is not None:
        raise ModelError(
            f"{path}: quantization_config: quantised weights cannot be trained; take the model's unquantised release"
        )
    return data


def read_config(document: dict[str, Any], path: Path) -> Config:
    """Return what a config.json of the Llama family says. Raises ModelError if that is malformed or not implemented."""
    try:
        config = msgspec.convert(DEFAULTS[document["model_type"]] | document, Config)
    except msgspec.ValidationError as error:
        raise ModelError(f"{path}: {error}") from None
    _refuse_unimplemented(config, path)
    return config


def _refuse_unimplemented(config: Config, path: Path) -> None:
    wrong = None
    if config.hidden_act != "silu":
        wrong = f"hidden_act {config.hidden_act!r} is not implemented; expected 'silu'"
    elif config.mlp_bias:
        wrong = "mlp_bias is not implemented; expected false"
    elif config.use_sliding_window and config.model_type in ("qwen2", "qwen3"):
        wrong = "use_sliding_window on some layers is not implemented; expected false"
    if wrong:
        raise ModelError(f"{path}: {wrong}")
