"""Compiled: token hashes to distinct shingle hashes and an exact hash, row by row over one string buffer."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.signatures.token_kernel import mix64, tokenize_message

I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

_K3 = np.uint64(0x87C37B91114253D5)
_K4 = np.uint64(0x4CF5AD432745937F)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hash_tokens(tokens: U64, n: int, ngram: int, hashes: U32, exact: U64) -> int:
    """Write the hash of every `ngram` successive tokens of tokens[:n], and of all of them; return how many shingles.

    Fewer tokens than `ngram` make one shingle. A shingle's hash is a polynomial of its tokens, which rolls: one step
    per token for any `ngram`. `exact` takes two words.
    """
    width = min(n, ngram)
    leaving = np.uint64(1)  # _K4 ** width
    rolling = np.uint64(0)
    e1 = e2 = np.uint64(n)
    for i in range(n):
        token = tokens[i, 0]
        e1 = (e1 ^ token) * _K3
        e1 ^= e1 >> np.uint64(32)
        e2 = (e2 ^ tokens[i, 1]) * _K4
        e2 ^= e2 >> np.uint64(29)
        rolling = rolling * _K4 + token
        if i < width:
            leaving *= _K4
        else:
            rolling -= leaving * tokens[i - width, 0]
        if i >= width - 1:
            hashes[i - width + 1] = np.uint32(mix64(rolling) >> np.uint64(32))
    exact[0] = mix64(e1)
    exact[1] = mix64(e2)
    return n - width + 1 if n else 0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sort_distinct(hashes: U32, n: int, scratch: U32, counts: NDArray[np.int32]) -> int:
    """Sort hashes[:n], drop repetitions, and return how many are left.

    Hashes are uniform, so one counting pass by their leading bits into about n buckets leaves each value next to its
    place, and insertion finishes in linear time. `scratch` holds n values, `counts` twice as many.
    """
    bits = 1
    while (1 << bits) < n:
        bits += 1
    shift = np.uint32(32 - bits)
    counts[: (1 << bits) + 1] = 0
    for i in range(n):
        counts[(hashes[i] >> shift) + 1] += 1
    for i in range(1 << bits):
        counts[i + 1] += counts[i]
    for i in range(n):
        bucket = hashes[i] >> shift
        scratch[counts[bucket]] = hashes[i]
        counts[bucket] += 1
    for i in range(1, n):
        moving = scratch[i]
        at = i
        while at > 0 and scratch[at - 1] > moving:
            scratch[at] = scratch[at - 1]
            at -= 1
        scratch[at] = moving
    n_distinct = 0
    previous = np.int64(-1)
    for i in range(n):  # always write, count only what is new: no branch to guess
        value = np.int64(scratch[i])
        hashes[n_distinct] = scratch[i]
        n_distinct += value != previous
        previous = value
    return n_distinct


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def shingle_rows(
    text: NDArray[np.uint8],
    offsets: I64,
    wanted: NDArray[np.bool_],
    bounds: I64,
    entries: U32,
    ngram: int,
) -> tuple[U32, I64, U64]:
    """Return distinct ascending shingle hashes, where each row's begin (rows + 1), and exact hashes (rows, 2).

    Row r is the text of the messages bounds[r]:bounds[r + 1] that are `wanted`; message m is text[offsets[m]:
    offsets[m + 1]]. Working memory is that of the longest row, the result aside.
    """
    n_rows = len(bounds) - 1
    longest = total = 0
    for row in range(n_rows):
        n_bytes = 0
        for message in range(bounds[row], bounds[row + 1]):
            if wanted[message]:
                n_bytes += offsets[message + 1] - offsets[message]
        longest = max(longest, n_bytes)
        total += n_bytes
    tokens = np.empty((longest, 2), np.uint64)
    scratch = np.empty(longest, np.uint32)
    counts = np.empty(2 * longest + 3, np.int32)
    # no text has more tokens than bytes; memory that is never written is never taken from the machine
    shingles = np.empty(total, np.uint32)
    starts = np.zeros(n_rows + 1, np.int64)
    exact = np.empty((n_rows, 2), np.uint64)
    filled = 0
    for row in range(n_rows):
        n_tokens = 0
        for message in range(bounds[row], bounds[row + 1]):
            if wanted[message]:
                n_tokens = tokenize_message(text, offsets[message], offsets[message + 1], entries, tokens, n_tokens)
        n_shingles = hash_tokens(tokens, n_tokens, ngram, shingles[filled:], exact[row])
        filled += sort_distinct(shingles[filled:], n_shingles, scratch, counts)
        starts[row + 1] = filled
    return shingles[:filled], starts, exact
