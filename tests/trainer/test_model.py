"""Logits of every family against transformers, one document at a time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import transformers
from torch import Tensor

from schemas.models import Model, RopeScaling
from trainer.errors import ModelError
from trainer.model import dropout
from trainer.model.architecture import check_length, new_architecture, read_architecture
from trainer.model.decoder import Cache, Decoder, initialise, untie
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


@pytest.mark.parametrize("name", ["llama", "mistral, window of 8", "gpt2"])
def test_the_end_of_the_last_block_is_computed_for_wanted_rows_alone_and_drops_what_it_would(
    name: str, tmp_path: Path
) -> None:
    reference_model(name).save_pretrained(tmp_path)
    model = load_pretrained(tmp_path, vocab_size=97)[0].double()
    model.dropout = 0.3
    n_tokens = sum(LENGTHS)
    seen: list[int] = []
    for block in model.layers:
        block.get_submodule("mlp").register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    ids, positions = torch.arange(n_tokens) % 97, torch.cat([torch.arange(n) for n in LENGTHS])
    keys = torch.from_numpy(dropout.keys(seed=1, step=2, packs=[3], sizes=[n_tokens]))
    for rows in (torch.tensor([0, 36, 37, 80, 131]), torch.tensor([], dtype=torch.int64)):
        whole = model.hidden(ids, positions, LENGTHS, dropout_keys_T=keys)
        some = model.hidden(ids, positions, LENGTHS, dropout_keys_T=keys, rows_S=rows)
        assert torch.allclose(some, whole[rows], rtol=1e-12, atol=1e-12)
        assert seen[2:] == [n_tokens, len(rows)]
        seen.clear()


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_a_sharded_checkpoint_loads_as_a_whole_one(name: str, tmp_path: Path) -> None:
    reference = reference_model(name)
    reference.save_pretrained(tmp_path / "whole")
    reference.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    whole, sharded = (load_pretrained(tmp_path / name, vocab_size=97)[0] for name in ("whole", "sharded"))
    for (tensor, a), (_, b) in zip(whole.named_parameters(), sharded.named_parameters(), strict=True):
        assert torch.equal(a, b), tensor


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


def test_learned_positions_end_where_they_end(tmp_path: Path) -> None:
    reference_model("gpt2").save_pretrained(tmp_path)  # 96 positions
    model, _ = load_pretrained(tmp_path, vocab_size=97)
    ids = torch.arange(97)
    with torch.no_grad(), pytest.raises(ModelError, match="a conversation of 97 tokens: this model has learned 96 pos"):
        model.hidden(ids, ids, (97,))
    cache = Cache(2)
    with torch.no_grad():
        model.hidden(ids[:95], ids[:95], (95,), cache)
        model.hidden(ids[95:96], ids[95:96], (1,), cache)
        with pytest.raises(ModelError, match="97 tokens"):
            model.hidden(ids[96:], ids[96:], (1,), cache)
        assert model.hidden(ids, torch.cat((ids[:96], ids[:1])), (96, 1)).shape == (97, 32)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_conversations_longer_than_the_model_are_told_or_refused(family: str) -> None:
    architecture = new_architecture(Model(model_type=family, max_position_embeddings=64), vocab_size=9)
    assert check_length(architecture, 64, where="runs/x/pack") is None
    if family == "llama":
        notice = "the longest conversation has 65 tokens, the model is made for 64 (max_position_embeddings)"
        assert check_length(architecture, 65, where="runs/x/pack") == notice
        return
    with pytest.raises(ModelError) as caught:
        check_length(architecture, 65, where="runs/x/pack")
    assert str(caught.value).startswith(
        "runs/x/pack: the longest conversation has 65 tokens, and a gpt2 model cannot read"
    )
    assert "Set [pack] max_seq_len = 64 or less" in str(caught.value)


def test_a_new_gpt2_starts_as_its_authors_began() -> None:
    sizes = Model(model_type="gpt2", hidden_size=64, num_attention_heads=4, num_hidden_layers=8, initializer_range=0.02)
    model = Decoder(new_architecture(sizes, vocab_size=300))
    initialise(model, seed=0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(
                parameter, torch.full_like(parameter, float("norm" in name and name.endswith("weight")))
            ), name
            continue
        # 16 matrices are added to the residual stream, two of each layer
        expected = 0.02 / 4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
        assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.1), name
    assert model.architecture.intermediate_size == 256


def test_gpt2_small_has_as_many_weights_as_the_published_one() -> None:
    with torch.device("meta"):
        sizes = Model(model_type="gpt2", hidden_size=768, num_attention_heads=12, num_hidden_layers=12)
        model = Decoder(
            new_architecture(msgspec.structs.replace(sizes, max_position_embeddings=1024), vocab_size=50_257)
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808


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


def test_an_untied_head_starts_as_the_table_and_then_goes_its_own_way() -> None:
    model = Decoder(new_architecture(Model(hidden_size=32, num_attention_heads=2), vocab_size=40))
    initialise(model, seed=0)
    ids_T = torch.arange(7)
    before = model.logits(ids_T, [7])
    untie(model)
    assert model.architecture.tie_word_embeddings is False
    assert torch.equal(model.logits(ids_T, [7]), before)
    with torch.no_grad():
        model.head_VC.zero_()
    assert model.embed_tokens.weight.abs().sum() > 0
    own = model.lm_head
    untie(model)
    assert model.lm_head is own
