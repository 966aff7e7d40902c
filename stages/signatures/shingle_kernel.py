"""Compiled: token hashes to an exact hash and to shingle hashes."""

from typing import Any

import numpy as np
from numba import njit

from stages.pointers import halves_at, words_at
from stages.signatures.token_kernel import mix64

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)
_K3 = np.uint64(0x87C37B91114253D5)
_K4 = np.uint64(0x4CF5AD432745937F)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hash_exactly(address: Any, n: int) -> tuple[Any, Any]:
    """Return the 128-bit hash of the n tokens at an address as two words.

    Each token is mixed with its place, and both words are sums over the places of two different mixtures: nothing waits
    for what was before, so tokens are taken as many at a time as the processor can. Sequences that differ in one token
    never share a hash.
    """
    tokens = words_at(address, n)
    e1 = e2 = np.uint64(0)
    for i in range(n):
        mixed = (tokens[i] ^ (np.uint64(i) * _K1)) * _K2
        mixed ^= mixed >> np.uint64(32)
        e1 += mixed * _K3
        mixed ^= mixed >> np.uint64(29)
        mixed *= _K4
        e2 += mixed ^ (mixed >> np.uint64(31))
    return mix64(e1 + np.uint64(n)), mix64(e2)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hash_shingles(address: Any, n: int, ngram: int, sums: Any, hashes: Any) -> int:
    """Write the hash of every `ngram` successive ones of the n tokens at an address; return how many shingles there are.

    Fewer tokens than `ngram` make one shingle, none make none. A shingle's hash is a polynomial of its tokens. `sums`
    and `hashes` are addresses of room for a word and half a word per token.
    """
    width = min(n, ngram)
    if width == 0:
        return 0
    n_shingles = n - width + 1
    tokens, sums, hashes = words_at(address, n), words_at(sums, n_shingles), halves_at(hashes, n_shingles)
    for i in range(n_shingles):
        sums[i] = tokens[i]
    for place in range(1, width):
        for i in range(n_shingles):
            sums[i] = sums[i] * _K4 + tokens[i + place]
    for i in range(n_shingles):
        hashes[i] = np.uint32(mix64(sums[i]) >> np.uint64(32))
    return n_shingles
