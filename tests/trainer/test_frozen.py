"""Weights that do not learn: half the memory, the same arithmetic, all bits back, and a hash that knows them."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from schemas.models import Lora
from schemas.training import Trainable
from tests.trainer.tiny import FAMILIES, shake, tiny_batch, tiny_model
from trainer.frozen import fingerprint, narrow, widen
from trainer.model.decoder import Decoder
from trainer.model.lora import adapt
from trainer.trainable import select


def gradients(model: Decoder) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(tiny_batch(20, 13)).objective
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(learning.values()))
    return loss, dict(zip(learning, found, strict=True))


@pytest.mark.parametrize("is_stored_in_bfloat16", [False, True])
@pytest.mark.parametrize(
    ("family", "rank", "trainable"),
    [*((family, 4, None) for family in FAMILIES), ("qwen2", 0, ("last_block", "biases")), ("gpt2", 0, "norms")],
)
@pytest.mark.parametrize("is_tied", [False, True])
def test_half_the_memory_changes_no_bit_of_what_is_computed(
    family: str, rank: int, trainable: Trainable | None, is_tied: bool, is_stored_in_bfloat16: bool
) -> None:
    model = tiny_model(family, tie_word_embeddings=is_tied)
    if is_stored_in_bfloat16:
        for parameter in model.parameters():
            parameter.data = parameter.to(torch.bfloat16).float()
    if rank:
        adapt(model, Lora(rank=rank), seed=0)
    select(model, trainable)
    shake(model)
    other = copy.deepcopy(model)
    narrowed = narrow(other, torch.bfloat16)
    assert set(narrowed.rests) == (set() if is_stored_in_bfloat16 else set(narrowed.names))
    dtypes = {name: parameter.dtype for name, parameter in other.named_parameters()}
    frozen = {name: p for name, p in other.named_parameters() if not p.requires_grad}
    tables = {"embed_tokens.weight", "embed_positions.weight"}
    for name, parameter in other.named_parameters():
        is_narrow = name in frozen and parameter.dim() > 1 and (is_stored_in_bfloat16 or name not in tables)
        assert dtypes[name] == (torch.bfloat16 if is_narrow else torch.float32), name
    loss, found = gradients(model)
    same, others = gradients(other)
    assert torch.equal(loss, same)
    assert found.keys() == others.keys()
    for name, gradient in found.items():
        assert torch.equal(gradient, others[name]), name
    widen(other, narrowed)
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a.view(torch.int32), b.view(torch.int32)), name


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_every_float_comes_back_to_the_last_bit(values: list[float], seed: int) -> None:
    model = tiny_model()
    select(model, "norms")
    weight = model.get_submodule("layers.0.mlp.down_proj").weight
    assert isinstance(weight, nn.Parameter)
    bits = np.random.default_rng(seed).integers(-(2**31), 2**31, weight.shape).astype(np.int32)
    bits[0] = bits[0] & ~0xFFFF | 0x8000  # halfway between two values of bfloat16
    wild = torch.from_numpy(bits).view(torch.float32)
    wild[1, : len(values)] = torch.tensor(values)
    weight.data = torch.where(wild.isnan(), 0.0, wild)
    before = weight.detach().clone()
    narrowed = narrow(model, torch.bfloat16)
    assert weight.dtype == torch.bfloat16
    widen(model, narrowed)
    assert torch.equal(weight.view(torch.int32), before.view(torch.int32))


def test_products_in_float32_narrow_nothing() -> None:
    model = tiny_model()
    select(model, "norms")
    narrowed = narrow(model, torch.float32)
    assert (narrowed.names, narrowed.rests) == ([], {})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_fingerprint_knows_every_bit_of_what_does_not_learn_and_nothing_else() -> None:
    model = tiny_model("gpt2", intermediate_size=33)  # an odd number of columns, too
    assert fingerprint(model) == ""
    adapt(model, Lora(rank=2), seed=0)
    select(model, "biases")
    first = fingerprint(model)
    shake(model)
    assert fingerprint(model) == first
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            continue
        flat = parameter.data.view(-1).view(torch.int32)
        for _ in range(3):
            at, bit = int(rng.integers(len(flat))), int(rng.integers(31))
            flat[at] ^= 1 << bit
            assert fingerprint(model) != first, name
            flat[at] ^= 1 << bit
    matrix = model.get_parameter("layers.0.mlp.up_proj.weight").data
    for swapped in (matrix[[1, 0, *range(2, len(matrix))]], matrix[:, [1, 0, *range(2, matrix.shape[1])]]):
        saved = matrix.clone()
        matrix.copy_(swapped)
        assert fingerprint(model) != first
        matrix.copy_(saved)
    assert fingerprint(model) == first
    select(model, "norms")
    assert fingerprint(model) != first
