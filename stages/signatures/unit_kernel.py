"""Compiled: conversations to the exact hashes and shingles of the texts that are compared."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.signatures.shingle_kernel import hash_exactly, hash_shingles
from stages.signatures.sort_kernel import sort_distinct
from stages.signatures.token_kernel import Reader, tokenize_text

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]

CONVERSATION, PROMPT, ANSWER, TURNS = 0, 1, 2, 3
"""Places in schemas.scopes.SCOPES."""


class Spoken(NamedTuple):
    """The text of message m: sizes[part, m] bytes at addresses[part, m], part by part, if it `counts`."""

    addresses: U64
    sizes: I32
    counts: Bool


class Work(NamedTuple):
    """Memory for one row: as many places as its text has bytes."""

    tokens: U64
    sums: U64
    hashes: U32
    """With SORT_ROOM more."""


class Found(NamedTuple):
    """The units of all rows, one after another; unit u has the shingles starts[u]:starts[u + 1]."""

    scope: U8
    message: I32
    exact: U64
    starts: I64
    shingles: U32


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def measure_rows(bounds: I64, spoken: Spoken) -> tuple[int, int]:
    """Return the bytes of the longest row's text, and of all rows."""
    longest = total = 0
    for row in range(len(bounds) - 1):
        n_bytes = 0
        for message in range(bounds[row], bounds[row + 1]):
            if spoken.counts[message]:
                for part in range(len(spoken.sizes)):
                    n_bytes += max(spoken.sizes[part, message], 0)
        longest = max(longest, n_bytes)
        total += n_bytes
    return longest, total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sign_units(
    bounds: I64,
    spoken: Spoken,
    asked: I64,
    chosen: I64,
    reader: Reader,
    work: Work,
    ngram: int,
    whole: U64,
    prompt: U64,
    has_hash: Bool,
    unit_bounds: I64,
    found: Found,
) -> tuple[int, int]:
    """Write the units of every row; return how many units and shingles there are.

    `asked` are the scopes; chosen[0] and chosen[1] the message of the prompt and the answer of each row, -1 if there is
    none. Each message is cut into tokens once: every text that is compared is a range of the row's tokens.

    whole and prompt (rows, 2) get the exact hashes of the conversation and the prompt where has_hash (2, rows); row r
    has the units unit_bounds[r]:unit_bounds[r + 1] of `found`.
    """
    tokens = work.tokens
    most = 0
    for row in range(len(bounds) - 1):
        most = max(most, bounds[row + 1] - bounds[row])
    ends = np.zeros(most + 1, np.int64)
    n_units = 0
    unit_bounds[0] = found.starts[0] = 0
    for row in range(len(bounds) - 1):
        first = bounds[row]
        n_messages = bounds[row + 1] - first
        n = _tokenize_row(first, n_messages, spoken, reader, ends)
        hash_exactly(tokens[:n], whole[row])
        has_hash[0, row] = n > 0
        at = max(chosen[0, row] - first, -1)
        begin, end = (ends[at], ends[at + 1]) if at >= 0 else (0, 0)
        hash_exactly(tokens[begin:end], prompt[row])
        has_hash[1, row] = end > begin
        for scope in asked:
            if scope == CONVERSATION:
                n_units = _add_unit(scope, -1, 0, n, ngram, work, found, n_units)
            elif scope == TURNS:
                for i in range(n_messages):
                    n_units = _add_unit(scope, i, ends[i], ends[i + 1], ngram, work, found, n_units)
            elif chosen[scope - PROMPT, row] >= 0:
                at = chosen[scope - PROMPT, row] - first
                n_units = _add_unit(scope, at, ends[at], ends[at + 1], ngram, work, found, n_units)
        unit_bounds[row + 1] = n_units
    return n_units, found.starts[n_units]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tokenize_row(first: int, n_messages: int, spoken: Spoken, reader: Reader, ends: I64) -> int:
    """Write the row's tokens, and where those of each message end; return how many there are."""
    n = 0
    for i in range(n_messages):
        if spoken.counts[first + i]:
            for part in range(len(spoken.sizes)):
                size = spoken.sizes[part, first + i]
                if size > 0:
                    n = tokenize_text(spoken.addresses[part, first + i], size, reader, n)
        ends[i + 1] = n
    return n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_unit(
    scope: int, message: int, begin: int, end: int, ngram: int, work: Work, found: Found, n_units: int
) -> int:
    """Write the unit of tokens[begin:end], if there is a token; return how many units there are."""
    if begin == end:
        return n_units
    tokens, at = work.tokens[begin:end], found.starts[n_units]
    found.scope[n_units] = scope
    found.message[n_units] = message
    hash_exactly(tokens, found.exact[n_units])
    n_shingles = hash_shingles(tokens, ngram, work.sums, work.hashes)
    found.starts[n_units + 1] = at + sort_distinct(work.hashes, n_shingles, found.shingles[at:])
    return n_units + 1
