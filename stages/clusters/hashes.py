"""128-bit hashes of a binary column as numbers, and a mix that makes draws of them."""

from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_BYTES: Final = 16
_NULL: Final = b"\xff" * _BYTES
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def hash_words(column: pl.Series) -> U64:
    """Return both halves of each 16-byte hash, read big-endian, (rows, 2); of null all ones, after every other.

    Raises ValueError if a value has another length.
    """
    column = column.cast(pl.Binary)
    lengths = column.bin.size()
    wrong = lengths.filter(lengths != _BYTES).to_list()
    if wrong:
        raise ValueError(f"column {column.name}: expected {_BYTES} bytes in every value, got {wrong[0]}")
    return hash_bytes(column.fill_null(_NULL).rechunk().to_arrow()).view(">u8").astype(np.uint64)


def hash_bytes(array: pa.Array) -> NDArray[np.uint8]:
    """Return values of 16 bytes each, where they lie: shape (rows, 16)."""
    if not len(array):
        return np.empty((0, _BYTES), np.uint8)
    array = array.cast(pa.large_binary())
    _, offsets, data = array.buffers()
    first = int(np.frombuffer(offsets, np.int64, 1, array.offset * 8)[0])
    return np.frombuffer(data, np.uint8, _BYTES * len(array), first).reshape(-1, _BYTES)


def mix64(values: U64) -> U64:
    """Mix 64 bits as SplitMix64's finaliser does, a bijection (Steele, Lea and Flood, 2014)."""
    z = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: U64 = z ^ (z >> np.uint64(31))
    return mixed


def draw(words: U64, seed: int) -> U64:
    """Return a number of 64 bits for each 128-bit hash: mix(mix(high ^ mix(seed + GOLDEN)) ^ low), mod 2^64.

    The same hash and seed give the same number on every machine and in every release; another seed, others.
    """
    start = mix64(np.array([seed], np.uint64) + GOLDEN)
    return mix64(mix64(words[:, 0] ^ start) ^ words[:, 1])
