"""Compiled: from span edges in characters to span edges in tokens, over the flat buffers of a shard."""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def spans_to_tokens(
    text_offsets: Ints,
    text: NDArray[np.uint8],
    span_offsets: Ints,
    span_starts: NDArray[np.int32],
    span_ends: NDArray[np.int32],
    is_written: Flags,
    id_offsets: Ints,
    ids: Ints,
    byte_lengths: NDArray[np.int32],
    is_added: Flags,
    is_control: Flags,
    prepends: bool,
) -> tuple[Ints, Flags, Flags]:
    """Return (first token of each span, is_aligned per row, is_clean per row).

    Tokens and spans both partition the text. Token positions are the running sum of byte lengths; a row is aligned when
    they add up to the bytes of its text. An aligned row is clean when no control token touches what a message wrote.
    """
    n_rows = len(text_offsets) - 1
    starts = np.zeros(len(span_starts), np.int64)
    is_aligned = np.ones(n_rows, np.bool_)
    is_clean = np.ones(n_rows, np.bool_)
    for row in range(n_rows):
        byte, end_byte = text_offsets[row], text_offsets[row + 1]
        base = byte
        span, last_span = span_offsets[row], span_offsets[row + 1]
        token, last_token = id_offsets[row], id_offsets[row + 1]
        first_token = token
        position = 0  # bytes of text before `token`
        after_added = True
        while span < last_span:
            # 1. the byte at which this span ends
            characters = span_ends[span] - span_starts[span]
            if text_offsets[row + 1] - base == span_ends[last_span - 1]:
                byte += characters  # all ASCII
            else:
                while characters > 0 and byte < end_byte:
                    byte += 1
                    while byte < end_byte and (text[byte] & 0xC0) == 0x80:
                        byte += 1
                    characters -= 1
            edge = byte - base
            # 2. the tokens that start before it
            starts[span] = token - first_token
            while token < last_token and (position < edge or span == last_span - 1):
                i = ids[token]
                length = byte_lengths[i]
                if length < 0:
                    is_aligned[row] = False
                    length = 0
                if is_added[i]:
                    after_added = True
                    if is_control[i] and (
                        is_written[span] or (position + length > edge and span + 1 < last_span and is_written[span + 1])
                    ):
                        is_clean[row] = False
                else:
                    if after_added and prepends:
                        length -= 1
                    after_added = False
                position += length
                token += 1
            span += 1
        if position != end_byte - base or token != last_token:
            is_aligned[row] = False
    return starts, is_aligned, is_clean
