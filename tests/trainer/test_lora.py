"""Adapters: what they add, what they start as, where they go, and where they do not."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.models import Lora, Model
from schemas.settings import ConfigError
from tests.trainer.tiny import FAMILIES, shake, tiny_batch, tiny_model
from trainer import loss
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder
from trainer.model.linear import Linear
from trainer.model.lora import adapt, adapted_modules, adapter_tensors, merged_tensors, outer_names, own_parameters
from trainer.trainable import select

THE_BOOKS = ("q_proj", "k_proj", "v_proj", "c_proj", "c_fc", "lm_head")
"""Every Linear of the GPT-2 of `Build a Large Language Model (From Scratch)`, which keeps q, k and v apart."""


def gpt2_on_meta(hidden: int, layers: int, heads: int) -> Decoder:
    sizes = Model(
        model_type="gpt2",
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return Decoder(new_architecture(sizes, vocab_size=50_257))


def test_the_book_s_counts_on_gpt2_medium() -> None:
    model = gpt2_on_meta(1024, 24, 16)
    adapt(model, Lora(rank=16, targets=THE_BOOKS), seed=0)
    learning = select(model, None)
    assert (learning.n_learning, learning.n_own) == (7_898_384, 406_286_336)
    assert learning.lines()[0] == (
        "7,898,384 of 414,184,720 parameters learn (1.91%); the model itself has 406,286,336, its adapters of rank 16 7,898,384"
    )


def test_the_book_s_count_on_gpt2_small_with_a_head_of_two_classes() -> None:
    model = gpt2_on_meta(768, 12, 12)
    model.lm_head = Linear(768, 2, bias=False, device="meta")
    adapt(model, Lora(rank=16, targets=THE_BOOKS), seed=0)
    assert select(model, None).n_learning == 2_666_528
    assert all(not parameter.requires_grad for parameter in own_parameters(model).values())


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_change_nothing_before_they_learn_and_then_add_scaled_b_a_x(family: str) -> None:
    model = tiny_model(family, tie_word_embeddings=False).double()
    ids_T, lengths = torch.arange(30) % 50, (12, 18)
    before = model.logits(ids_T, lengths)
    own = {name: tensor.clone() for name, tensor in own_parameters(model).items()}
    targets = ("q_proj", "v_proj", "mlp", "lm_head")
    adapt(model, Lora(rank=3, alpha=12.0, targets=targets), seed=0)
    model.double()
    assert torch.equal(model.logits(ids_T, lengths), before)
    select(model, None)
    shake(model)
    changed = model.logits(ids_T, lengths)
    assert (changed - before).abs().max() > 0.1

    # the same by hand: each part's rows get 12 / 3 · B A
    tensors = dict(adapter_tensors(model).values())
    plain = tiny_model(family, tie_word_embeddings=False).double()
    adapted = dict(adapted_modules(model))
    with torch.no_grad():
        for name, parameter in own.items():
            target = plain.get_parameter(name)
            target.copy_(parameter)
            for part in adapted[name.removesuffix(".weight")].parts if name.removesuffix(".weight") in adapted else ():
                if name.endswith(".weight"):
                    a, b = tensors[f"{part.name}.lora_A.weight"], tensors[f"{part.name}.lora_B.weight"]
                    target[part.start : part.stop] += 4.0 * b @ a
    assert torch.allclose(plain.logits(ids_T, lengths), changed, rtol=0, atol=1e-12)
    for name, tensor in merged_tensors(model):
        assert torch.allclose(tensor, plain.get_parameter(name), rtol=0, atol=1e-14), name


def test_a_start_follows_from_seed_and_name_alone() -> None:
    one, other, reseeded = tiny_model(), tiny_model(), tiny_model()
    adapt(one, Lora(rank=4, targets=("v_proj",)), seed=1)
    adapt(other, Lora(rank=4, targets=("all-linear",)), seed=1)
    adapt(reseeded, Lora(rank=4, targets=("v_proj",)), seed=2)
    name = "layers.1.self_attn.qkv_proj.lora_A.v_proj"
    assert torch.equal(one.get_parameter(name), other.get_parameter(name))
    assert not torch.equal(one.get_parameter(name), reseeded.get_parameter(name))
    assert not torch.equal(one.get_parameter(name), one.get_parameter(name.replace("1", "0")))


def test_a_starts_uniform_within_kaiming_s_bound_and_b_at_zero() -> None:
    model = tiny_model()
    adapt(model, Lora(rank=64, targets=("down_proj",)), seed=0)
    module = next(module for _, module in adapted_modules(model))
    (a,), (b,) = module.lora_A.values(), module.lora_B.values()
    bound = 1 / math.sqrt(module.in_features)
    reference = nn.init.kaiming_uniform_(torch.empty_like(a), a=math.sqrt(5))
    assert a.abs().max() <= bound
    assert a.abs().max() > 0.99 * bound
    assert abs(a.std().item() - reference.std().item()) < 0.05 * bound
    assert not b.any()
    assert (a.dtype, b.dtype) == (torch.float32, torch.float32)


def test_all_linear_is_every_matrix_of_the_blocks_as_hugging_face_names_them() -> None:
    def parts(family: str, *targets: str) -> list[str]:
        model = tiny_model(family, tie_word_embeddings=False)
        adapt(model, Lora(rank=2, targets=targets), seed=0)
        return [part.name for _, module in adapted_modules(model) for part in module.parts if "1" in part.name]

    llama = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    llama += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert parts("llama", "all-linear") == [f"model.layers.1.{name}" for name in llama]
    gpt2 = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert parts("gpt2", "all-linear") == [f"transformer.h.1.{name}" for name in gpt2]
    assert parts("gpt2", "attn") == [f"transformer.h.1.{name}" for name in gpt2[:2]]
    thirds = ("attn.q_proj", "attn.k_proj", "attn.v_proj")
    assert parts("gpt2", "[qkv]_proj") == [f"transformer.h.1.{name}" for name in thirds]
    assert parts("gpt2", r"mlp\.c_proj$", "q_proj") == ["transformer.h.1.attn.q_proj", "transformer.h.1.mlp.c_proj"]


def test_what_cannot_be_targeted_is_refused() -> None:
    def refusal(model: Decoder, *targets: str) -> str:
        with pytest.raises(ConfigError) as caught:
            adapt(model, Lora(rank=2, targets=targets), seed=0)
        assert not list(adapted_modules(model))
        return str(caught.value)

    assert "'lm_head' matches lm_head, which is the embedding table of this model" in refusal(tiny_model(), "lm_head")
    said = refusal(tiny_model(), "q_proj", "gate_prj")
    assert said == "[lora] targets: 'gate_prj' matches no matrix; did you mean gate_proj?"
    assert "did you mean c_attn" in refusal(tiny_model("gpt2"), "c_atn")
    assert "'embed_tokens' matches no matrix" in refusal(tiny_model(), "embed_tokens")
    assert "norm' matches no matrix" in refusal(tiny_model(), "norm")
    said = refusal(tiny_model("gpt2"), "all-linear", "v_proj")
    assert "c_attn, v_proj of transformer.h.0.attn.c_attn would each get an adapter, and they overlap" in said
    assert "is no regular expression" in refusal(tiny_model(), "(q_proj")


def gradients(model: Decoder, value: Tensor) -> dict[str, Tensor]:
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(value, list(learning.values()))
    return dict(zip(learning, found, strict=True))


def by_plain_autograd(model: Decoder, batch: Batch, z_loss: float) -> Tensor:
    logits = model.logits(batch.input_ids_T, batch.lengths)[batch.rows_S]
    rows = functional.cross_entropy(logits, batch.targets_S, reduction="none") + z_loss * logits.logsumexp(1) ** 2
    return rows @ batch.weights_S.to(rows.dtype)


@pytest.mark.parametrize(("family", "trainable"), [("llama", None), ("gpt2", None), ("qwen2", ("head", "norms"))])
def test_the_head_s_adapter_goes_through_the_chunks(
    family: str, trainable: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK", 7)
    model = tiny_model(family, tie_word_embeddings=False)
    adapt(model, Lora(rank=3, alpha=5.0, targets=("all-linear", "lm_head")), seed=0)
    select(model, trainable)
    shake(model)
    model.double()
    batch = tiny_batch(20, 9, 14)
    found, value = model(batch, 1e-2).objective, by_plain_autograd(model, batch, 1e-2)
    assert torch.allclose(found, value, rtol=1e-13)
    expected = gradients(model, value)
    for name, gradient in gradients(model, found).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-11, atol=1e-12), name
    rows = functional.cross_entropy(
        model.logits(batch.input_ids_T, batch.lengths)[batch.rows_S], batch.targets_S, reduction="none"
    )
    assert torch.allclose(model.row_losses(batch), rows, rtol=1e-12)


def test_a_frozen_head_gets_no_gradient_and_its_adapter_does() -> None:
    model = tiny_model(tie_word_embeddings=False)
    adapt(model, Lora(rank=3, targets=("lm_head",)), seed=0)
    select(model, None)
    model(tiny_batch(12)).objective.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == {
        "lm_head.lora_A.lm_head",
        "lm_head.lora_B.lm_head",
    }


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_dropout_is_the_same_however_packs_are_put_into_batches(family: str) -> None:
    model = tiny_model(family, tie_word_embeddings=False)
    targets = ("q_proj", "v_proj", "mlp", "lm_head")
    adapt(model, Lora(rank=3, dropout=0.4, targets=targets), seed=0)
    select(model, None)
    shake(model)
    model.double()
    together = model(tiny_batch(20, 9, 14, step=3)).objective
    apart = sum(model(tiny_batch(n, first_pack=i, step=3)).objective for i, n in enumerate((20, 9, 14)))
    assert torch.allclose(together, apart, rtol=1e-12)
    expected = gradients(model, together)
    for name, gradient in gradients(model, apart).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-9, atol=1e-11), name
    assert abs(together - model(tiny_batch(20, 9, 14, step=4)).objective) > 1e-3
    assert abs(together - model(tiny_batch(20, 9, 14)).objective) > 1e-3


def test_dropout_concerns_only_what_goes_into_the_adapters() -> None:
    model = tiny_model(tie_word_embeddings=False).double()
    batch = tiny_batch(20, 9, step=1)
    before = model(batch).objective
    adapt(model, Lora(rank=3, dropout=0.9, targets=("all-linear", "lm_head")), seed=0)
    model.double()  # B is 0, so whatever goes in adds nothing
    assert torch.equal(model(batch).objective, before)


def test_every_parameter_has_the_names_that_others_know_it_by() -> None:
    model = tiny_model()
    adapt(model, Lora(rank=2, targets=("k_proj",)), seed=0)
    names = outer_names(model)
    assert set(names) == {name for name, _ in model.named_parameters()}
    assert names["layers.0.self_attn.qkv_proj.weight"] == {
        "model.layers.0.self_attn.q_proj.weight": 1024,
        "model.layers.0.self_attn.k_proj.weight": 512,
        "model.layers.0.self_attn.v_proj.weight": 512,
    }
    assert names["layers.0.self_attn.qkv_proj.lora_B.k_proj"] == {"model.layers.0.self_attn.k_proj.lora_B.weight": 32}
