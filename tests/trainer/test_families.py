"""config.json of the families, hostile or incomplete, against what transformers makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from trainer.errors import ModelError
from trainer.model.architecture import read_architecture

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CONFIGS = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
}


def write(directory: Path, config: object) -> Path:
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("family", CONFIGS)
def test_what_a_config_leaves_out_is_as_in_transformers(family: str, tmp_path: Path) -> None:
    optional = ("rms_norm_eps", "tie_word_embeddings", "head_dim", "sliding_window", "initializer_range", "rope_theta")
    for left_out in (*SIZES, *optional):
        given = {key: value for key, value in SIZES.items() if key != left_out}
        theirs = CONFIGS[family](**given)
        ours = read_architecture(write(tmp_path, given | {"model_type": family}))
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            assert getattr(ours, name) == getattr(theirs, name), (left_out, name)
        for name in ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"):
            assert getattr(ours, name) == getattr(theirs, name), (left_out, name)
        head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
        assert ours.head_dim == head_dim, left_out
        assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
        assert ours.sliding_window == (theirs.sliding_window if family == "mistral" else None)


GPT2 = {"vocab_size": 97, "n_embd": 96, "n_layer": 2, "n_head": 8, "n_positions": 256, "n_inner": 48}


def test_what_gpt2_leaves_out_is_as_in_transformers(tmp_path: Path) -> None:
    for left_out in (*GPT2, "layer_norm_epsilon"):
        given = {key: value for key, value in GPT2.items() if key != left_out}
        theirs = transformers.GPT2Config(**given)
        ours = read_architecture(write(tmp_path, given | {"model_type": "gpt2"}))
        assert ours.vocab_size == theirs.vocab_size
        assert (ours.hidden_size, ours.num_hidden_layers) == (theirs.n_embd, theirs.n_layer)
        assert (ours.num_attention_heads, ours.head_dim) == (theirs.n_head, theirs.n_embd // theirs.n_head)
        assert ours.intermediate_size == (theirs.n_inner or 4 * theirs.n_embd)
        assert (ours.max_position_embeddings, ours.rms_norm_eps) == (theirs.n_positions, theirs.layer_norm_epsilon)
        assert (ours.hidden_act, ours.tie_word_embeddings) == ("gelu_new", theirs.tie_word_embeddings)


def test_gpt2_is_read_under_the_names_of_other_families_too(tmp_path: Path) -> None:
    aliases = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 8, "max_position_embeddings": 256}
    own = read_architecture(write(tmp_path, GPT2 | {"model_type": "gpt2"}))
    assert read_architecture(write(tmp_path, {"vocab_size": 97, "n_inner": 48, "model_type": "gpt2"} | aliases)) == own


def test_a_null_is_not_an_absent_key(tmp_path: Path) -> None:
    nulls = SIZES | {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": None}
    ours = read_architecture(write(tmp_path, nulls))
    assert (ours.sliding_window, ours.num_key_value_heads) == (None, 32)


def test_mistral_has_no_bias_whatever_its_config_says(tmp_path: Path) -> None:
    ours = read_architecture(write(tmp_path, SIZES | {"model_type": "mistral", "attention_bias": True}))
    assert (ours.qkv_bias, ours.o_bias) == (False, False)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([], "expected an object, got list"),
        ({"model_type": ["llama"]}, "model_type ['llama'] is not implemented"),
        ({"model_type": "bert"}, "expected one of llama, mistral, qwen2, qwen3, gpt2"),
        (SIZES | {"model_type": "llama", "vocab_size": "97"}, "Expected `int`, got `str` - at `$.vocab_size`"),
        (SIZES | {"model_type": "llama", "num_attention_heads": 0}, "`$.num_attention_heads`"),
        (SIZES | {"model_type": "llama", "num_key_value_heads": 5}, "5 does not divide num_attention_heads 32"),
        (SIZES | {"model_type": "llama", "head_dim": 3}, "heads are 3 wide"),
        (SIZES | {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": "x"}}, "`$.factor`"),
        (SIZES | {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": -1.0}}, "`$.factor`"),
        (SIZES | {"model_type": "llama", "rope_scaling": {"type": "llama3", "factor": 2.0}}, "needs low_freq_factor"),
        (SIZES | {"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn' is not"),
        (SIZES | {"model_type": "llama", "rope_theta": "big"}, "`$.rope_theta`"),
        (SIZES | {"model_type": "llama", "rope_parameters": {"rope_theta": -1}}, "rope_theta"),
        (SIZES | {"model_type": "llama", "quantization_config": {"bits": 4}}, "quantised weights cannot be trained"),
        (SIZES | {"model_type": "llama", "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        (SIZES | {"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window"),
        ({"model_type": "gpt2", "activation_function": "relu"}, "activation_function 'relu' is not implemented"),
        ({"model_type": "gpt2", "n_embd": 10, "n_head": 3}, "n_head 3 does not divide n_embd 10"),
        ({"model_type": "gpt2", "scale_attn_weights": False}, "scale_attn_weights = false is not implemented"),
        ({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is not"),
        ({"model_type": "gpt2", "reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is not implemented"),
        ({"model_type": "gpt2", "add_cross_attention": True}, "add_cross_attention is not implemented"),
        ({"model_type": "gpt2", "n_layer": "12"}, "Expected `int`, got `str` - at `$.n_layer`"),
        ({"model_type": "gpt2", "n_embd": 64, "hidden_size": 32}, "n_embd = 64 and hidden_size = 32 say two things"),
        ({"model_type": "gpt2", "quantization_config": {"bits": 8}}, "quantised weights cannot be trained"),
    ],
)
def test_a_config_that_cannot_be_used_is_an_error_with_its_path(config: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_architecture(write(tmp_path, config))
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "config.json"))
