"""Compiled: which of some known names a name is."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.ingest.lane.text_kernel import byte_at, number_at
from stages.machine import load_word

_BITS: Final = 9
_SIZE: Final = 1 << _BITS
_WORDS: Final = 5
# odd 64-bit constants: the golden ratio, and primes of xxHash and MurmurHash3
_K1: Final = 0x9E3779B97F4A7C15
_K2: Final = 0xC2B2AE3D27D4EB4F
_K3: Final = 0x87C37B91114253D5


def names_of(numbers: Mapping[str, int]) -> NDArray[np.uint64]:
    """Return a hash table of names, each with its number, fewer than _SIZE / 2 of them.

    For each place: the first eight bytes of a name, its last eight, its size, its number, and behind the table its text.
    """
    assert len(numbers) < _SIZE // 2
    table = np.zeros((_SIZE, _WORDS), np.uint64)
    text = b"".join(name.encode() for name in numbers)
    start = 8 * table.size
    for name, number in numbers.items():
        data = name.encode()
        first = int.from_bytes(data[:8], "little")
        last = int.from_bytes(data[-8:], "little") if len(data) > 8 else 0
        place = ((first * _K1 ^ last * _K2 ^ len(data) * _K3) & (1 << 64) - 1) >> 64 - _BITS
        while table[place, 2]:
            place = (place + 1) % _SIZE
        table[place] = first, last, len(data), number & (1 << 64) - 1, start
        start += len(data)
    return np.concatenate([table.ravel(), np.frombuffer(text.ljust(-(-len(text) // 8) * 8, b"\0"), np.uint64)])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def number_of(names: int, at: int, size: int, limit: int, otherwise: int) -> Any:
    """Return the number, in the table at `names`, of the name of `size` bytes at `at`; `otherwise` if it has none."""
    if size == 0:
        return otherwise
    first = _word(at, min(size, 8), limit)
    last = load_word(np.uint64(at + size - 8)) if size > 8 else np.uint64(0)
    hashed = first * np.uint64(_K1) ^ last * np.uint64(_K2) ^ np.uint64(size) * np.uint64(_K3)
    place = np.int64(hashed >> np.uint64(64 - _BITS))
    while True:
        entry = names + 8 * _WORDS * place
        known = number_at(entry, 2)
        if known == 0:
            return otherwise
        if known == size and number_at(entry, 0) == np.int64(first) and number_at(entry, 1) == np.int64(last):
            i, text = 8, names + number_at(entry, 4)
            while i < size - 8 and byte_at(at + i) == byte_at(text + i):
                i += 1
            if i >= size - 8:
                return number_at(entry, 3)
        place = (place + 1) % _SIZE


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _word(at: int, size: int, limit: int) -> Any:
    """Return up to eight bytes at an address, the first the lowest."""
    if size == 8:
        return load_word(np.uint64(at))
    if at + 8 <= limit:
        return load_word(np.uint64(at)) & ((np.uint64(1) << np.uint64(8 * size)) - np.uint64(1))
    word = np.uint64(0)
    for i in range(size):
        word |= np.uint64(byte_at(at + i)) << np.uint64(8 * i)
    return word
