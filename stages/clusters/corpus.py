"""The rows of a corpus as numbers: how many there are, and which of their units share a bucket."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.scopes import SCOPES, Scope
from stages.clusters.memory import Memory
from stages.clusters.units import read_units

_SMALLEST_TABLE: Final = 1 << 20
"""Units from which on the table of one band's keys is worth dividing."""
_MOST_PARTITIONS: Final = 1 << 10
_MOST_FOR_BANDS: Final = 0.4
"""Share of the budget that the buckets of all bands may take."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Shards whose rows are numbered through: those of the run first, then those they are only compared with."""

    own: Sequence[pl.DataFrame]
    references: Sequence[pl.DataFrame]
    heights: list[int]
    """Rows of each shard, own and references'."""
    n_units: NDArray[np.int64]
    """Units of all shards by scope."""
    n_shingles: int
    """Shingles of all units."""
    num_perm: int
    """Width of their sketches; 0 if there is none."""

    @property
    def n_rows(self) -> int:
        """Return the number of all rows."""
        return sum(self.heights)

    @property
    def n_own(self) -> int:
        """Return the number of the run's own rows."""
        return sum(self.heights[: len(self.own)])

    @property
    def scopes(self) -> list[Scope]:
        """Return the scopes of which there are units."""
        return [scope for scope, n in zip(SCOPES, self.n_units, strict=True) if n]

    def read(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield of each shard the number of its first row, and the shard."""
        return read_all(self.own, self.references)


def measure(own: Sequence[pl.DataFrame], references: Sequence[pl.DataFrame]) -> Corpus:
    """Read every shard once and return how much there is.

    Raises ValueError where sketches differ in width.
    """
    heights, n_units, n_shingles, widths = [], np.zeros(len(SCOPES), np.int64), 0, set()
    for _, frame in read_all(own, references):
        units = read_units(frame)
        heights.append(frame.height)
        n_units += np.bincount(units.scopes, minlength=len(SCOPES))
        n_shingles += int(units.sizes.sum(dtype=np.int64))
        if len(units.rows):
            widths.add(units.minhash.shape[1])
    if len(widths) > 1:
        raise ValueError(
            f"column minhash: expected one width, got {sorted(widths)} values; sign all with one [signatures] num_perm"
        )
    num_perm = widths.pop() if widths else 0
    return Corpus(
        own=own,
        references=references,
        heights=heights,
        n_units=n_units,
        n_shingles=n_shingles,
        num_perm=num_perm,
    )


def read_all(*sequences: Sequence[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield of each shard the number of its first row, and the shard, which is read then and there."""
    first = 0
    for shards in sequences:
        for i in range(len(shards)):
            frame = shards[i]
            yield first, frame
            first += frame.height


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Of one scope: the buckets of each unit, and the row each unit is of."""

    scope: Scope
    buckets: NDArray[np.uint32]
    """Number of its bucket in each band, ALONE where it shares that with no other: shape (bands, units)."""
    sizes: NDArray[np.int32]
    """Of each bucket: its units."""
    n_shared: NDArray[np.uint16]
    """Of each unit: the bands that it shares."""
    rows: NDArray[np.int32]
    """Of each unit: its row."""


def share(corpus: Corpus, scope: Scope, bands: tuple[int, int], out: NDArray[np.int64], memory: Memory) -> Shared:
    """Return which units of a scope share which buckets; the rows `out` take no part.

    Memory: 4 bytes for each unit and band, 11 a unit, and 8 to 16 for the keys of one band, or of a part of it, at a time.
    """
    # numba takes half a second to import and is of no use to a process that only looks at a run
    from stages.clusters.bucket_kernel import band_keys, share_buckets

    n_bands, n_values = bands
    n_units = int(corpus.n_units[SCOPES.index(scope)])
    # they are written and read band by band, in order, so a file does as well, and leaves room for what does not
    buckets = memory.zeros((n_bands, n_units), np.uint32, most=_MOST_FOR_BANDS)
    rows = memory.zeros(n_units, np.int32)
    begin = 0
    for first, frame in corpus.read():
        units = read_units(frame)
        mine = units.scopes == SCOPES.index(scope)
        minhash, of_rows = (units.minhash, units.rows) if mine.all() else (units.minhash[mine], units.rows[mine])
        end = begin + len(of_rows)
        rows[begin:end] = of_rows + first
        band_keys(minhash, n_values, buckets[:, begin:end])
        begin = end
    is_out = np.isin(rows, out) if len(out) else np.zeros(n_units, np.bool_)
    n_shared = memory.zeros(n_units, np.uint16)
    key = memory.zeros(n_units, np.uint32)
    n_partitions = _partitions(n_units, memory.left)
    sizes: list[NDArray[np.int32]] = []
    n = 0
    for band in range(n_bands):
        sizes.append(share_buckets(buckets[band], is_out, key, n_partitions, n_shared, n))
        n += len(sizes[-1])
    memory.release(key)
    return Shared(scope=scope, buckets=buckets, sizes=np.concatenate(sizes), n_shared=n_shared, rows=rows)


def _partitions(n_units: int, n_bytes: int) -> int:
    """Return into how many parts a band's keys are divided so that the table of one fits."""
    n = 1
    while 16 * n_units // n > n_bytes and n_units // n > _SMALLEST_TABLE and n < _MOST_PARTITIONS:
        n *= 2
    return n
