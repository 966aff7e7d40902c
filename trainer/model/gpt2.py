"""config.json of GPT-2, which has keys of its own; what it leaves out is as in transformers."""

from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from schemas.models import Positive, Unit
from trainer.errors import ModelError

ALIASES: Final = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
"""Names of other families that transformers takes for GPT-2's own."""
KEYS: Final = MappingProxyType(
    {
        "vocab_size": "vocab_size",
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
        "n_inner": "intermediate_size",
        "activation_function": "hidden_act",
        "layer_norm_epsilon": "rms_norm_eps",
        "initializer_range": "initializer_range",
        "tie_word_embeddings": "tie_word_embeddings",
    }
)
"""What is written to config.json, and which field of Architecture it is."""
FIXED: Final = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
"""Written as well: whoever trains the export on leaves something out only if they ask for it; transformers' own is 0.1."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What config.json says, as far as it concerns the arithmetic; keys that do not are passed over."""

    vocab_size: Positive = 50_257
    n_positions: Positive = 1024
    n_embd: Positive = 768
    n_layer: Positive = 12
    n_head: Positive = 12
    n_inner: Positive | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: Unit = 1e-5
    initializer_range: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.02
    tie_word_embeddings: bool = True
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    add_cross_attention: bool = False


def read_config(document: dict[str, Any], path: Path) -> Config:
    """Return what a config.json of GPT-2 says. Raises ModelError if that is malformed or not implemented."""
    given = dict(document)
    for alias, name in ALIASES.items():
        if alias in given and given.setdefault(name, given[alias]) != given[alias]:
            raise ModelError(
                f"{path}: {name} = {given[name]!r} and {alias} = {given[alias]!r} say two things; drop one"
            )
    try:
        config = msgspec.convert(given, Config)
    except msgspec.ValidationError as error:
        raise ModelError(f"{path}: {error}") from None
    wrong = None
    if config.activation_function not in ("gelu_new", "gelu"):
        wrong = f"activation_function {config.activation_function!r} is not implemented; expected 'gelu_new' or 'gelu'"
    elif config.n_embd % config.n_head:
        wrong = f"n_head {config.n_head} does not divide n_embd {config.n_embd}"
    elif not config.scale_attn_weights:
        wrong = "scale_attn_weights = false is not implemented; expected true"
    else:
        switches = ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention")
        on = [name for name in switches if getattr(config, name)]
        if on:
            wrong = f"{on[0]} is not implemented; expected false"
    if wrong:
        raise ModelError(f"{path}: {wrong}")
    return config
