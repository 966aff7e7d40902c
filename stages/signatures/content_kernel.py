"""Compiled: the hash of conversations as they stand, byte for byte."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.machine import load_byte, load_half, load_word
from stages.signatures.token_kernel import absorb, mix64

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

_TOOLS = np.uint64(0x2545F4914F6CDD1D)
# odd 64-bit constants: the golden ratio, and primes of xxHash and MurmurHash3
_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)
_K3 = np.uint64(0x87C37B91114253D5)
_K4 = np.uint64(0x4CF5AD432745937F)


class Contents(NamedTuple):
    """What is hashed: field i of message m is sizes[i, m] bytes at addresses[i, m], and codes[i] says which one it is.

    A size of -1 is no field. Row r has the tools of tool_sizes[r] bytes at tools[r].
    """

    codes: I64
    addresses: U64
    sizes: I32
    tools: U64
    tool_sizes: I32


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def hash_content(contents: Contents, row: int, first: int, end: int) -> Any:
    """Return the hash of a row's messages, first:end, and tools.

    A message is the sum of its fields' hashes, each mixed with which field it is, so that an absent field adds nothing
    and an empty one does; messages are chained in order.
    """
    h = _K2
    for message in range(first, end):
        total = np.uint64(0)
        for i in range(len(contents.codes)):
            if contents.sizes[i, message] >= 0:
                field = np.uint64(contents.codes[i] + 1) * _K1
                total += mix64(hash_bytes(contents.addresses[i, message], contents.sizes[i, message]) ^ field)
        h = absorb(h, mix64(total))
    if contents.tool_sizes[row] >= 0:
        h ^= mix64(hash_bytes(contents.tools[row], contents.tool_sizes[row]) ^ _TOOLS)
    return mix64(h)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hash_bytes(at: Any, size: int) -> Any:
    """Return the 64-bit hash of the bytes at an address: four words at a time, then one, then the last eight bytes."""
    h = np.uint64(size) * _K2
    n = np.int64(size)
    if n >= 32:
        h0, h1, h2, h3 = h ^ _K1, h ^ _K2, h ^ _K3, h ^ _K4
        while n >= 32:
            h0 = absorb(h0, load_word(at))
            h1 = absorb(h1, load_word(at + np.uint64(8)))
            h2 = absorb(h2, load_word(at + np.uint64(16)))
            h3 = absorb(h3, load_word(at + np.uint64(24)))
            at += np.uint64(32)
            n -= 32
        h = absorb(absorb(absorb(h0, mix64(h1)), mix64(h2)), mix64(h3))
    while n >= 8:
        h = absorb(h, load_word(at))
        at += np.uint64(8)
        n -= 8
    if n > 0:
        h = absorb(h, _last_bytes(at, n, size))
    return mix64(h)


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _last_bytes(at: Any, n: int, size: int) -> Any:
    """Return the last n < 8 of `size` bytes, with some before them where that is one load."""
    left = np.uint64(n)
    if size >= 8:
        return load_word(at + left - np.uint64(8))
    if n >= 4:
        return load_half(at) | load_half(at + left - np.uint64(4)) << np.uint64(32)
    first, middle, last = load_byte(at), load_byte(at + (left >> np.uint64(1))), load_byte(at + left - np.uint64(1))
    return first | middle << np.uint64(8) | last << np.uint64(16)
