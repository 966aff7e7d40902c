"""Attention from a cache of several documents is what attention to the whole documents gives."""

import pytest
import torch
from torch import Tensor

from trainer.model.attention import attend_cached
from trainer.model.cache import FEWEST_PLACES, Cache

N_HEADS, N_KV, WIDTH = 4, 2, 8


class Document:
    """Queries, keys and values of a document for two layers, and how much of it was read."""

    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.q = torch.randn(2, n, N_HEADS, WIDTH, dtype=torch.float64, generator=generator)
        self.k = torch.randn(2, n, N_KV, WIDTH, dtype=torch.float64, generator=generator)
        self.v = torch.randn(2, n, N_KV, WIDTH, dtype=torch.float64, generator=generator)
        self.n_read = 0


def read(cache: Cache, documents: list[Document], lengths: list[int], window: int | None) -> None:
    """Read on in every document, and compare with attention to each whole document alone."""
    parts = [slice(d.n_read, d.n_read + n) for d, n in zip(documents, lengths, strict=True)]
    for layer in (0, 1):
        joined: list[Tensor] = [
            torch.cat([getattr(d, name)[layer, part] for d, part in zip(documents, parts, strict=True)])
            for name in ("q", "k", "v")
        ]
        out = cache.attend(layer, joined[0], joined[1], joined[2], lengths, window=window)
        expected = [
            attend_cached(d.q[layer, part], d.k[layer, : part.stop], d.v[layer, : part.stop], window=window)
            for d, part in zip(documents, parts, strict=True)
        ]
        assert (out - torch.cat(expected)).abs().max() < 1e-12
    for d, part in zip(documents, parts, strict=True):
        d.n_read = part.stop


@pytest.mark.parametrize("window", [None, 3])
def test_documents_join_read_on_end_and_are_cut(window: int | None) -> None:
    cache = Cache(2)
    a, b, c, d = (Document(2 * FEWEST_PLACES, seed) for seed in range(4))
    read(cache, [a, b], [5, 9], window)
    read(cache, [a, b, c], [1, 1, 4], window)
    read(cache, [a, b, c], [1, 1, 1], window)
    read(cache, [a, b, c], [1, 3, 1], window)
    cache.remove(0)  # the last one takes its place
    assert cache.lengths == [c.n_read, b.n_read]
    read(cache, [c, b, d], [1, 1, 1], window)
    cache.cut(2, 0)
    d.n_read = 0
    cache.cut(0, 2)
    c.n_read = 2
    read(cache, [c, b, d], [1, 1, 7], window)
    cache.remove(2)
    read(cache, [c, b], [FEWEST_PLACES, 1], window)  # there are too few places: what was read moves
    read(cache, [c, b], [1, 1], window)


def test_room_grows_seldom() -> None:
    cache = Cache(1)
    sizes = set()
    for _ in range(1000):
        one = torch.zeros(1, N_KV, WIDTH)
        cache.attend(0, torch.zeros(1, N_HEADS, WIDTH), one, one, [1], window=None)
        sizes.add(cache._keys[0].shape[2])
    assert sorted(sizes) == [128, 256, 512, 1024]
