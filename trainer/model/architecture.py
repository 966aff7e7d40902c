"""Sizes and switches of a model, and the config.json that says them to others."""

from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.models import Model, RopeScaling
from trainer.errors import ModelError
from trainer.model import gpt2
from trainer.model.families import CLASSES, read_config, read_document

SWITCHES: Final = ("qkv_bias", "o_bias", "qk_norm", "layer_norm", "learned_positions")
"""Fields that Hugging Face has no name for: they follow from the family."""


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
    rope_scaling: RopeScaling | None
    max_position_embeddings: int
    rms_norm_eps: float
    """Added to the mean square, or to the variance of a layer norm."""
    tie_word_embeddings: bool
    initializer_range: float = 0.02
    hidden_act: str = "silu"
    """silu: a gated feed-forward without biases; gelu, gelu_new: one with biases and no gate."""
    qkv_bias: bool = False
    """Bias on q, k and v."""
    o_bias: bool = False
    """Bias on the attention's output."""
    qk_norm: bool = False
    """RMS norm of each head of q and k, before positions."""
    layer_norm: bool = False
    """Layer norms with scale and shift instead of RMS norms."""
    learned_positions: bool = False
    """A vector for each position, added to the token's, instead of rotations."""
    sliding_window: int | None = None
    """Tokens a token sees, itself included; None: all before it."""


def new_architecture(model: Model, *, vocab_size: int) -> Architecture:
    """Return the architecture of a new model; `model.path` must be None."""
    heads, is_gpt2 = model.num_attention_heads, model.model_type == "gpt2"
    usual = 4 * model.hidden_size if is_gpt2 else -(-model.hidden_size * 8 // (3 * 64)) * 64
    return Architecture(
        model_type=model.model_type,
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size or usual,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=model.num_key_value_heads or heads,
        head_dim=model.head_dim or model.hidden_size // heads,
        rope_theta=model.rope_theta,
        rope_scaling=model.rope_scaling,
        max_position_embeddings=model.max_position_embeddings,
        rms_norm_eps=model.rms_norm_eps,
        tie_word_embeddings=model.tie_word_embeddings,
        initializer_range=model.initializer_range,
        hidden_act="gelu_new" if is_gpt2 else "silu",
        qkv_bias=is_gpt2 or model.model_type == "qwen2",
        o_bias=is_gpt2,
        qk_norm=model.model_type == "qwen3",
        layer_norm=is_gpt2,
        learned_positions=is_gpt2,
    )


def read_architecture(directory: Path) -> Architecture:
    """Return the architecture that DIRECTORY/config.json describes, as transformers 4 or 5 wrote it.

    Raises ModelError when it is absent, malformed, or asks for something that is not implemented.
    """
    path = directory / "config.json"
    document = read_document(path)
    if document["model_type"] == "gpt2":
        return _of_gpt2(gpt2.read_config(document, path))
    config = read_config(document, path)
    heads, head_dim = config.num_attention_heads, config.head_dim
    n_kv = config.num_key_value_heads or heads
    head_dim = head_dim or config.hidden_size // heads
    if heads % n_kv:
        raise ModelError(f"{path}: num_key_value_heads {n_kv} does not divide num_attention_heads {heads}")
    if head_dim < 2 or head_dim % 2:
        raise ModelError(f"{path}: heads are {head_dim} wide; rotary positions need an even width")
    theta, scaling = config.rope(path)
    family = config.model_type
    has_bias = bool(config.attention_bias) and family in ("llama", "qwen3")
    return Architecture(
        model_type=family,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=n_kv,
        head_dim=head_dim,
        rope_theta=theta,
        rope_scaling=scaling,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=config.tie_word_embeddings,
        initializer_range=config.initializer_range,
        qkv_bias=family == "qwen2" or has_bias,
        o_bias=has_bias,
        qk_norm=family == "qwen3",
        sliding_window=config.sliding_window if family == "mistral" else None,
    )


def _of_gpt2(config: gpt2.Config) -> Architecture:
    return Architecture(
        model_type="gpt2",
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        intermediate_size=config.n_inner or 4 * config.n_embd,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_head,
        head_dim=config.n_embd // config.n_head,
        rope_theta=10_000.0,
        rope_scaling=None,
        max_position_embeddings=config.n_positions,
        rms_norm_eps=config.layer_norm_epsilon,
        tie_word_embeddings=config.tie_word_embeddings,
        initializer_range=config.initializer_range,
        hidden_act=config.activation_function,
        qkv_bias=True,
        o_bias=True,
        layer_norm=True,
        learned_positions=True,
    )


def hugging_face_config(architecture: Architecture, *, dtype: str) -> dict[str, Any]:
    """Return the config.json of `architecture`, in the form that transformers 4 and 5 both read."""
    config: dict[str, Any] = {
        "architectures": [CLASSES[architecture.model_type]],
        "model_type": architecture.model_type,
        "dtype": dtype,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    own: dict[str, Any] = msgspec.to_builtins(architecture)
    if architecture.model_type == "gpt2":
        return config | {name: own[ours] for name, ours in gpt2.KEYS.items()} | gpt2.FIXED
    own |= {"attention_bias": architecture.o_bias or (architecture.qkv_bias and architecture.model_type != "qwen2")}
    for switch in SWITCHES:
        del own[switch]
    if architecture.model_type != "mistral":
        del own["sliding_window"]
    return config | own


def check_length(architecture: Architecture, longest: int, *, where: str) -> str | None:
    """Return what a person should know about conversations of up to `longest` tokens, or None when the model is made for them.

    `where` names what holds them. Raises ModelError when the model has no position for the last tokens: rotary positions
    go on for ever, learned ones end.
    """
    made_for = architecture.max_position_embeddings
    if longest <= made_for:
        return None
    if architecture.learned_positions:
        raise ModelError(
            f"{where}: the longest conversation has {longest} tokens, and a {architecture.model_type} model cannot read more "
            f"than the {made_for} positions it has learned (max_position_embeddings, n_positions). Set [pack] max_seq_len = "
            f"{made_for} or less and build the data again, or take a model with more positions"
        )
    return f"the longest conversation has {longest} tokens, the model is made for {made_for} (max_position_embeddings)"
