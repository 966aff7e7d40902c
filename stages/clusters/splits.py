"""Which survivors are held out of training: drawn by group from a hash, so that no group is ever divided."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import GateError
from stages.clusters.hashes import draw, hash_words, mix64
from stages.dedup import Dedup, Part

U64 = NDArray[np.uint64]

_ALL: Final = 2**64
_LARGEST: Final = 10
"""A group larger than one in so many of a split's conversations is not held out while there are others."""
_NAMES: Final = ("train", "validation", "test")


def draws(rows: pl.DataFrame, dedup: Dedup) -> U64:
    """Return the number that each survivor's group draws, uniform over 64 bits.

    Columns: text_hash, prompt_hash, content_hash. With split_by = "prompt" the group is all survivors with one
    prompt_hash; of those without a prompt, and with split_by = "cluster", all with one text_hash; of those without a
    token in any text, which are duplicates of nothing, all with one content_hash. The number is a mix of that hash and
    the seed (stages.clusters.hashes.draw) and of nothing else: neither other rows nor their order, nor where a row stands.
    """
    known = [rows["prompt_hash"], rows["text_hash"]] if dedup.split_by == "prompt" else [rows["text_hash"]]
    hashes = pl.select(pl.coalesce(column.cast(pl.Binary) for column in known).alias("group")).to_series()
    words = hash_words(hashes)
    nameless = hashes.is_null().arg_true()
    if len(nameless):
        content = rows["content_hash"].gather(nameless).to_numpy()
        words[nameless.to_numpy()] = np.stack([content, mix64(content)], axis=1)
    return draw(words, dedup.seed)


