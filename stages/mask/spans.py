"""The spans of a frame as flat arrays of codes, for the kernels."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.mask.table import CLASSES, ROLES


class Spans(NamedTuple):
    """One entry per span, all rows' one after another; row i has `offsets[i]` to `offsets[i + 1]`."""

    offsets: NDArray[np.int64]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    roles: NDArray[np.uint8]
    """Indices into table.ROLES."""
    classes: NDArray[np.uint8]
    """Indices into table.CLASSES."""
    messages: NDArray[np.int32]
    weights: NDArray[np.float32]
    """The message's own; 1 where it has none."""


def spans_of(column: pl.Series) -> Spans:
    """Return the spans of a list column of TOKEN_SPAN structs."""
    offsets = np.concatenate(([0], column.list.len().cum_sum().to_numpy())).astype(np.int64)
    fields = column.explode(empty_as_null=False).struct.unnest()
    return Spans(
        offsets,
        fields["start"].to_numpy(),
        fields["end"].to_numpy(),
        _codes(fields["role"], ROLES),
        _codes(fields["class"], CLASSES),
        fields["message"].to_numpy(),
        fields["weight"].fill_null(1.0).to_numpy(),
    )


def _codes(column: pl.Series, names: tuple[str, ...]) -> NDArray[np.uint8]:
    return np.asarray(column.cast(pl.Enum(names)).to_physical().to_numpy(), np.uint8)
