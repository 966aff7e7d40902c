"""The units of a shard - one text to be compared each - as arrays over the shard's own memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.scopes import SCOPES
from stages.clusters.hashes import hash_bytes


@dataclass(frozen=True, kw_only=True)
class Units:
    """All units of a shard, in order of rows; nothing is copied but 24 bytes a unit."""

    rows: NDArray[np.int32]
    """Row of the shard that each unit is of, ascending."""
    scopes: NDArray[np.uint8]
    """Index of its scope in schemas.scopes.SCOPES."""
    exact: NDArray[np.uint64]
    """Its 128-bit exact hash: shape (units, 2)."""
    addresses: NDArray[np.uint64]
    """Where its shingles lie, as uint32, ascending."""
    sizes: NDArray[np.int32]
    """How many there are."""
    minhash: NDArray[np.uint32]
    """Its sketch: shape (units, num_perm)."""
    owner: Any
    """What keeps the memory at `addresses` alive."""


def read_units(frame: pl.DataFrame) -> Units:
    """Return the units of a frame of schemas.tables.SIGNED.

    Raises ValueError where sketches differ in width: they were not made with one [signatures] num_perm.
    """
    lists = frame["units"].rechunk().to_arrow()
    bounds = lists.offsets.to_numpy().astype(np.int64)
    units = lists.values.slice(bounds[0], bounds[-1] - bounds[0])
    shingles, minhash = units.field("shingles"), units.field("minhash")
    starts = shingles.offsets.to_numpy().astype(np.int64)
    values = shingles.values.to_numpy(zero_copy_only=True)
    return Units(
        rows=np.repeat(np.arange(frame.height, dtype=np.int32), np.diff(bounds)),
        scopes=_codes(pl.Series(pl.from_arrow(units.field("scope")))),
        exact=hash_bytes(units.field("exact_hash")).view(np.uint64),
        addresses=np.uint64(values.ctypes.data) + starts[:-1].astype(np.uint64) * np.uint64(values.itemsize),
        sizes=np.diff(starts).astype(np.int32),
        minhash=_matrix(minhash),
        owner=values,
    )


def _codes(names: pl.Series) -> NDArray[np.uint8]:
    codes = np.full(len(names), len(SCOPES), np.uint8)
    for code, name in enumerate(SCOPES):
        codes[(names == name).to_numpy()] = code
    return codes


def _matrix(minhash: pa.Array) -> NDArray[np.uint32]:
    starts = minhash.offsets.to_numpy()
    widths = np.diff(starts)
    n = int(widths[0]) if len(widths) else 0
    if (widths != n).any():
        raise ValueError(
            f"column minhash: expected {n} values in every signature, got {widths.min()} to {widths.max()}; "
            "sign all shards with one [signatures] num_perm"
        )
    values: NDArray[np.uint32] = minhash.values.to_numpy(zero_copy_only=True)
    return values[starts[0] : starts[-1]].reshape(len(widths), n)
