"""What is left out: the share that was asked for, and always the same elements, whoever computes them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from schemas.models import Model
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder, initialise
from trainer.model.dropout import ADAPTERS, drop, keys, keys_of_layer


def keys_of(n: int, *, seed: int = 0, step: int = 0, pack: int = 0) -> torch.Tensor:
    return torch.from_numpy(keys(seed=seed, step=step, packs=[pack], sizes=[n]))


def test_a_pack_has_the_same_keys_whichever_packs_lie_beside_it() -> None:
    together = keys(seed=7, step=3, packs=[11, 5], sizes=[4, 6])
    assert np.array_equal(together[:4], keys(seed=7, step=3, packs=[11], sizes=[4]))
    assert np.array_equal(together[4:], keys(seed=7, step=3, packs=[5], sizes=[6]))
    assert keys(seed=7, step=3, packs=[], sizes=[]).shape == (0,)


def test_keys_are_those_that_they_always_were() -> None:
    # a resumed run must leave out what the same run left out under an older version
    assert keys(seed=1, step=2, packs=[3], sizes=[2]).tolist() == [1321962074176129191, -2521084883668924615]
    kept = drop(torch.ones(2, 8), keys_of(2), 0, 0.5) > 0
    assert kept.int().tolist() == [[0, 1, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0, 1, 1]]


def test_every_name_of_an_element_changes_what_is_left_out() -> None:
    x = torch.ones(64, 64)
    masks = [
        drop(x, keys_of(64, seed=seed, step=step, pack=pack), site, 0.5)
        for seed, step, pack, site in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    ]
    masks += [drop(x, keys_of_layer(keys_of(64), layer), ADAPTERS, 0.5) for layer in (0, 1)]
    masks += [masks[0].roll(1, 0), masks[0].roll(1, 1)]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            # of 4,096 elements half agree by chance, give or take 32; six times that is no chance
            assert abs(int((one == other).sum()) - 2048) < 6 * 32


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.999])
def test_the_share_is_the_one_that_was_asked_for_in_every_channel_and_token(share: float) -> None:
    n_tokens, n_channels = 2000, 96
    dropped = drop(torch.ones(n_tokens, n_channels), keys_of(n_tokens), 5, share) == 0
    for axis, n in ((0, n_tokens), (1, n_channels)):
        deviation = (share * (1 - share) / n) ** 0.5
        shares = dropped.double().mean(axis)
        assert abs(shares.mean() - share) < 6 * (share * (1 - share) / dropped.numel()) ** 0.5
        assert (shares - share).abs().max() < 6 * deviation + 2 / n
        assert 0.8 < shares.std() / deviation < 1.2


def test_what_stays_is_scaled_and_so_is_its_gradient() -> None:
    x = torch.randn(50, 40, dtype=torch.float64, requires_grad=True)
    y = drop(x, keys_of(50), 0, 0.25)
    y.sum().backward()
    stays = y != 0
    assert torch.allclose(y[stays], x[stays] / 0.75)
    assert x.grad is not None
    assert torch.equal(x.grad, stays.double() / 0.75)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_type_changes_neither_what_is_left_out_nor_itself(dtype: torch.dtype) -> None:
    y = drop(torch.ones(9, 33, dtype=dtype), keys_of(9), 0, 0.3)
    assert y.dtype == dtype
    assert torch.equal(y == 0, drop(torch.ones(9, 33), keys_of(9), 0, 0.3) == 0)


def test_without_keys_or_share_it_is_the_same_tensor() -> None:
    x = torch.randn(3, 4)
    assert drop(x, None, 0, 0.5) is x
    assert drop(x, keys_of(3), 0, 0.0) is x


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_code_leaves_out_the_same() -> None:
    # inductor has gone through float32 with integers that it counted up itself
    x, k = torch.randn(40, 48), keys_of(40)
    compiled = torch.compile(lambda x, k: drop(x, k, 0, 0.2) + drop(x, keys_of_layer(k, 3), ADAPTERS, 0.1))
    assert torch.equal(compiled(x, k), drop(x, k, 0, 0.2) + drop(x, keys_of_layer(k, 3), ADAPTERS, 0.1))


def test_one_call_for_many_tokens_is_many_calls() -> None:
    x, k = torch.randn(40, 16), keys_of(40)
    pieces = [drop(x[a:b], k[a:b], 3, 0.4) for a, b in ((0, 1), (1, 17), (17, 40))]
    assert torch.equal(torch.cat(pieces), drop(x, k, 3, 0.4))


PACKS = {3: (5, 9), 8: (12,), 1: (1, 2, 4), 6: (7,)}
"""Packs by index, with the lengths of their conversations."""


def batch_of(packs: Sequence[int], *, step: int = 0) -> Batch:
    lengths = [n for pack in packs for n in PACKS[pack]]
    ids = torch.cat([torch.arange(sum(PACKS[pack])) * 7 % 40 + pack for pack in packs])
    starts = np.cumsum(lengths) - lengths
    rows = torch.tensor([i for start, n in zip(starts, lengths, strict=True) for i in range(start, start + n - 1)])
    sizes = [sum(PACKS[pack]) for pack in packs]
    return Batch(
        input_ids_T=ids,
        positions_T=torch.cat([torch.arange(n) for n in lengths]),
        lengths=tuple(lengths),
        rows_S=rows,
        targets_S=ids[rows + 1],
        weights_S=torch.ones(len(rows), dtype=torch.float64),
        dropout_keys_T=torch.from_numpy(keys(seed=5, step=step, packs=packs, sizes=sizes)),
    )


def model_of(family: str) -> Decoder:
    sizes = Model(model_type=family, hidden_size=32, num_attention_heads=4, num_hidden_layers=2)
    model = Decoder(new_architecture(sizes, vocab_size=50)).double()
    initialise(model, seed=0)
    model.dropout = 0.3
    return model


def gradient(model: Decoder, batches: Sequence[Batch]) -> torch.Tensor:
    model.zero_grad()
    for batch in batches:
        hidden = model.hidden(batch.input_ids_T, batch.positions_T, batch.lengths, dropout_keys_T=batch.dropout_keys_T)
        logits = model.head(hidden.index_select(0, batch.rows_S))
        torch.nn.functional.cross_entropy(logits, batch.targets_S, reduction="sum").backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_gradient_of_a_step_is_that_of_its_micro_batches_in_any_division(family: str) -> None:
    model = model_of(family)
    whole = gradient(model, [batch_of([3, 8, 1, 6])])
    for division in ([[3], [8], [1], [6]], [[6, 3], [1, 8]]):
        parts = gradient(model, [batch_of(packs) for packs in division])
        assert (parts - whole).abs().max() <= 1e-12 * whole.abs().max()
    another = gradient(model, [batch_of([3, 8, 1, 6], step=1)])
    assert (another - whole).abs().max() > 1e-2 * whole.abs().max()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_embedding_and_both_branches_of_every_block_are_dropped_from(family: str) -> None:
    model, batch = model_of(family), batch_of([3, 8])
    seen: dict[str, float] = {}

    def watch(name: str, output: torch.Tensor) -> None:
        def note(grad: torch.Tensor) -> None:
            reached = grad[(grad != 0).any(1)]  # nothing reaches the end of a conversation from above the last block
            seen[name] = float((reached == 0).double().mean())

        output.register_hook(note)

    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "o_proj", "down_proj")):
            module.register_forward_hook(lambda _, __, output, name=name: watch(name, output))
    gradient(model, [batch])
    assert len(seen) == 5
    for name, share in seen.items():
        assert share == pytest.approx(0.3, abs=0.06), name


def test_a_batch_without_keys_drops_nothing_whatever_the_model_s_share() -> None:
    model, batch = model_of("llama"), batch_of([3, 8])
    measured = gradient(model, [dataclasses.replace(batch, dropout_keys_T=None)])
    dropped = gradient(model, [batch])
    model.dropout = 0.0
    assert torch.equal(measured, gradient(model, [batch]))
    assert not torch.equal(measured, dropped)


def test_computing_a_block_twice_leaves_out_the_same() -> None:
    model, batch = model_of("gpt2"), batch_of([3, 8])
    once = gradient(model, [batch])
    model.gradient_checkpointing = True
    assert torch.equal(once, gradient(model, [batch]))
