"""Compiled: tokens laid beside the text they stand for, byte by byte, over the flat buffers of a shard."""

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from stages.tokenize.spelling import ALWAYS, NEVER, UNLESS_SPACE

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


SPACE: Final = 32


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def lay_tokens(
    text_offsets: Ints,
    text: NDArray[np.uint8],
    span_offsets: Ints,
    span_starts: NDArray[np.int32],
    span_ends: NDArray[np.int32],
    is_written: Flags,
    starts_turn: Flags,
    id_offsets: Ints,
    ids: NDArray[np.int32],
    spelled_at: Ints,
    spelled_lengths: NDArray[np.int32],
    spelled: NDArray[np.uint8],
    ends_stretch: Flags,
    is_control: Flags,
    prepends: int,
) -> tuple[Ints, Flags, Flags, NDArray[np.int32], NDArray[np.int32]]:
    """Return (first token of each span, is_proven, is_clean, n_straddling, n_straddling_turns), the last four per row.

    A row is proven when the bytes of its tokens, one after the other, are the bytes of its text, and its spans end where
    the text does; then each token's place is known, and what is said of the row is exact. Otherwise nothing is. A proven
    row is clean when no control token touches what a message wrote. A token straddles when it begins in one span and ends
    in another; a turn is straddled when a token that begins before its first character ends behind it.
    """
    n_rows = len(text_offsets) - 1
    starts = np.zeros(len(span_starts), np.int64)
    is_proven = np.zeros(n_rows, np.bool_)
    is_clean = np.ones(n_rows, np.bool_)
    n_straddling = np.zeros(n_rows, np.int32)
    n_straddling_turns = np.zeros(n_rows, np.int32)
    for row in range(n_rows):
        first_byte, end_byte = text_offsets[row], text_offsets[row + 1]
        n_bytes = end_byte - first_byte
        first_span, last_span = span_offsets[row], span_offsets[row + 1]
        first_token, last_token = id_offsets[row], id_offsets[row + 1]
        is_ascii = last_span > first_span and n_bytes == span_ends[last_span - 1]
        token = first_token
        position = np.int64(0)  # bytes of text before `token`
        edge = np.int64(0)  # the byte at which the span ends
        counted = first_token - 1  # the last token that was found to straddle
        begins_stretch = True
        is_equal = True
        span = first_span
        while span < last_span and is_equal:
            if starts_turn[span] and position > edge:
                n_straddling_turns[row] += 1
            # 1. the byte at which this span ends
            n_characters = np.int64(span_ends[span] - span_starts[span])
            edge = edge + n_characters if is_ascii else _behind(text, first_byte, n_bytes, edge, n_characters)
            # 2. the tokens that start before it
            starts[span] = token - first_token
            while token < last_token and (position < edge or span == last_span - 1):
                i = ids[token]
                length, at = spelled_lengths[i], spelled_at[i]
                if begins_stretch and not ends_stretch[i] and length > 0 and spelled[at] == SPACE:
                    has_space = position < n_bytes and text[first_byte + position] == SPACE
                    skipped = _prepended(prepends, position == 0, has_space)
                    at += skipped
                    length -= skipped
                begins_stretch = ends_stretch[i]
                if not _spells(text, first_byte + position, end_byte, spelled, at, length):
                    is_equal = False
                    break
                if is_control[i] and is_written[span]:
                    is_clean[row] = False
                position += length
                token += 1
            # 3. the last of them may reach over the edge
            if is_equal and position > edge:
                if counted != token - 1:
                    counted = token - 1
                    n_straddling[row] += 1
                if is_control[ids[token - 1]] and span + 1 < last_span and is_written[span + 1]:
                    is_clean[row] = False
            span += 1
        is_proven[row] = is_equal and edge == n_bytes and position == n_bytes and token == last_token
    return starts, is_proven, is_clean, n_straddling, n_straddling_turns


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _behind(text: NDArray[np.uint8], first_byte: int, n_bytes: int, byte: int, n_characters: int) -> int:
    """Return where, `n_characters` behind `byte`, a character of the text begins; at most at its end."""
    while n_characters > 0 and byte < n_bytes:
        byte += 1
        while byte < n_bytes and (text[first_byte + byte] & 0xC0) == 0x80:
            byte += 1
        n_characters -= 1
    return byte


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _spells(text: NDArray[np.uint8], place: int, end: int, spelled: NDArray[np.uint8], at: int, length: int) -> bool:
    """Return whether the text before `end` holds, at `place`, these bytes of the table; their length may be unknown (-1)."""
    if length < 0 or place + length > end:
        return False
    k = 0
    while k < length and text[place + k] == spelled[at + k]:
        k += 1
    return k == length


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _prepended(prepends: int, is_first: bool, has_space: bool) -> int:
    """Return how many spaces a stretch of text, which may begin with one of its own, was given."""
    if prepends == NEVER:
        return 0
    if prepends == ALWAYS:
        return 1
    return int(not has_space and (prepends == UNLESS_SPACE or is_first))
