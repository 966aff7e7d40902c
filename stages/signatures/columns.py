"""Arrow columns over flat buffers, uncopied."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

I64 = NDArray[np.int64]


def hash_column(words: NDArray[np.uint64], is_valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return a binary column of 16 bytes per row from (rows, 2) words, big-endian so that hex reads like the number."""
    n = len(words)
    data = words.astype(">u8")
    if is_valid is None or is_valid.all():
        offsets = np.arange(n + 1, dtype=np.int64) * 16
        return _binaries(n, None, offsets, data)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(is_valid, dtype=np.int64) * 16])
    bits = np.packbits(is_valid, bitorder="little")
    return _binaries(n, pa.py_buffer(bits), offsets, data[is_valid])


def list_of(bounds: I64, items: pa.Array | NDArray[Any]) -> pa.Array:
    """Return the list column whose row i is items[bounds[i]:bounds[i + 1]]."""
    return pa.LargeListArray.from_arrays(pa.array(bounds), items if isinstance(items, pa.Array) else pa.array(items))


def chosen_strings(codes: NDArray[np.uint8], names: Sequence[str]) -> pa.Array:
    """Return the column of names[code] of each row; a name of up to twelve bytes is all in its 16-byte view."""
    views = np.array([len(name).to_bytes(4, "little") + name.encode("ascii").ljust(12, b"\0") for name in names], "S16")
    return pa.Array.from_buffers(pa.string_view(), len(codes), [None, pa.py_buffer(views[codes])])


def struct_of(columns: dict[str, pa.Array]) -> pa.Array:
    """Return the struct column of these fields."""
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def series(array: pa.Array) -> pl.Series:
    """Return a column of Polars over the buffers of Arrow's."""
    return pl.Series(pl.from_arrow(array))


def _binaries(n: int, valid: pa.Buffer | None, offsets: I64, data: NDArray[Any]) -> pa.Array:
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, buffers)
