"""config.json of the families, hostile or incomplete, against what transformers makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from trainer.errors import ModelError
from trainer.model.architecture import read_architecture
from trainer.model.families import CLASSES

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


@pytest.mark.parametrize("family", CLASSES)
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
        ({"model_type": "gpt2"}, "expected one of llama, mistral, qwen2, qwen3"),
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
    ],
)
def test_a_config_that_cannot_be_used_is_an_error_with_its_path(config: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_architecture(write(tmp_path, config))
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "config.json"))
