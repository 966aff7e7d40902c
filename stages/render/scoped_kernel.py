"""Compiled: from characters to bytes and back, and the cutting of spans, for weights that a pattern gives."""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Int32s = NDArray[np.int32]
Bytes = NDArray[np.uint8]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def byte_edges(text_offsets: Ints, text: Bytes, offsets: Ints, starts: Int32s, ends: Int32s) -> Ints:
    """Return the byte at which each span begins, and at the end where the last one ends; spans cover the texts."""
    edges = np.zeros(len(starts) + 1, np.int64)
    byte = text_offsets[0]
    for row in range(len(offsets) - 1):
        byte = text_offsets[row]
        for span in range(offsets[row], offsets[row + 1]):
            edges[span] = byte
            for _ in range(ends[span] - starts[span]):
                byte += 1
                while byte < text_offsets[row + 1] and (text[byte] & 0xC0) == 0x80:
                    byte += 1
            edges[span + 1] = byte
    return edges


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def marked(offsets: Ints, text: Bytes) -> tuple[Ints, Ints, Ints]:
    """Return (row, first character, one past the last) of what stands between pairs of NUL, the marks not counted."""
    n = 0
    for byte in range(offsets[0], offsets[-1]):
        n += text[byte] == 0
    rows, firsts, lasts = np.empty(n // 2, np.int64), np.empty(n // 2, np.int64), np.empty(n // 2, np.int64)
    n = 0
    for row in range(len(offsets) - 1):
        characters, first = 0, -1
        for byte in range(offsets[row], offsets[row + 1]):
            if text[byte] != 0:
                characters += (text[byte] & 0xC0) != 0x80
            elif first < 0:
                first = characters
            else:
                if first < characters:
                    rows[n], firsts[n], lasts[n] = row, first, characters
                    n += 1
                first = -1
    return rows[:n], firsts[:n], lasts[:n]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def split(
    starts: Int32s, ends: Int32s, span_of: Ints, at: Ints, rule_of: Ints, weights: NDArray[np.float32]
) -> tuple[Ints, Int32s, Int32s, NDArray[np.float32]]:
    """Return (the span it is of, start, end, factor of its weight) of each piece.

    The edges of all matches are sorted by span and place; each rule's come in pairs. Neighbouring pieces of one span
    that have the same factor are one piece.
    """
    size = len(starts) + len(at)
    sources = np.empty(size, np.int64)
    out_starts, out_ends = np.empty(size, np.int32), np.empty(size, np.int32)
    factors = np.empty(size, np.float32)
    n = edge = 0
    depth = np.zeros(len(weights), np.int64)  # is a rule's match open: edges alternate, so parity tells
    for span in range(len(starts)):
        begin, first_piece = starts[span], n
        factor = np.float32(1.0)
        while True:
            end = at[edge] if edge < len(at) and span_of[edge] == span else ends[span]
            if end > begin or (n == first_piece and starts[span] == ends[span]):
                if n > first_piece and factors[n - 1] == factor:
                    out_ends[n - 1] = end
                else:
                    sources[n], out_starts[n], out_ends[n], factors[n] = span, begin, end, factor
                    n += 1
                begin = end
            if edge >= len(at) or span_of[edge] != span:
                break
            depth[rule_of[edge]] ^= 1
            edge += 1
            factor = np.float32(1.0)
            for rule in range(len(weights)):
                if depth[rule]:
                    factor *= weights[rule]
    return sources[:n], out_starts[:n], out_ends[:n], factors[:n]
