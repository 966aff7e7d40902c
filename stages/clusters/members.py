"""Members: the rows that share a bucket with another, gathered from their shards; all others are alone, and kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.scopes import SCOPES
from stages.clusters.corpus import Corpus, Shared
from stages.clusters.memory import Memory
from stages.clusters.rank import Ranking
from stages.clusters.units import read_units

if TYPE_CHECKING:
    from stages.clusters.compare_kernel import Members
    from stages.clusters.greedy_kernel import Buckets

NAMES: Final = ("id", "content_hash", "text_hash")
"""What a member and its cluster are called by."""
_BLOCK: Final = 1 << 24
"""Shingles that memory is taken for at once: blocks so large go back to the system when they are done with."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Members as the kernels take them."""

    names: pl.DataFrame
    """Their columns NAMES, in order of rows."""
    best_first: NDArray[np.uint32]
    """Those that are the run's own, which come before all references, from best to worst."""
    numbers: NDArray[np.int64]
    """The number of each in the corpus, ascending."""
    member_of: NDArray[np.int32]
    """Of each row of the corpus: which member it is, -1 if none."""
    members: "Members"
    buckets: "Buckets"
    shingles: list[NDArray[np.uint32]]
    """Blocks of memory in which the shingles of their units lie; the kernels have the addresses."""


def gather(corpus: Corpus, shared: list[Shared], ranking: Ranking, crowd: int, memory: Memory) -> Gathered:
    """Return the rows that share a bucket in some scope, with all their units, and rank the run's own.

    Memory: 4 bytes for each row of the corpus; for members their ids, hashes and ranks (some 150 bytes), their shingles (4
    bytes each), about 130 bytes a unit, and 4 for each bucket that a unit is in.
    """
    from stages.clusters.compare_kernel import Members
    from stages.clusters.set_kernel import copy_sets, fill_bitmaps

    member_of = memory.zeros(corpus.n_rows, np.int32)
    for each in shared:
        member_of[each.rows[each.n_shared > 0]] = 1
    numbers = np.flatnonzero(member_of)
    member_of[:] = -1
    member_of[numbers] = np.arange(len(numbers), dtype=np.int32)

    names: list[pl.DataFrame] = []
    shingles: list[NDArray[np.uint32]] = []
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("row", "scope", "addresses", "sizes", "exact")}
    unit_of = {each.scope: memory.zeros(len(each.rows), np.int32) for each in shared}
    done = dict.fromkeys(unit_of, 0)
    n_units = n_filled = 0
    for first, frame in corpus.read():
        of_frame = member_of[first : first + frame.height]
        units = read_units(frame)
        is_in = of_frame[units.rows] >= 0
        at = np.where(is_in, np.cumsum(is_in) - 1 + n_units, -1).astype(np.int32)
        for each in shared:
            mine = at[units.scopes == SCOPES.index(each.scope)]
            unit_of[each.scope][done[each.scope] : done[each.scope] + len(mine)] = mine
            done[each.scope] += len(mine)
        if is_in.any():
            n_units += int(is_in.sum())
            sizes = units.sizes[is_in]
            n_shingles = int(sizes.sum(dtype=np.int64))
            if not shingles or len(shingles[-1]) < n_filled + n_shingles:
                shingles.append(memory.zeros(max(n_shingles, min(corpus.n_shingles, _BLOCK)), np.uint32))
                n_filled = 0
            block = shingles[-1][n_filled : n_filled + n_shingles]
            n_filled += n_shingles
            rows = frame.filter(pl.Series(of_frame >= 0))
            # through Arrow, because Polars' strings would hold on to the whole shard that they were taken from
            names.append(pl.DataFrame(pl.from_arrow(rows.select(NAMES).to_arrow())))
            if first < corpus.n_own:
                ranking.read(rows)
            parts["row"].append(of_frame[units.rows[is_in]])
            parts["scope"].append(units.scopes[is_in])
            # a copy: read in place, in order of rank, they would be fetched page by page from all over the disk
            parts["addresses"].append(copy_sets(units.addresses[is_in], sizes, block))
            parts["sizes"].append(sizes)
            parts["exact"].append(units.exact[is_in])
    empty = {"row": np.int32, "scope": np.uint8, "addresses": np.uint64, "sizes": np.int32}
    arrays = {name: np.concatenate([np.empty(0, kind), *parts[name]]) for name, kind in empty.items()}
    bitmaps = memory.zeros((n_units, 8), np.uint64)
    fill_bitmaps(arrays["addresses"], arrays["sizes"], bitmaps)
    members = Members(
        first_unit=_bounds(arrays["row"], arrays["scope"], len(numbers), memory),
        is_reference=numbers >= corpus.n_own,
        rank=np.zeros(len(numbers), np.int32),
        bitmaps=bitmaps,
        exact=np.concatenate([np.empty((0, 2), np.uint64), *parts["exact"]]),
        **arrays,
    )
    buckets = _list_buckets(shared, unit_of, n_units, crowd, memory)
    return Gathered(
        names=pl.concat(names) if names else next(corpus.read())[1].select(NAMES).clear(),
        best_first=ranking.best_first(),
        numbers=numbers,
        member_of=member_of,
        members=members,
        buckets=buckets,
        shingles=shingles,
    )


def _list_buckets(
    shared: list[Shared], unit_of: dict[Any, NDArray[np.int32]], n_units: int, crowd: int, memory: Memory
) -> "Buckets":
    """Return the buckets of each unit, numbered through all scopes."""
    from stages.clusters.bucket_kernel import list_buckets
    from stages.clusters.greedy_kernel import Buckets

    n_of_unit = np.zeros(n_units, np.int64)
    for each in shared:
        is_in = each.n_shared > 0
        n_of_unit[unit_of[each.scope][is_in]] = each.n_shared[is_in]
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_of_unit)])
    listed = memory.zeros(int(first[-1]), np.int32)
    fill = first[:-1].copy()
    n = 0
    for each in shared:
        for band in each.buckets:
            list_buckets(band, unit_of[each.scope], fill, n, listed)
        n += len(each.sizes)
        memory.release(each.buckets)
    sizes = np.concatenate([np.empty(0, np.int32), *(each.sizes for each in shared)])
    begin = memory.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.minimum(sizes, crowd), out=begin[1:])
    kept = memory.zeros(int(begin[-1]), np.int32)
    end = memory.zeros(len(sizes), np.int64)
    end[:] = begin[:-1]
    return Buckets(first=first, shared=listed, sizes=sizes, begin=begin, end=end, kept=kept)


def _bounds(rows: NDArray[np.int32], scopes: NDArray[np.uint8], n_rows: int, memory: Memory) -> NDArray[np.int64]:
    """Return where the units of each row and scope begin, and the end; units are in order of both."""
    bounds = memory.zeros(n_rows * len(SCOPES) + 1, np.int64)
    for scope in range(len(SCOPES)):
        bounds[1 + scope :: len(SCOPES)] = np.bincount(rows[scopes == scope], minlength=n_rows)
    return np.cumsum(bounds, out=bounds)
