"""Every pair of similar texts, by counting what each text has in common with every other; no sketch, no candidate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

BLOCK = 1_000
"""Texts that are multiplied with all others at a time."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, each both ways, at least `threshold` similar."""

    n_rows: int
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def at(self, threshold: float) -> "Pairs":
        """Return those at least so similar."""
        is_in = self.similarity >= threshold
        return Pairs(self.n_rows, self.left[is_in], self.right[is_in], self.similarity[is_in])

    def removed(self, order: Sequence[int]) -> NDArray[np.bool_]:
        """Say which rows go: those similar to a row that was kept before, when visited in this order."""
        by = np.argsort(self.left, kind="stable")
        bounds = np.searchsorted(self.left[by], np.arange(self.n_rows + 1))
        others = self.right[by]
        is_kept = np.zeros(self.n_rows, np.bool_)
        for row in order:
            is_kept[row] = not is_kept[others[bounds[row] : bounds[row + 1]]].any()
        return ~is_kept

    def among(self, is_in: NDArray[np.bool_]) -> "Pairs":
        """Return those of which both rows are in."""
        both = is_in[self.left] & is_in[self.right]
        return Pairs(self.n_rows, self.left[both], self.right[both], self.similarity[both])

    def of(self, rows: NDArray[np.int64]) -> "Pairs":
        """Return those among these rows alone, numbered as they come."""
        place = np.full(self.n_rows, -1, np.int64)
        place[rows] = np.arange(len(rows))
        left, right = place[self.left], place[self.right]
        both = (left >= 0) & (right >= 0)
        return Pairs(len(rows), left[both], right[both], self.similarity[both])

    def beside(self, is_in: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say which rows are similar to one of these."""
        found = np.zeros(self.n_rows, np.bool_)
        found[self.left[is_in[self.right]]] = True
        return found


def similar_pairs(signed: pl.DataFrame, threshold: float) -> Pairs:
    """Return all pairs of rows of schemas.tables.SIGNED, one unit each or none, whose shingles are so similar."""
    shingles = signed.select(
        pl.col("units").list.eval(pl.element().struct.field("shingles").explode(empty_as_null=False))
    ).to_series()
    sizes = shingles.list.len().to_numpy().astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    flat = shingles.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    columns = np.unique(flat, return_inverse=True)[1]
    n_columns = int(columns.max(initial=0)) + 1
    has = csr_array((np.ones(len(flat), np.int32), columns.astype(np.int32), starts), shape=(len(sizes), n_columns))
    had = has.T.tocsr()
    parts = []
    for first in range(0, len(sizes), BLOCK):
        common = (has[first : first + BLOCK] @ had).tocoo()
        left, right, n = common.row + np.int64(first), common.col.astype(np.int64), common.data
        similarity = n / (sizes[left] + sizes[right] - n)
        is_in = (similarity >= threshold) & (left != right)
        parts.append((left[is_in], right[is_in], similarity[is_in]))
    left, right, similarity = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(len(sizes), left, right, similarity)
