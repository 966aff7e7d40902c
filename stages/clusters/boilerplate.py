"""Boilerplate: shingles that so many texts have that they say nothing of any, and signatures without them."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Final, overload

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.scopes import SCOPES
from stages.clusters.units import Units, read_units
from stages.signatures import sketch_permutations

U32 = NDArray[np.uint32]

FEWEST: Final = 10
"""Texts that must have a shingle before it can be common, whatever the share."""
_SEED: Final = 1
_PLACES: Final = 1 << 15
"""Slots whose shingles are counted one by one in one reading of the corpus: 128 MiB."""


def without_boilerplate(
    shards: Sequence[pl.DataFrame], against: Sequence[pl.DataFrame], share: float
) -> tuple[Sequence[pl.DataFrame], Sequence[pl.DataFrame]]:
    """Return both sequences with units that lack what is common in `shards`; each shard is made when it is asked for.

    All are sketched with the permutations of one seed, whatever they were signed with.
    """
    common = find_common(shards, share)
    return _Filtered(shards, common), _Filtered(against, common)


def find_common(shards: Sequence[pl.DataFrame], share: float, *, places: int = _PLACES) -> dict[str, U32]:
    """Return of each scope the shingles, ascending, that are in at least `share` of its units, and in at least ten.

    Exact: a first reading counts by the leading 22 bits of the shingles, which is never too few; a second counts
    each shingle of those slots that reach the limit. A slot is 1,024 shingles, so no table can overflow; if more than `places`
    slots reach the limit, there are further readings.

    Memory: 16 MiB for each scope, and 4 KiB for each of `places` at most.
    """
    # numba takes half a second to import and is of no use to a process that only looks at a run
    from stages.clusters.boilerplate_kernel import LOW, SLOTS, count_shingles, count_slots

    slots: dict[int, U32] = {}
    n_units = np.zeros(len(SCOPES), np.int64)
    for scope, units, mine in _by_scope(shards):
        count_slots(units.addresses[mine], units.sizes[mine], slots.setdefault(scope, np.zeros(SLOTS, np.uint32)))
        n_units[scope] += mine.sum()
    limits = {scope: _limit(share, int(n_units[scope])) for scope in slots}
    waiting = {scope: np.flatnonzero(counts >= limits[scope]) for scope, counts in slots.items()}
    slots.clear()
    found: dict[int, list[U32]] = {scope: [] for scope in waiting}
    at_once = max(places // max(len(waiting), 1), 1)
    while any(len(each) for each in waiting.values()):
        now = {scope: each[:at_once] for scope, each in waiting.items() if len(each)}
        waiting = {scope: each[at_once:] for scope, each in waiting.items()}
        place = {scope: np.full(SLOTS, -1, np.int32) for scope in now}
        counts = {scope: np.zeros((len(each), 1 << LOW), np.uint32) for scope, each in now.items()}
        for scope, each in now.items():
            place[scope][each] = np.arange(len(each), dtype=np.int32)
        for scope, units, mine in _by_scope(shards):
            if scope in now:
                count_shingles(units.addresses[mine], units.sizes[mine], place[scope], counts[scope])
        for scope, each in now.items():
            at, low = np.nonzero(counts[scope] >= limits[scope])
            found[scope].append((each[at] << LOW | low).astype(np.uint32))
    return {SCOPES[scope]: np.concatenate([*each, np.empty(0, np.uint32)]) for scope, each in sorted(found.items())}


def without_common(shard: pl.DataFrame, common: Mapping[str, U32], permutations: U32) -> pl.DataFrame:
    """Return the shard (schemas.tables.SIGNED) with units that lack the common shingles of their scope.

    All sketches are made anew with `permutations` (2, num_perm), those of units that lost nothing as well, so that they
    compare. A unit that would lose every shingle keeps them all: it is nothing but boilerplate, and may be a duplicate
    of its like. exact_hash stays, so equal texts are equal still.
    """
    from stages.clusters.boilerplate_kernel import filter_shingles
    from stages.signatures.sketch_kernel import sketch_rows

    units = read_units(shard)
    of_scopes = [common.get(scope, np.empty(0, np.uint32)) for scope in SCOPES]
    ends = np.cumsum([0, *map(len, of_scopes)], dtype=np.int64)
    shingles, bounds = filter_shingles(units.addresses, units.sizes, units.scopes, np.concatenate(of_scopes), ends)
    a, b = permutations
    minhash = sketch_rows(shingles, bounds, np.ascontiguousarray(a), np.ascontiguousarray(b))
    lists = shard["units"].rechunk().to_arrow()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    old = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    widths = np.arange(len(bounds), dtype=np.int64) * len(a)
    new = {
        "shingles": pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(shingles)),
        "minhash": pa.LargeListArray.from_arrays(pa.array(widths), pa.array(minhash.reshape(-1))),
    }
    names = [field.name for field in old.type]
    struct = pa.StructArray.from_arrays([new.get(name, old.field(name)) for name in names], names)
    column = pa.LargeListArray.from_arrays(pa.array(offsets - offsets[0]), struct)
    return shard.with_columns(pl.Series("units", pl.from_arrow(column)))


class _Filtered(Sequence[pl.DataFrame]):
    """Shards without the common shingles."""

    def __init__(self, shards: Sequence[pl.DataFrame], common: Mapping[str, U32]) -> None:
        self._shards, self._common = shards, common

    def __len__(self) -> int:
        return len(self._shards)

    @overload
    def __getitem__(self, at: int) -> pl.DataFrame: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[pl.DataFrame]: ...
    def __getitem__(self, at: int | slice) -> pl.DataFrame | Sequence[pl.DataFrame]:
        if isinstance(at, slice):
            return _Filtered(self._shards[at], self._common)
        shard = self._shards[at]
        num_perm = read_units(shard).minhash.shape[1]
        return without_common(shard, self._common, sketch_permutations(num_perm, _SEED)) if num_perm else shard


def _by_scope(shards: Sequence[pl.DataFrame]) -> Iterator[tuple[int, Units, NDArray[np.bool_]]]:
    """Yield of each shard, for each scope, its units and which of them are of the scope; one shard at a time."""
    for i in range(len(shards)):
        units = read_units(shards[i])
        for scope in np.unique(units.scopes).tolist():
            yield scope, units, units.scopes == scope


def _limit(share: float, n_units: int) -> int:
    """Return the smallest number that is at least `share` of the units, and at least FEWEST."""
    limit = ceil(share * n_units)
    while limit > 0 and (limit - 1) / n_units >= share:
        limit -= 1
    while limit / n_units < share:
        limit += 1
    return max(limit, FEWEST)
