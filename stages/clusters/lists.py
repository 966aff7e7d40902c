"""Where the lists of a column lie in memory, row by row, without copying them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class RowLists:
    """Addresses and sizes of the uint32 lists of a column, and what keeps them alive."""

    addresses: NDArray[np.uint64]
    sizes: NDArray[np.int32]
    owners: tuple[Any, ...]
    """The Arrow arrays; the addresses are good as long as these are referenced."""


def row_lists(column: pl.Series) -> RowLists:
    """Return where each row's values lie; a column of several chunks (memory-mapped shards) stays in them.

    Twelve bytes per row. One buffer would be simpler, but joining the chunks would copy the whole corpus.
    """
    addresses, sizes, owners = [], [], []
    for chunk in column.get_chunks():
        array = chunk.to_arrow()
        offsets = array.offsets.to_numpy().astype(np.int64)
        values = array.values.to_numpy(zero_copy_only=True)
        if values.dtype != np.uint32:
            raise ValueError(f"column {column.name}: expected lists of uint32, got {values.dtype}")
        addresses.append(np.uint64(values.ctypes.data) + offsets[:-1].astype(np.uint64) * np.uint64(4))
        sizes.append(np.diff(offsets).astype(np.int32))
        owners.append(array)
    return RowLists(addresses=np.concatenate(addresses), sizes=np.concatenate(sizes), owners=tuple(owners))
