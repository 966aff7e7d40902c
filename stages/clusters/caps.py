"""Caps: of what has a name in common, no more than so many survivors stay, drawn by what they say."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import GateError
from stages.clusters.hashes import GOLDEN, mix64
from stages.clusters.patterns import expression
from stages.dedup import Cap

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_SALT: Final = np.uint64(0x63617073)  # "caps": not the numbers that splits are drawn with
_SHOWN: Final = 5


class Caps:
    """The rows that each cap is about, read shard by shard, and which of the survivors are beyond it.

    A name is the path of a row's file, or one of its tags. Of the survivors that a cap's pattern matches those stay that
    draw the smallest numbers, a mix of the seed and the content alone; with `each`, of every name by itself. So what
    a smaller limit keeps a larger one keeps too, and no order of the input changes it. A row that several caps
    or names are about stays only if all of them keep it.

    Memory: 24 bytes for each row and cap that is about it; with `each`, for each of its names.
    """

    def __init__(self, caps: Sequence[Cap], seed: int) -> None:
        self._caps, self._seed = caps, np.uint64(seed)
        self._rows: list[list[I64]] = [[] for _ in caps]
        self._draws: list[list[U64]] = [[] for _ in caps]
        self._codes: list[list[I64]] = [[] for _ in caps]
        self._names: list[dict[str, int]] = [{} for _ in caps]
        self._examples: set[str] = set()

    def read(self, shard: pl.DataFrame, first: int) -> None:
        """Take note of the rows of a shard (columns source, tags and content_hash), the first of which has this number."""
        if not self._caps:
            return
        names = shard.select(
            row=pl.int_range(pl.len()) + first, name=pl.concat_list("source", "tags"), content="content_hash"
        ).explode("name")
        if len(self._examples) < _SHOWN:
            self._examples.update(names["name"].drop_nulls().unique().sort().head(_SHOWN))
        for i, cap in enumerate(self._caps):
            found = names.filter(pl.col("name").str.contains(expression(cap.match)))
            found = found.unique(["row", "name"] if cap.each else "row", maintain_order=True)
            known = self._names[i]
            for name in found["name"].unique().sort() if cap.each else ():
                known.setdefault(name, len(known))
            codes = found["name"].replace_strict(known, return_dtype=pl.Int64) if cap.each else found["row"] * 0
            self._rows[i].append(found["row"].to_numpy())
            self._codes[i].append(codes.to_numpy())
            content = found["content"].to_numpy()
            self._draws[i].append(mix64(content ^ mix64(np.array([self._seed]) + GOLDEN + _SALT)))

    def beyond(self, is_kept: NDArray[np.bool_]) -> I64:
        """Return the numbers of the rows that caps drop, given which rows there would be without them.

        Raises GateError if a cap is about no row: then it does nothing, and nobody would know.
        """
        dropped = np.zeros(len(is_kept), np.bool_)
        for i, cap in enumerate(self._caps):
            rows, draws, codes = (np.concatenate(each[i]) for each in (self._rows, self._draws, self._codes))
            if not len(rows) and len(is_kept):
                shown = ", ".join(sorted(self._examples)[:_SHOWN])
                raise GateError(
                    f"[[dedup.caps]] match = {cap.match!r}: expected a pattern of paths or tags, but it matches none; there are "
                    f"{shown}, ... A pattern is matched against the whole path or tag: write *name* for a part of it, and "
                    '"source:NAME" for a source that tags name'
                )
            known = is_kept[rows]
            rows, draws, codes = rows[known], draws[known], codes[known]
            order = np.lexsort((rows, draws, codes))
            ascending = codes[order]
            places = np.arange(len(order)) - np.searchsorted(ascending, ascending)
            dropped[rows[order][places >= cap.limit]] = True
        return np.flatnonzero(dropped)
