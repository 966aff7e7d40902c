"""Compiled: how similar two units are, and whether a row has found a better keeper than before."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.clusters.set_kernel import differing_bits, largest_difference, overlap_within
from stages.pointers import halves_at

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]

NOBODY = -1
"""The keeper of a row that is kept."""

_NEVER = 2.0


class Members(NamedTuple):
    """The rows that share a bucket with another, and the units of which they are made."""

    first_unit: I64
    """Where the units of row m in scope s begin: at [m * n_scopes + s]; one more at the end."""
    is_reference: NDArray[np.bool_]
    """Of each row: it is there only to be compared with, and always kept."""
    rank: I32
    """Of each row: when it is visited; the better of two rows has the lower rank."""
    row: I32
    """Of each unit: the row it is of."""
    scope: NDArray[np.uint8]
    addresses: U64
    """Of each unit: where its shingles lie."""
    sizes: I32
    bitmaps: U64
    exact: U64
    """Of each unit: its exact hash, shape (units, 2)."""


class Found(NamedTuple):
    """Kept rows that are similar to the row being visited."""

    best: I32
    """The most similar, a reference before others, or NOBODY: shape (1,)."""
    similarity: F64
    """Its similarity: shape (1,)."""
    others: I32
    """Similar rows but references, as many as may stay."""
    n: I64
    """How many those are: shape (1,)."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def similarity_within(unit: int, other: int, bound: float, members: Members) -> float:
    """Return the Jaccard similarity of two units, or -1 if it is below `bound`.

    All filters are exact, from cheap to dear: sizes, then bitmaps, then a merge that stops when too much differs. Units of
    one shingle must be equal: of a million short texts a hundred pairs share a hash of 32 bits by chance.
    """
    size, other_size = members.sizes[unit], members.sizes[other]
    total = size + other_size
    if total == 2:
        is_equal = (
            members.exact[unit, 0] == members.exact[other, 0] and members.exact[unit, 1] == members.exact[other, 1]
        )
        return 1.0 if is_equal else -1.0
    # what may differ is (1 - bound) / (1 + bound) of the total; the exact limit takes longer, and few pairs need it
    at_most = (1 - bound) / (1 + bound) * total + 1
    if abs(size - other_size) > at_most or differing_bits(members.bitmaps, unit, other) > at_most:
        return -1.0
    own, others = halves_at(members.addresses[unit], size), halves_at(members.addresses[other], other_size)
    common = overlap_within(own, others, largest_difference(total, bound))
    return -1.0 if common < 0 else common / (total - common)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def may_reach(unit: int, other: int, bound: float, sizes: I32, bitmaps: U64) -> bool:
    """Say whether sizes and bitmaps leave it possible that two units reach the bound; most do not."""
    # what may differ is (1 - bound) / (1 + bound) of the total; the exact limit takes longer, and few pairs need it
    at_most = (1 - bound) / (1 + bound) * (sizes[unit] + sizes[other]) + 1
    return bool(abs(sizes[unit] - sizes[other]) <= at_most and differing_bits(bitmaps, unit, other) <= at_most)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def weigh(unit: int, other: int, threshold: float, members: Members, found: Found, copies: int) -> None:
    """Compare two units, and note the other's row if it is similar enough."""
    row = members.row[other]
    bound = _bound(row, threshold, members, found, copies)
    if bound < _NEVER:
        similar = similarity_within(unit, other, bound, members)
        if similar >= 0:
            _note(row, similar, members, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def weigh_container(
    begin: int,
    end: int,
    rarest: int,
    row: int,
    threshold: float,
    n_scopes: int,
    members: Members,
    found: Found,
    copies: int,
) -> None:
    """Note `row` if each of the units begin:end is similar to one of its units; the least of these similarities counts.

    `rarest` is the one of begin:end that is compared first, because it is the likeliest to have none.
    """
    bound = _bound(row, threshold, members, found, copies)
    if bound >= _NEVER:
        return
    scope = members.scope[begin]
    first, last = members.first_unit[row * n_scopes + scope], members.first_unit[row * n_scopes + scope + 1]
    least = _closest(rarest, first, last, bound, members)
    for unit in range(begin, end):
        if least < 0:
            return
        if unit != rarest:
            least = min(least, _closest(unit, first, last, bound, members))
    if least >= 0:
        _note(row, least, members, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _closest(unit: int, first: int, last: int, bound: float, members: Members) -> float:
    """Return how similar the most similar of the units first:last is, or -1 if none reaches the bound."""
    best = -1.0
    for other in range(first, last):
        best = max(best, similarity_within(unit, other, max(bound, best), members))
        if best == 1.0:
            break
    return best


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _bound(row: int, threshold: float, members: Members, found: Found, copies: int) -> float:
    """Return how similar `row` must be to matter; _NEVER if it cannot."""
    best = found.best[0]
    if best == NOBODY:
        return threshold
    if members.is_reference[best]:
        return found.similarity[0] if members.is_reference[row] else _NEVER
    return threshold if copies > 1 or members.is_reference[row] else found.similarity[0]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _note(row: int, similar: float, members: Members, found: Found) -> None:
    """Note a row that reached its bound: a reference beats what is none, then the more similar, then the better."""
    best = found.best[0]
    if not members.is_reference[row] and found.n[0] < len(found.others):
        found.others[found.n[0]] = row
        found.n[0] += 1
    if (
        best == NOBODY
        or (members.is_reference[row] and not members.is_reference[best])
        or similar > found.similarity[0]
        or (similar == found.similarity[0] and members.rank[row] < members.rank[best])
    ):
        found.best[0] = row
        found.similarity[0] = similar


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def exact_rows(keeper: I32, scope_of: NDArray[np.int8], n_scopes: int, members: Members) -> NDArray[np.bool_]:
    """Return which rows are equal to their keepers, once normalised: each unit has the exact hash of one of the keeper's."""
    is_exact = np.zeros(len(keeper), np.bool_)
    for row in range(len(keeper)):
        if keeper[row] == NOBODY:
            continue
        is_exact[row] = True
        own, theirs = row * n_scopes + scope_of[row], keeper[row] * n_scopes + scope_of[row]
        for a in range(members.first_unit[own], members.first_unit[own + 1]):
            is_there = False
            for b in range(members.first_unit[theirs], members.first_unit[theirs + 1]):
                is_there |= members.exact[a, 0] == members.exact[b, 0] and members.exact[a, 1] == members.exact[b, 1]
            is_exact[row] &= is_there
    return is_exact
