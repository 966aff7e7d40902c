"""Compiled: all pairs of vectors of length 1 whose cosine is above a threshold, exactly, through an index of rare n-grams.

Only what lies behind a vector's cut is indexed and looked up. Of two vectors, take the one whose cut has the greater
rank: if they share nothing behind both cuts, all that they share lies before that one, where its length is less than the
threshold, and by Cauchy and Schwarz so is their cosine (Bayardo, Ma and Srikant, Scaling Up All Pairs Similarity Search,
2007; with the bound by lengths of Anastasiu and Karypis, L2AP, 2014). A candidate is first compared by profile: the
lengths of the parts of its vector in PARTS groups of n-grams, whose product is never less than the cosine. Of those that
pass, the cosine itself is computed.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

PARTS = 256
"""Groups of n-grams: those of the same rank modulo this, so the commonest, in which all texts are alike, stand alone."""
ROUGH = 1e-4
"""More than rounding to 32 bits can take from a profile's product."""

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def post(entries: I64, ends: I64, cuts: I64, n_texts: int, n_ranks: int) -> tuple[I64, I32]:
    """Return (heads, texts): the first `n_texts` texts under each n-gram behind their cuts, in order.

    Those of the n-gram of rank r are texts[heads[r]:heads[r + 1]].
    """
    heads = np.zeros(n_ranks + 2, np.int64)
    for text in range(n_texts):
        for i in range(cuts[text], ends[text + 1]):
            heads[(entries[i] >> 32) + 2] += 1
    for rank in range(2, n_ranks + 2):
        heads[rank] += heads[rank - 1]
    texts = np.empty(heads[-1], np.int32)
    for text in range(n_texts):
        for i in range(cuts[text], ends[text + 1]):
            rank = entries[i] >> 32
            texts[heads[rank + 1]] = text
            heads[rank + 1] += 1
    return heads[:-1], texts


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def profile(entries: I64, ends: I64, idf: F64, scales: F64, n_texts: int) -> F32:
    """Return the lengths of the parts of the first `n_texts` vectors, shape (n_texts, PARTS)."""
    profiles = np.zeros((n_texts, PARTS), np.float32)
    squares = np.empty(PARTS)
    for text in range(n_texts):
        squares[:] = 0
        for i in range(ends[text], ends[text + 1]):
            rank = entries[i] >> 32
            squares[rank % PARTS] += ((entries[i] & 0xFFFFFFFF) * idf[rank] * scales[text]) ** 2
        for part in range(PARTS):
            profiles[text, part] = np.sqrt(squares[part])
    return profiles


# sums in any order, so that the processor adds several at once: it decides nothing that ROUGH does not cover
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def _product(profiles: F32, a: int, b: int) -> np.float32:
    total = np.float32(0)
    for part in range(PARTS):
        total += profiles[a, part] * profiles[b, part]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _times(entries: I64, factors: F64) -> float:
    total = 0.0
    for entry in entries:
        total += (entry & 0xFFFFFFFF) * factors[entry >> 32]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _spread(entries: I64, idf: F64, factor: float, factors: F64) -> None:
    for entry in entries:
        factors[entry >> 32] = (entry & 0xFFFFFFFF) * idf[entry >> 32] ** 2 * factor


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def join(
    entries: I64,
    ends: I64,
    cuts: I64,
    idf: F64,
    scales: F64,
    profiles: F32,
    heads: I64,
    texts: I32,
    threshold: float,
    seen: I32,
    first: int,
    last: int,
    room: int,
) -> tuple[I32, I32, F64]:
    """Return the pairs (a, b, similarity) with first <= b < last and a < b, at most `room` of them.

    seen: of each text, the last one that it was compared with; kept between calls, -1 at first.
    """
    lefts = np.empty(64, np.int32)
    rights = np.empty(64, np.int32)
    similarities = np.empty(64)
    factors = np.zeros(len(idf))  # of one text: what a count of another's is multiplied with, n-gram by n-gram
    n_pairs = 0
    for text in range(first, last):
        _spread(entries[ends[text] : ends[text + 1]], idf, scales[text], factors)
        for i in range(cuts[text], ends[text + 1]):
            rank = entries[i] >> 32
            for posting in range(heads[rank], heads[rank + 1]):
                other = texts[posting]
                if other >= text:
                    break
                if seen[other] == text:
                    continue
                seen[other] = text
                if _product(profiles, other, text) < threshold - ROUGH:
                    continue
                similarity = min(_times(entries[ends[other] : ends[other + 1]], factors) * scales[other], 1.0)
                if similarity <= threshold:
                    continue
                if n_pairs == room:
                    return lefts[:n_pairs], rights[:n_pairs], similarities[:n_pairs]
                if n_pairs == len(lefts):
                    lefts = np.append(lefts, np.empty_like(lefts))
                    rights = np.append(rights, np.empty_like(rights))
                    similarities = np.append(similarities, np.empty_like(similarities))
                lefts[n_pairs], rights[n_pairs], similarities[n_pairs] = other, text, similarity
                n_pairs += 1
        _spread(entries[ends[text] : ends[text + 1]], idf, 0.0, factors)
    return lefts[:n_pairs], rights[:n_pairs], similarities[:n_pairs]
