"""Logits of every family against transformers, one document at a time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from schemas.models import Model, RopeScaling
from trainer.model.architecture import new_architecture, read_architecture
from trainer.model.decoder import Cache, Decoder, initialise
from trainer.model.weights import load_pretrained

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GPT2: dict[str, Any] = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": transformers.LlamaConfig(**SIZES, tie_word_embeddings=False),
    "llama tied, llama3 positions": transformers.LlamaConfig(
        **SIZES, tie_word_embeddings=True, rope_scaling=dict(LLAMA3)
    ),
    "llama, linear positions": transformers.LlamaConfig(**SIZES, rope_scaling={"rope_type": "linear", "factor": 4.0}),
    "llama, attention bias": transformers.LlamaConfig(**SIZES, attention_bias=True),
    "mistral": transformers.MistralConfig(**SIZES, head_dim=16, sliding_window=None, rope_theta=1e6),
    "mistral, window of 8": transformers.MistralConfig(**SIZES, sliding_window=8),
    "qwen2": transformers.Qwen2Config(**SIZES),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
    "gpt2": transformers.GPT2Config(**GPT2),
    "gpt2, untied, exact gelu": transformers.GPT2Config(
        **GPT2, n_inner=48, tie_word_embeddings=False, activation_function="gelu", layer_norm_epsilon=1e-3
    ),
}
LENGTHS = (37, 1, 90, 5)


def reference_model(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[name], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # so that a forgotten bias, norm or scale shows
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def reference_logits(model: transformers.PreTrainedModel, ids: Tensor, lengths: Sequence[int]) -> Tensor:
    return torch.cat([model(document[None]).logits[0] for document in ids.split(list(lengths))])


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_logits_equal_transformers_one_document_at_a_time(name: str, tmp_path: Path) -> None:
    reference = reference_model(name)
    reference.save_pretrained(tmp_path)
    model, notices = load_pretrained(tmp_path, vocab_size=97)
    ids = torch.randint(0, 97, (sum(LENGTHS),), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        difference = (model.logits(ids, LENGTHS) - reference_logits(reference, ids, LENGTHS)).abs().max()
    assert difference <= 1e-5
    assert notices == []


def test_a_sharded_checkpoint_loads_as_a_whole_one(tmp_path: Path) -> None:
    reference = reference_model("qwen2")
    reference.save_pretrained(tmp_path / "whole")
    reference.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    whole, sharded = (load_pretrained(tmp_path / name, vocab_size=97)[0] for name in ("whole", "sharded"))
    for (name, a), (_, b) in zip(whole.named_parameters(), sharded.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_vocabulary_smaller_than_the_tokenizer_s_grows_by_the_mean_and_says_so(tmp_path: Path) -> None:
    reference_model("llama").save_pretrained(tmp_path)
    old, _ = load_pretrained(tmp_path, vocab_size=97)
    new, notices = load_pretrained(tmp_path, vocab_size=100)
    assert notices == [
        "embeddings resized from 97 to 100 rows to fit the tokenizer; each new row starts as the mean of the old ones"
    ]
    for rows, grown in ((old.embed_tokens.weight, new.embed_tokens.weight), (old.head_VC, new.head_VC)):
        assert torch.equal(grown[:97], rows)
        assert torch.allclose(grown[97:], rows.mean(0).expand(3, -1), atol=1e-6)


@pytest.mark.parametrize("name", ["qwen3", "mistral, window of 8", "llama tied, llama3 positions", "gpt2"])
def test_reading_token_by_token_with_a_cache_gives_the_same_states(name: str, tmp_path: Path) -> None:
    reference_model(name).save_pretrained(tmp_path)
    model, _ = load_pretrained(tmp_path, vocab_size=97)
    ids, at = torch.arange(30) * 3, torch.arange(30)
    cache = Cache(2)
    with torch.no_grad():
        whole = model.hidden(ids, at, (30,))
        pieces = [model.hidden(ids[a:b], at[a:b], (b - a,), cache) for a, b in ((0, 11), (11, 12), (12, 20), (20, 30))]
    assert cache.lengths == [30]
    assert torch.allclose(torch.cat(pieces), whole, atol=1e-5)


def test_documents_of_a_pack_do_not_see_each_other() -> None:
    model = Decoder(new_architecture(Model(hidden_size=16, num_attention_heads=2), vocab_size=50))
    initialise(model, seed=0)
    ids = torch.arange(20)
    changed = ids.clone()
    changed[:8] = 49
    with torch.no_grad():
        assert torch.equal(model.logits(ids, (8, 12))[8:], model.logits(changed, (8, 12))[8:])


def test_the_same_seed_gives_the_same_model() -> None:
    architecture = new_architecture(Model(hidden_size=16, num_attention_heads=2), vocab_size=50)
    models = [Decoder(architecture) for _ in range(3)]
    for model, seed in zip(models, (3, 3, 4), strict=True):
        initialise(model, seed=seed)
    assert torch.equal(models[0].embed_tokens.weight, models[1].embed_tokens.weight)
    assert not torch.equal(models[0].embed_tokens.weight, models[2].embed_tokens.weight)


def test_a_config_of_transformers_5_and_4_read_alike(tmp_path: Path) -> None:
    config = FAMILIES["llama tied, llama3 positions"]
    config.save_pretrained(tmp_path)
    new_style = read_architecture(tmp_path)
    assert new_style.rope_scaling == RopeScaling(**LLAMA3)
    old_style = config.to_dict()
    old_style.pop("rope_parameters")
    (tmp_path / "config.json").write_text(json.dumps(old_style | {"rope_theta": 10000.0, "rope_scaling": LLAMA3}))
    assert read_architecture(tmp_path) == new_style