def join_groups(of: U64, clusters: NDArray[np.integer[Any]]) -> U64:
    """Return draws so that also all survivors of one cluster draw the same, given the draws of the survivors.

    It is needed where several rows of a cluster survive ([clusters] copies > 1) and the groups cross clusters. Groups that
    share a cluster, directly or over others, draw the mix of the smallest of their draws, which is as uniform as that
    of a group alone; all other draws stay.
    """
    order = np.argsort(clusters, kind="stable")
    is_same = clusters[order][1:] == clusters[order][:-1]
    a, b = of[order[:-1]][is_same], of[order[1:]][is_same]
    differs = a != b
    if not differs.any():
        return of
    # numba takes half a second to import and is of no use to a process that only looks at a run
    from stages.clusters.groups_kernel import components

    nodes, ends = np.unique(np.concatenate([a[differs], b[differs]]), return_inverse=True)
    first = components(len(nodes), *np.split(ends, 2))
    joined = mix64(nodes[first])
    at = np.minimum(np.searchsorted(nodes, of), len(nodes) - 1)
    return np.where(nodes[at] == of, joined[at], of)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which draws are held out: those at the low end for validation, those at the high end for test."""

    below: int
    """Draws smaller than this go to validation, ..."""
    not_below: NDArray[np.uint64]
    """... but for these, ascending."""
    from_: int
    """Of the others, draws from here on go to test, ..."""
    not_from: NDArray[np.uint64]
    """... but for these, ascending."""

    def split(self, of: U64) -> pl.Series:
        """Return the split of each draw: train, validation or test."""
        is_validation = _below(of, self.below) & ~_in(of, self.not_below)
        is_test = ~_below(of, self.from_) & ~_in(of, self.not_from) & ~is_validation
        codes = is_validation.astype(np.uint32) + np.uint32(2) * is_test.astype(np.uint32)
        return pl.Series("split", codes).replace_strict(dict(enumerate(_NAMES)), return_dtype=pl.String)


def hold_out(draws_of_kept: U64, dedup: Dedup) -> Cut:
    """Return where the draws are cut, given those of all survivors, in any order.

    A share takes the draws below (validation) or above (test) that share of 2^64, so a group that is held out stays so
    when rows are added. Left in training is a group of several rows that is more than a tenth of what the split is
    expected to have: one prompt that many conversations share must not become the validation set. (So a group can
    leave a split when it grows, and enter when the corpus does.)

    A number takes whole groups in the order of their draws, up or down, until it is reached, and passes over a group
    that is larger than what is missing, or than a tenth of the number; these are taken, in the same way, only if the
    others do not suffice. So the number is exact if there are groups to fill it, and never exceeded.

    Test takes nothing that validation has; where they do not meet, neither knows of the other.

    Raises GateError if more than half of the survivors would be held out.
    """
    n_rows = len(draws_of_kept)
    _check_size(n_rows, dedup)
    ascending = np.sort(draws_of_kept)  # np.unique would do, in five times the time
    starts = np.flatnonzero(np.concatenate([np.ones(min(n_rows, 1), np.bool_), ascending[1:] != ascending[:-1]]))
    groups, sizes = ascending[starts], np.diff(starts, append=n_rows)
    taken, below = _take(groups, sizes, dedup.validation, n_rows)
    left_of_validation = groups[~taken & _below(groups, below)]
    rest = ~taken
    # the high end is the low end of the complements
    mirrored, mirrored_sizes = ~groups[rest][::-1], sizes[rest][::-1]
    taken, below_mirrored = _take(mirrored, mirrored_sizes, dedup.test, n_rows)
    left_of_test = ~mirrored[~taken & _below(mirrored, below_mirrored)][::-1]
    return Cut(below=below, not_below=left_of_validation, from_=_ALL - below_mirrored, not_from=left_of_test)


def _take(groups: U64, sizes: NDArray[np.int64], part: Part, n_rows: int) -> tuple[NDArray[np.bool_], int]:
    """Say which groups (ascending) are taken, and the limit below which all of these are."""
    if isinstance(part, float):
        limit = int(part * _ALL)
        return _below(groups, limit) & (sizes <= max(1, part * n_rows / _LARGEST)), limit
    is_small = sizes <= max(1, part / _LARGEST)
    taken = np.zeros(len(groups), np.bool_)
    for candidates in (np.flatnonzero(is_small), np.flatnonzero(~is_small)):
        chosen = _fill(candidates, sizes, part - int(sizes[taken].sum()))
        taken[chosen] = True
    last = np.flatnonzero(taken)
    return taken, int(groups[last[-1]]) + 1 if len(last) else 0


def _fill(candidates: NDArray[np.int64], sizes: NDArray[np.int64], missing: int) -> NDArray[np.int64]:
    """Return the candidates that fit, one after the other, into what is still missing.

    All that fit before the first that does not are taken at once; after it, only those that can still fit are looked at.
    """
    chosen = [candidates[:0]]
    while missing:
        candidates = candidates[sizes[candidates] <= missing]
        if not len(candidates):
            break
        total = np.cumsum(sizes[candidates])
        n = int(np.searchsorted(total, missing, side="right"))
        chosen.append(candidates[:n])
        missing -= int(total[n - 1])
        candidates = candidates[n:]
    return np.concatenate(chosen)


def _check_size(n_rows: int, dedup: Dedup) -> None:
    parts = {"validation": dedup.validation, "test": dedup.test}
    n_out = sum(part * n_rows if isinstance(part, float) else part for part in parts.values())
    if n_rows and any(isinstance(part, int) for part in parts.values()) and 2 * n_out > n_rows:
        asked = " and ".join(f"{name} = {part}" for name, part in parts.items() if part)
        raise GateError(
            f"[dedup] {asked}: expected at most half of the conversations to be held out, but only {n_rows:,} are left "
            f"after deduplication; ask for at most {n_rows // 2:,} in all, or for a share (0.02)"
        )


def _below(of: U64, limit: int) -> NDArray[np.bool_]:
    is_below: NDArray[np.bool_] = of < np.uint64(limit) if limit < _ALL else np.ones(len(of), np.bool_)
    return is_below


def _in(of: U64, ascending: U64) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(of), np.bool_)
    at = np.minimum(np.searchsorted(ascending, of), len(ascending) - 1)
    is_in: NDArray[np.bool_] = ascending[at] == of
    return is_in
