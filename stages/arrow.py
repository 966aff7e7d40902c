"""Flat buffers of list columns, in and out of Polars, without a Python object per value."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def list_buffers(column: pl.Series) -> tuple[Ints, NDArray[Any]]:
    """Return (offsets, values) of a list column of numbers without nulls: row i is values[offsets[i]:offsets[i + 1]]."""
    array = _one_chunk(column)
    offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    # A slice of a frame shares its buffers with the whole: cut the values, and count from their beginning.
    first, last = int(offsets[0]), int(offsets[-1])
    return offsets - first, array.values[first:last].to_numpy(zero_copy_only=False)


def string_buffers(column: pl.Series) -> tuple[Ints, NDArray[np.uint8]]:
    """Return (offsets, UTF-8 bytes) of a string column; a null reads as the empty text."""
    array = _one_chunk(column).cast(pa.large_string())
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return ends, np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)


def list_column(offsets: NDArray[Any], values: NDArray[Any] | pa.Array) -> pa.ListArray:
    """Return the list array whose row i is values[offsets[i]:offsets[i + 1]]."""
    if len(values) > np.iinfo(np.int32).max:
        raise OverflowError(f"{len(values)} values in one shard; lower [source] shard_bytes")
    items = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items)


def sparse_strings(values: Mapping[int, str], n_rows: int) -> pa.StringArray:
    """Return the string array with `values` at their rows and null everywhere else."""
    return (
        pa.array([values.get(row) for row in range(n_rows)], pa.string()) if values else pa.nulls(n_rows, pa.string())
    )


def frame(columns: dict[str, Any]) -> pl.DataFrame:
    """Return the Polars frame of Arrow arrays."""
    out = pl.from_arrow(pa.table(columns))
    assert isinstance(out, pl.DataFrame)
    return out


def _one_chunk(column: pl.Series) -> Any:
    array = column.rechunk().to_arrow()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
