"""Sizes and switches of a model, to and from a Hugging Face config.json."""

from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.training import Model
from trainer.errors import ModelError

CLASSES: Final = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
ROPE_TYPES: Final = ("default", "linear", "llama3")


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that determines a model's shape and arithmetic; names are Hugging Face's where it has one."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    initializer_range: float = 0.02
    qkv_bias: bool = False
    """Bias on q, k and v."""
    o_bias: bool = False
    """Bias on the attention's output."""
    qk_norm: bool = False
    """RMS norm of each head of q and k, before positions."""
    sliding_window: int | None = None
    """Tokens a token sees, itself included; None: all before it."""


def new_architecture(model: Model, *, vocab_size: int) -> Architecture:
    """Return the architecture of a new model; `model.path` must be None."""
    heads = model.num_attention_heads
    return Architecture(
        model_type=model.model_type,
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size or -(-model.hidden_size * 8 // (3 * 64)) * 64,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=model.num_key_value_heads or heads,
        head_dim=model.head_dim or model.hidden_size // heads,
        rope_theta=model.rope_theta,
        rope_scaling=_checked_scaling(model.rope_scaling, "[model] rope_scaling"),
        max_position_embeddings=model.max_position_embeddings,
        rms_norm_eps=model.rms_norm_eps,
        tie_word_embeddings=model.tie_word_embeddings,
        initializer_range=model.initializer_range,
        qkv_bias=model.model_type == "qwen2",
        qk_norm=model.model_type == "qwen3",
    )


def read_architecture(directory: Path) -> Architecture:
    """Return the architecture that DIRECTORY/config.json describes, as transformers 4 or 5 wrote it.

    Raises ModelError when it is absent, malformed, or asks for something that is not implemented.
    """
    path = directory / "config.json"
    try:
        config = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            f"{path}: not found; [model] path must be a Hugging Face model directory "
            "(`hf download NAME --local-dir DIR` makes one)"
        ) from None
    except msgspec.DecodeError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
    try:
        return _from_hugging_face(config, str(path))
    except KeyError as error:
        raise ModelError(f"{path}: {error.args[0]} is missing; is this a causal language model?") from None


def _from_hugging_face(config: dict[str, Any], where: str) -> Architecture:
    family = config.get("model_type")
    if family not in CLASSES:
        raise ModelError(f"{where}: model_type {family!r} is not implemented; got it for: {', '.join(CLASSES)}")
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise ModelError(f"{where}: hidden_act {act!r} is not implemented; expected 'silu'")
    if config.get("mlp_bias"):
        raise ModelError(f"{where}: mlp_bias is not implemented; expected false")
    rope: dict[str, Any] = dict(config.get("rope_parameters") or {})
    theta = float(rope.pop("rope_theta", None) or config.get("rope_theta") or 10_000.0)
    scaling = config.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
    heads = config["num_attention_heads"]
    attention_bias = bool(config.get("attention_bias", False))
    return Architecture(
        model_type=family,
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        rope_theta=theta,
        rope_scaling=_checked_scaling(scaling, f"{where}: rope_scaling"),
        max_position_embeddings=config.get("max_position_embeddings", 4096),
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        initializer_range=config.get("initializer_range", 0.02),
        qkv_bias=True if family == "qwen2" else attention_bias,
        o_bias=attention_bias and family in ("llama", "qwen3"),
        qk_norm=family == "qwen3",
        sliding_window=_sliding_window(config, where),
    )


def _sliding_window(config: dict[str, Any], where: str) -> int | None:
    window: int | None = config.get("sliding_window")
    if config["model_type"] == "mistral":
        return window
    if config["model_type"] in ("qwen2", "qwen3") and config.get("use_sliding_window") and window:
        raise ModelError(f"{where}: use_sliding_window on some layers is not implemented; expected false")
    return None


def _checked_scaling(scaling: dict[str, Any] | None, where: str) -> dict[str, Any] | None:
    if not scaling:
        return None
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind not in ROPE_TYPES:
        raise ModelError(f"{where}: rope_type {kind!r} is not implemented; expected one of {', '.join(ROPE_TYPES)}")
    if kind == "default":
        return None
    needed = ["factor"]
    if kind == "llama3":
        needed += ["low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
    if absent := [key for key in needed if key not in scaling]:
        raise ModelError(f"{where}: rope_type {kind!r} needs {', '.join(absent)}")
    return {"rope_type": kind} | {key: scaling[key] for key in needed}


def hugging_face_config(architecture: Architecture, *, dtype: str) -> dict[str, Any]:
    """Return the config.json of `architecture`, in the form that transformers 4 and 5 both read."""
    config: dict[str, Any] = {
        "architectures": [CLASSES[architecture.model_type]],
        "model_type": architecture.model_type,
        "hidden_act": "silu",
        "dtype": dtype,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    own: dict[str, Any] = msgspec.to_builtins(architecture)
    own |= {"attention_bias": architecture.o_bias or (architecture.qkv_bias and architecture.model_type != "qwen2")}
    for switch in ("qkv_bias", "o_bias", "qk_norm"):
        del own[switch]
    if architecture.model_type != "mistral":
        del own["sliding_window"]
    return config | own
