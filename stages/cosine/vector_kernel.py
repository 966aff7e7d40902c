"""Compiled: texts to TF-IDF vectors of character n-grams, each sorted from its commonest n-gram to its rarest.

An entry is one 64-bit number, n-gram << 32 | count; weights follow from it, so that a vector takes 8 bytes an entry.
"""

from typing import TypeVar

import numpy as np
from numba import njit
from numba import uint64 as u64
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)
U32 = NDArray[np.uint32]

MARGIN = 1e-9
"""More than rounding can add up to in a sum of squares of weights."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_ngrams(points: U32, starts: I64, repeats: I64) -> tuple[I64, I64, I64]:
    """Return (entries, ends, frequencies) of the 1-, 2- and 3-grams of texts laid end to end.

    points: code points; text i is points[starts[i]:starts[i + 1]]. repeats: rows that hold the text, each of which counts
    in frequencies, the number of rows with an n-gram. N-grams are numbered as they appear. ends has a leading 0: the
    entries of text i are entries[ends[i]:ends[i + 1]].
    """
    n_texts = len(starts) - 1
    entries = np.empty(3 * len(points), np.int64)  # memory that is never touched is never taken
    ends = np.zeros(n_texts + 1, np.int64)
    bits = 12
    slots = np.full(1 << bits, -1, np.int32)
    keys = np.empty(1 << (bits - 1), np.uint64)
    frequencies = np.zeros(len(keys), np.int64)
    places = np.full(len(keys), -1, np.int64)
    n_keys = n_entries = 0
    for text in range(n_texts):
        begin = n_entries
        for i in range(starts[text], starts[text + 1]):
            key = u64(0)
            for n in range(min(3, starts[text + 1] - i)):
                # a code point and one has 21 bits; the one tells "ab" from "ab" and a NUL
                key |= (u64(points[i + n]) + u64(1)) << u64(21 * n)
                slot = _slot(slots, keys, bits, key)
                number = slots[slot]
                if number < 0:
                    if n_keys == len(keys):
                        bits += 1
                        keys = _grown(keys, 0)
                        frequencies = _grown(frequencies, 0)
                        places = _grown(places, -1)
                        slots = np.full(1 << bits, -1, np.int32)
                        for old in range(n_keys):
                            slots[_slot(slots, keys, bits, keys[old])] = old
                        slot = _slot(slots, keys, bits, key)
                    number = n_keys
                    slots[slot] = number
                    keys[number] = key
                    n_keys += 1
                if places[number] < begin:
                    places[number] = n_entries
                    entries[n_entries] = np.int64(number) << 32
                    frequencies[number] += repeats[text]
                    n_entries += 1
                entries[places[number]] += 1
        ends[text + 1] = n_entries
    return entries[:n_entries], ends, frequencies[:n_keys].copy()


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _slot(slots: NDArray[np.int32], keys: NDArray[np.uint64], bits: int, key: np.uint64) -> np.int64:
    """Return where `key` stands in the table, or the free slot where it would."""
    slot = np.int64((key * u64(0x9E3779B97F4A7C15)) >> u64(64 - bits))
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _grown(values: NDArray[T], fill: int) -> NDArray[T]:
    grown = np.full(2 * len(values), fill, values.dtype)
    grown[: len(values)] = values
    return grown


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def weigh(entries: I64, ends: I64, ranks: I64, idf: F64, threshold: float) -> tuple[F64, I64]:
    """Renumber the entries by rank and sort each vector, in place; return (scales, cuts).

    The weight of an entry is count * idf[rank] * scales[text]. Before its cut, a vector's length is less than the
    threshold: what lies there cannot alone make a pair.
    """
    n_texts = len(ends) - 1
    scales = np.zeros(n_texts)
    cuts = np.empty(n_texts, np.int64)
    for text in range(n_texts):
        first, last = ends[text], ends[text + 1]
        for i in range(first, last):
            entries[i] = ranks[entries[i] >> 32] << 32 | (entries[i] & 0xFFFFFFFF)
        entries[first:last].sort()
        square = 0.0
        for i in range(first, last):
            square += ((entries[i] & 0xFFFFFFFF) * idf[entries[i] >> 32]) ** 2
        if square > 0:
            scales[text] = 1 / np.sqrt(square)
        limit = square * (threshold - MARGIN) ** 2
        cut, before = first, 0.0
        while cut < last:
            before += ((entries[cut] & 0xFFFFFFFF) * idf[entries[cut] >> 32]) ** 2
            if before > limit:
                break
            cut += 1
        cuts[text] = cut
    return scales, cuts
