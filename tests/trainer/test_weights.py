"""Weights from a directory: all of them, of a type that can be trained, once in memory."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import Tensor

from schemas.models import Model
from trainer.errors import ModelError
from trainer.model.architecture import hugging_face_config, new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.model.layout import to_hugging_face
from trainer.model.weights import load_pretrained


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = Decoder(new_architecture(Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=1), vocab_size=20))
    initialise(model, seed=0)
    tensors = to_hugging_face({name: p.detach() for name, p in model.named_parameters()}, model.architecture)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(hugging_face_config(model.architecture, dtype="float32")))
    return tmp_path


def change(directory: Path, **tensors: Tensor) -> None:
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    path = directory / "model.safetensors"
    save_file(load_file(path) | named, path)


def test_a_weight_without_a_place_is_refused_by_name(directory: Path) -> None:
    change(directory, model__layers__0__self_attn__q_proj__bias=torch.zeros(16))
    with pytest.raises(
        ModelError, match=r"no place for: model\.layers\.0\.self_attn\.q_proj\.bias; they would be lost"
    ):
        load_pretrained(directory, vocab_size=20)


def test_frequencies_and_a_tied_head_are_no_weights(directory: Path) -> None:
    change(
        directory,
        model__layers__0__self_attn__rotary_emb__inv_freq=torch.zeros(4),
        lm_head__weight=load_file(directory / "model.safetensors")["model.embed_tokens.weight"].clone(),
    )
    assert load_pretrained(directory, vocab_size=20)[1] == []


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused_by_name(dtype: torch.dtype, directory: Path) -> None:
    change(directory, model__norm__weight=torch.ones(16).to(dtype))
    with pytest.raises(
        ModelError, match=rf"quantised weights cannot be trained: model\.norm\.weight \({dtype}".replace("torch.", "")
    ):
        load_pretrained(directory, vocab_size=20)


@pytest.mark.parametrize("text", ["{}", "[]", '{"weight_map": {"a": 1}}', "{"])
def test_an_index_without_a_map_is_named(text: str, directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json: not an index of weights"):
        load_pretrained(directory, vocab_size=20)


def test_parts_that_do_not_fit_are_named(directory: Path) -> None:
    change(directory, model__layers__0__self_attn__k_proj__weight=torch.zeros(16, 8))
    with pytest.raises(ModelError, match=r"the parts of layers\.0\.self_attn\.qkv_proj\.weight do not fit"):
        load_pretrained(directory, vocab_size=20)


def test_parts_of_wrong_sizes_that_make_a_whole_of_the_right_one_are_refused(directory: Path) -> None:
    q, k = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qk")
    tensors = load_file(directory / "model.safetensors")
    change(directory, **{q: tensors[q][:8].clone(), k: torch.cat((tensors[k], tensors[q][8:]))})
    with pytest.raises(ModelError, match=r"qkv_proj.weight do not fit each other: \(8, 16\).*\[16, 16, 16\] rows"):
        load_pretrained(directory, vocab_size=0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(wrong: float, directory: Path) -> None:
    rows = load_file(directory / "model.safetensors")["model.embed_tokens.weight"]
    change(directory, **{"model.embed_tokens.weight": rows * 1e38})  # whose sum may be infinite though no weight is
    load_pretrained(directory, vocab_size=0)
    rows[3, 5] = wrong
    change(directory, **{"model.embed_tokens.weight": rows})
    with pytest.raises(ModelError, match=r"no numbers \(NaN or infinite\): model.embed_tokens.weight; the model had"):
        load_pretrained(directory, vocab_size=0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("model.safetensors", "pytorch_model.bin", "weights in pickles are not read"),
        ("config.json", "adapter_config.json", "adapters without their model; merge them"),
    ],
)
def test_what_is_there_instead_of_a_model_is_said(old: str, new: str, said: str, directory: Path) -> None:
    (directory / old).rename(directory / new)
    with pytest.raises(ModelError, match=said):
        load_pretrained(directory, vocab_size=0)


def test_no_random_weights_are_made_to_be_thrown_away(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Tensor:
        raise AssertionError("a weight was initialised")

    monkeypatch.setattr(
        torch.nn.init, "kaiming_uniform_", lambda tensor, *_, **__: tensor if tensor.is_meta else refuse()
    )
    monkeypatch.setattr(torch.nn.init, "normal_", lambda tensor, *_, **__: tensor if tensor.is_meta else refuse())
    model, _ = load_pretrained(directory, vocab_size=20)
    assert all(p.device.type == "cpu" and p.requires_grad and p.is_leaf for p in model.parameters())
    assert model.frequencies.device.type == "cpu"


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    sizes = Model(model_type="gpt2", hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    model = Decoder(new_architecture(sizes, vocab_size=20))
    initialise(model, seed=0)
    tensors = to_hugging_face({name: p.detach() for name, p in model.named_parameters()}, model.architecture)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(hugging_face_config(model.architecture, dtype="float32")))
    return tmp_path


def test_gpt2_s_matrices_lie_transposed_under_hugging_face_s_names(gpt2: Path) -> None:
    stored = load_file(gpt2 / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items() if ".h." in name or "w" in name[12:15]} == {
        "transformer.wte.weight": (20, 16),
        "transformer.wpe.weight": (4096, 16),
        "transformer.h.0.ln_1.weight": (16,),
        "transformer.h.0.ln_1.bias": (16,),
        "transformer.h.0.attn.c_attn.weight": (16, 48),
        "transformer.h.0.attn.c_attn.bias": (48,),
        "transformer.h.0.attn.c_proj.weight": (16, 16),
        "transformer.h.0.attn.c_proj.bias": (16,),
        "transformer.h.0.ln_2.weight": (16,),
        "transformer.h.0.ln_2.bias": (16,),
        "transformer.h.0.mlp.c_fc.weight": (16, 64),
        "transformer.h.0.mlp.c_fc.bias": (64,),
        "transformer.h.0.mlp.c_proj.weight": (64, 16),
        "transformer.h.0.mlp.c_proj.bias": (16,),
    }
    model, _ = load_pretrained(gpt2, vocab_size=20)
    block = model.layers[0]
    assert torch.equal(block.self_attn.o_proj.weight, stored["transformer.h.0.attn.c_proj.weight"].T)
    assert block.self_attn.o_proj.weight.is_contiguous()


def test_the_first_gpt2_checkpoints_lack_the_prefix_and_hold_masks(gpt2: Path) -> None:
    new, _ = load_pretrained(gpt2, vocab_size=20)
    old = {name.removeprefix("transformer."): t for name, t in load_file(gpt2 / "model.safetensors").items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(old, gpt2 / "model.safetensors")
    model, notices = load_pretrained(gpt2, vocab_size=20)
    assert notices == []
    for (name, a), (_, b) in zip(new.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_weight_with_and_without_its_prefix_is_refused(gpt2: Path) -> None:
    change(gpt2, wpe__weight=torch.zeros(4096, 16))
    with pytest.raises(ModelError, match=r"transformer\.wpe\.weight is there twice, with and without its prefix"):
        load_pretrained(gpt2, vocab_size=20)


def test_gpt2_without_its_positions_or_with_too_few_is_refused(gpt2: Path) -> None:
    stored = load_file(gpt2 / "model.safetensors")
    del stored["transformer.wpe.weight"]
    save_file(stored, gpt2 / "model.safetensors")
    with pytest.raises(ModelError, match=r"weights of a gpt2 model are missing: transformer\.wpe\.weight"):
        load_pretrained(gpt2, vocab_size=20)
    change(gpt2, transformer__wpe__weight=torch.zeros(8, 16))
    with pytest.raises(
        ModelError, match=r"embed_positions\.weight has shape \(8, 16\), config\.json says \(4096, 16\)"
    ):
        load_pretrained(gpt2, vocab_size=20)


def write_tokenizer(directory: Path, *tokens: str) -> None:
    Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="a")).save(
        str(directory / "tokenizer.json")
    )


def test_added_tokens_beyond_the_model_get_the_mean_of_its_rows(directory: Path) -> None:
    old = load_file(directory / "model.safetensors")["model.embed_tokens.weight"]
    model, notices = load_pretrained(directory, vocab_size=22, added_tokens={"<a>": 20, "<b>": 21})
    assert notices == [
        "embeddings resized from 20 to 22 rows for the added tokens <a>, <b>; each new row starts as the mean of the old ones"
    ]
    assert torch.equal(model.embed_tokens.weight[:20], old)
    assert torch.allclose(model.embed_tokens.weight[20:], old.mean(0).expand(2, -1), atol=1e-7)
    assert model.head_VC is model.embed_tokens.weight


def test_a_spare_row_of_the_model_is_made_the_mean_of_those_in_use(directory: Path) -> None:
    write_tokenizer(directory, *"abcdefghijklmnopq")  # 17 tokens, 20 rows
    old = load_file(directory / "model.safetensors")["model.embed_tokens.weight"]
    model, notices = load_pretrained(directory, vocab_size=18, added_tokens={"<a>": 17})
    assert notices == ["spare rows of the embeddings start as the mean of those in use, for the added tokens <a>"]
    expected = old.clone()
    expected[17] = old[:17].mean(0)
    assert torch.allclose(model.embed_tokens.weight, expected, atol=1e-7)


def test_spare_rows_and_new_ones_are_alike(directory: Path) -> None:
    write_tokenizer(directory, *"abcdefghijklmnopqrs")  # 19 tokens, 20 rows
    old = load_file(directory / "model.safetensors")["model.embed_tokens.weight"]
    model, notices = load_pretrained(directory, vocab_size=21, added_tokens={"<a>": 19, "<b>": 20})
    assert notices[0].startswith("embeddings resized from 20 to 21 rows for the added tokens <a>, <b>")
    assert torch.allclose(model.embed_tokens.weight[19:], old[:19].mean(0).expand(2, -1), atol=1e-7)


@pytest.mark.parametrize("tokens", [None, (*"abcdefghijklmnopq", "<a>"), (*"abcdefghijklmnopq", "<other>")])
def test_a_row_that_may_have_been_trained_stays(tokens: tuple[str, ...] | None, directory: Path) -> None:
    if tokens is not None:
        write_tokenizer(directory, *tokens)
    old = load_file(directory / "model.safetensors")["model.embed_tokens.weight"]
    model, notices = load_pretrained(directory, vocab_size=18, added_tokens={"<a>": 17})
    assert notices == []
    assert torch.equal(model.embed_tokens.weight, old)
