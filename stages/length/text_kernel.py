"""Compiled: what texts are made of, in one pass over their bytes."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

_FNV = np.uint64(0x100000001B3)
_SEED = np.uint64(0xCBF29CE484222325)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_classes(
    ends: I64, data: U8, is_wanted: NDArray[np.bool_], class_of: U8, is_blank: NDArray[np.bool_]
) -> tuple[I32, I32]:
    """Return (characters of each class, the longest run of one character that is no blank) of each text.

    Text i is data[ends[i]:ends[i + 1]], valid UTF-8; of one that is not wanted nothing is counted.
    """
    n = len(ends) - 1
    counts = np.zeros((n, len(is_blank)), np.int32)
    longest = np.zeros(n, np.int32)
    for i in range(n):
        if not is_wanted[i]:
            continue
        at, end = ends[i], ends[i + 1]
        before: Any = -1
        run, most = 0, 0
        while at < end:
            lead = np.int64(data[at])
            if lead < 0x80:
                code = lead
                at += 1
            elif lead < 0xE0:
                code = (lead & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F
                at += 2
            elif lead < 0xF0:
                code = (lead & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F
                at += 3
            else:
                code = (
                    (lead & 0x07) << 18
                    | (np.int64(data[at + 1]) & 0x3F) << 12
                    | (np.int64(data[at + 2]) & 0x3F) << 6
                    | np.int64(data[at + 3]) & 0x3F
                )
                at += 4
            kind = class_of[code]
            counts[i, kind] += 1
            if code == before:
                run += 1
            else:
                before, run = code, 1
            if run > most and not is_blank[kind]:
                most = run
        longest[i] = most
    return counts, longest


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_lines(ends: I64, data: U8, is_wanted: NDArray[np.bool_]) -> tuple[I32, I32]:
    """Return (lines, lines that are the same as one before) of each text.

    ASCII blanks around a line do not count, nor do empty lines. Lines are the same if 64-bit hashes of them are.
    """
    n = len(ends) - 1
    n_lines, n_repeated = np.zeros(n, np.int32), np.zeros(n, np.int32)
    hashes = np.empty(64, np.uint64)
    for i in range(n):
        if not is_wanted[i]:
            continue
        found = 0
        start: Any = ends[i]
        while start < ends[i + 1]:
            stop = start
            while stop < ends[i + 1] and data[stop] != 0x0A:
                stop += 1
            value, is_there = _line_hash(data, start, stop)
            if is_there:
                if found == len(hashes):
                    hashes = np.concatenate((hashes, np.empty_like(hashes)))
                hashes[found] = value
                found += 1
            start = stop + 1
        n_lines[i] = found
        if found > 1:
            ascending = np.sort(hashes[:found])
            n_repeated[i] = (ascending[1:] == ascending[:-1]).sum()
    return n_lines, n_repeated


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _line_hash(data: U8, first: int, end: int) -> Any:
    """Return (FNV-1a's hash of a line without blanks around it, whether anything is left)."""
    while first < end and data[first] <= 0x20:
        first += 1
    while first < end and data[end - 1] <= 0x20:
        end -= 1
    value = _SEED
    for at in range(first, end):
        value = (value ^ np.uint64(data[at])) * _FNV
    return value, first < end
