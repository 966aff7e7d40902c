"""What is left out: the share that was asked for, and always the same elements, whoever computes them."""

import numpy as np
import pytest
import torch

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
    assert kept.int().tolist() == [[0, 0, 0, 1, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0, 1, 0]]


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


def test_one_call_for_many_tokens_is_many_calls() -> None:
    x, k = torch.randn(40, 16), keys_of(40)
    pieces = [drop(x[a:b], k[a:b], 3, 0.4) for a, b in ((0, 1), (1, 17), (17, 40))]
    assert torch.equal(torch.cat(pieces), drop(x, k, 3, 0.4))
