"""Contamination: which rows contain a record of an evaluation set."""

from collections.abc import Sequence
from math import ceil
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.clusters.rank import best_first
from stages.clusters.units import read_units

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]

EVIDENCE: Final = 8
"""Shingles that a row must share with a record, or all if the record has fewer: with five words a shingle, twelve
words in a row. Less is what a language says every day."""
_PLACE: Final = ("id", "source", "tags", "score", "created", "n_chars", "content_hash", "text_hash")


class EvaluationIndex:
    """The texts of evaluation records (schemas.tables.SIGNED), to be looked for in rows.

    A row contains a text as far as it has the text's distinct shingles: its overlap is their share, found in one unit
    of the row. The share is the evaluation text's own, not the row's, so a question is found in a long conversation, and
    phrases that all the world uses do no harm: they are a small part of a question, and a row that has nothing else of it
    stays below any sensible minimum. A text counts from an overlap of `minimum` on, and only if the row has at
    least EVIDENCE of its shingles; of a text with fewer it must have all.

    Which texts: a record has a unit for each scope that [signatures] asks for, and each is looked for by itself, in units
    of any scope: a row that has the question but another answer is contaminated as well. But "yes" is an answer to
    everything: units of fewer than EVIDENCE shingles are left out if the record has a larger one, and of a record
    that has none, the largest unit stands for it. A text that is shorter than [signatures]
    ngram is one shingle, of all its words, and so is found where it is a unit's whole text, never inside another.

    Exact: no row that contains a text is missed. Memory: 4 bytes for each shingle of the evaluation texts, and 20 to 30 for
    each of those that are indexed, the rarest 1 - minimum of them.
    """

    def __init__(self, evaluations: Sequence[pl.DataFrame], minimum: float) -> None:
        from stages.clusters.overlap_kernel import Index, Texts, rarest_shingles, set_bits

        self._ids = pl.Series("id", [], pl.String)
        values, sizes, records = self._texts(evaluations)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        needed = np.array([_needed(size, minimum) for size in sizes.tolist()], np.int32)
        self._index_texts = Texts(values, starts, needed, records)
        postings = np.sort(rarest_shingles(self._index_texts))
        shingles = (postings >> np.uint64(32)).astype(np.uint32)
        first = np.flatnonzero(
            np.concatenate([np.ones(min(len(shingles), 1), np.bool_), shingles[1:] != shingles[:-1]])
        )
        keys = shingles[first]
        self._table_bits = max(len(keys) - 1, 1).bit_length()
        self._bits = min(
            max(self._table_bits + 4, 12), 32
        )  # one in sixteen bits is set, so one in sixteen passes for nothing
        prefixes = np.arange((1 << self._table_bits) + 1, dtype=np.uint64) << np.uint64(32 - self._table_bits)
        self._index = Index(
            keys=keys,
            bounds=np.append(first, len(shingles)).astype(np.int64),
            texts=postings.astype(np.uint32).view(np.int32),
            table=np.searchsorted(keys.astype(np.uint64), prefixes).astype(np.int64),
            bitmap=set_bits(keys, self._bits),
        )

    def overlaps(self, shard: pl.DataFrame) -> tuple[I32, pl.Series, NDArray[np.float64]]:
        """Return the rows that contain a record: their numbers, ascending, the record's id, and the overlap.

        Of several records it is the one with the largest overlap, of equals the first by path and line.
        """
        from stages.clusters.overlap_kernel import NONE, most_contained

        units = read_units(shard)
        best, overlap = most_contained(
            units.addresses,
            units.sizes,
            units.rows,
            shard.height,
            self._index_texts,
            self._index,
            self._bits,
            self._table_bits,
        )
        rows = np.flatnonzero(best != NONE).astype(np.int32)
        return rows, self._ids.gather(best[rows]), overlap[rows]

    def _texts(self, evaluations: Sequence[pl.DataFrame]) -> tuple[U32, I32, I32]:
        """Return shingles, number of them, and record of each text to be looked for; records in order of their places."""
        places, values, sizes, owners = [], [np.empty(0, np.uint32)], [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        first = 0
        for i in range(len(evaluations)):
            frame = evaluations[i]
            units = read_units(frame)
            chosen = _spokesmen(units.rows, units.sizes)
            begins = ((units.addresses - np.uint64(units.owner.ctypes.data)) // np.uint64(4)).astype(np.int64)[chosen]
            values += [
                units.owner[begin : begin + size] for begin, size in zip(begins, units.sizes[chosen], strict=True)
            ]
            sizes.append(units.sizes[chosen])
            owners.append(units.rows[chosen] + np.int32(first))
            places.append(frame.select(_PLACE))
            first += frame.height
        if not places:
            return values[0], sizes[0], owners[0]
        rows = pl.concat(places)
        order = best_first(rows, ("first",), ())
        self._ids = rows["id"].gather(order)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return np.concatenate(values), np.concatenate(sizes), rank[np.concatenate(owners)]


def _spokesmen(rows: I32, sizes: I32) -> I64:
    """Return the units to be looked for: those with evidence, or of a record that has none such its largest, the first."""
    has_evidence = sizes >= EVIDENCE
    is_served = np.zeros(int(rows.max(initial=-1)) + 1, np.bool_)
    is_served[rows[has_evidence]] = True
    small = np.flatnonzero(~is_served[rows])
    by_size = small[np.lexsort((small, -sizes[small].astype(np.int64), rows[small]))]
    is_first = np.ones(len(by_size), np.bool_)
    is_first[1:] = rows[by_size[1:]] != rows[by_size[:-1]]
    return np.sort(np.concatenate([np.flatnonzero(has_evidence), by_size[is_first]]))


def _needed(size: int, minimum: float) -> int:
    """Return the smallest number of shingles whose share is at least `minimum`, EVIDENCE or all of them at least."""
    needed = ceil(minimum * size)
    while needed > 0 and (needed - 1) / size >= minimum:
        needed -= 1
    while needed / size < minimum:
        needed += 1
    return max(needed, min(EVIDENCE, size))
