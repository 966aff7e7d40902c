"""Compiled: texts and spans of a whole shard, written from skeletons."""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def measure(
    skeleton_of: Ints,
    first_value: Ints,
    part_offsets: Ints,
    piece_offsets: Ints,
    pieces: Ints,
    value_starts: Ints,
    value_ends: Ints,
    value_chars: Ints,
) -> tuple[Ints, Ints, Ints]:
    """Return (bytes, characters, spans) of each row; zeros for a row of skeleton -1.

    Skeleton s has the parts part_offsets[s:s + 2], part p the pieces piece_offsets[p:p + 2]. A piece is (value or -1, first
    byte of a literal, its bytes, its characters); a row's values are counted from first_value.
    """
    n = len(skeleton_of)
    n_bytes, n_chars, n_spans = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    for row in range(n):
        s = skeleton_of[row]
        if s < 0:
            continue
        n_spans[row] = part_offsets[s + 1] - part_offsets[s]
        for piece in range(piece_offsets[part_offsets[s]], piece_offsets[part_offsets[s + 1]]):
            value = pieces[piece, 0]
            if value < 0:
                n_bytes[row] += pieces[piece, 2]
                n_chars[row] += pieces[piece, 3]
            else:
                value += first_value[row]
                n_bytes[row] += value_ends[value] - value_starts[value]
                n_chars[row] += value_chars[value]
    return n_bytes, n_chars, n_spans


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def write(
    skeleton_of: Ints,
    first_value: Ints,
    part_offsets: Ints,
    piece_offsets: Ints,
    pieces: Ints,
    literals: Bytes,
    value_starts: Ints,
    value_ends: Ints,
    value_chars: Ints,
    values: Bytes,
    text_offsets: Ints,
    span_offsets: Ints,
    text: Bytes,
    starts: NDArray[np.int32],
    ends: NDArray[np.int32],
    part_of: Ints,
) -> None:
    """Fill `text`, and `starts`, `ends` and `part_of` of every span, for each row that has a skeleton."""
    for row in range(len(skeleton_of)):
        s = skeleton_of[row]
        if s < 0:
            continue
        byte, character, span = text_offsets[row], 0, span_offsets[row]
        for part in range(part_offsets[s], part_offsets[s + 1]):
            starts[span] = character
            for piece in range(piece_offsets[part], piece_offsets[part + 1]):
                value = pieces[piece, 0]
                if value < 0:
                    first, length = pieces[piece, 1], pieces[piece, 2]
                    text[byte : byte + length] = literals[first : first + length]
                    character += pieces[piece, 3]
                else:
                    value += first_value[row]
                    first, length = value_starts[value], value_ends[value] - value_starts[value]
                    text[byte : byte + length] = values[first : first + length]
                    character += value_chars[value]
                byte += length
            ends[span] = character
            part_of[span] = part
            span += 1
