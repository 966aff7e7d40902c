"""Compiled: `str.strip` over a whole column, by moving the edges of its texts."""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def strip(
    starts: Ints, ends: Ints, chars: Ints, data: NDArray[np.uint8], spaces: NDArray[np.int32], left: bool, right: bool
) -> tuple[Ints, Ints, Ints]:
    """Return (starts, ends, characters) of the texts without the characters of `spaces`, code points, at their edges."""
    new_starts, new_ends, new_chars = starts.copy(), ends.copy(), chars.copy()
    for text in range(len(starts)):
        first, last = starts[text], ends[text]
        while left and first < last:
            length = _length(data[first])
            if not _is_among(_decode(data, first, length), spaces):
                break
            first += length
            new_chars[text] -= 1
        while right and first < last:
            at = last - 1
            while data[at] & 0xC0 == 0x80:
                at -= 1
            if not _is_among(_decode(data, at, last - at), spaces):
                break
            last = at
            new_chars[text] -= 1
        new_starts[text], new_ends[text] = first, last
    return new_starts, new_ends, new_chars


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _length(lead: int) -> int:
    if lead < 0x80:
        return 1
    if lead < 0xE0:
        return 2
    return 3 if lead < 0xF0 else 4


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decode(data: NDArray[np.uint8], at: int, length: int) -> int:
    if length == 1:
        return int(data[at])
    point = np.int64(data[at]) & (0x7F >> length)
    for i in range(at + 1, at + length):
        point = (point << 6) | (np.int64(data[i]) & 0x3F)
    return int(point)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_among(point: int, spaces: NDArray[np.int32]) -> bool:
    found = False
    for space in spaces:
        found |= point == space
    return found
