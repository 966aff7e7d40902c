"""Compiled: which evaluation texts a text contains, found by their rarest shingles."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba import uint32 as u32
from numba import uint64 as u64
from numpy.typing import NDArray

from stages.pointers import halves_at

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

NONE = -1
_COUNTED = 22
"""Leading bits by which shingles are counted."""
_MARKS = 1 << 15
"""Bits of the bitmap of a row's unit: 4 KiB, which stay near."""


class Texts(NamedTuple):
    """Evaluation texts: values[starts[t]:starts[t + 1]] are the shingles of text t, ascending."""

    values: U32
    starts: I64
    needed: I32
    """Shingles that a text must share to count."""
    records: I32
    """Record that each text is of; the smaller wins of equals."""


class Index(NamedTuple):
    """The rarest shingles of each text, ascending, each with the texts it is of."""

    keys: U32
    bounds: I64
    """texts[bounds[k]:bounds[k + 1]] have keys[k] among their rarest."""
    texts: I32
    table: I64
    """Keys whose leading bits are p are keys[table[p]:table[p + 1]]."""
    bitmap: U64
    """Bit p is set if some key has the leading bits p; more bits than `table` knows."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def rarest_shingles(texts: Texts) -> U64:
    """Return (shingle << 32 | text) for as many of each text's rarest shingles as one that counts cannot lack.

    Who shares `needed` of n shingles shares one of any n - needed + 1 (prefix filtering, see rare_kernel); the rarest
    make the fewest candidates. Rare is whose leading bits few have, which is near enough: any choice loses nothing.
    """
    n_texts = len(texts.needed)
    counts = np.zeros(1 << _COUNTED, np.uint32)
    for value in texts.values:
        counts[value >> u32(32 - _COUNTED)] += u32(1)
    total = longest = 0
    for text in range(n_texts):
        size = texts.starts[text + 1] - texts.starts[text]
        total += size - texts.needed[text] + 1
        longest = max(longest, size)
    postings = np.empty(total, np.uint64)
    keys = np.empty(longest, np.uint64)
    filled = 0
    for text in range(n_texts):
        values = texts.values[texts.starts[text] : texts.starts[text + 1]]
        for i in range(len(values)):
            keys[i] = u64(counts[values[i] >> u32(32 - _COUNTED)]) << u64(32) | u64(values[i])
        keys[: len(values)].sort()
        for i in range(len(values) - texts.needed[text] + 1):
            postings[filled] = u64(u32(keys[i])) << u64(32) | u64(text)
            filled += 1
    return postings


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def set_bits(keys: U32, bits: int) -> U64:
    """Return a bitmap of the leading bits of the keys."""
    bitmap = np.zeros(max(1 << bits >> 6, 1), np.uint64)
    for key in keys:
        bit = u64(key) >> u64(32 - bits)
        bitmap[bit >> u64(6)] |= u64(1) << (bit & u64(63))
    return bitmap


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def most_contained(
    addresses: U64, sizes: I32, rows: I32, n_rows: int, texts: Texts, index: Index, bits: int, table_bits: int
) -> tuple[I32, NDArray[np.float64]]:
    """Return for each row the evaluation record of which one of its units has the largest share, and that share.

    NONE and 0 where none counts. `rows` has the row of each unit.
    """
    best = np.full(n_rows, np.int32(NONE))
    overlap = np.zeros(n_rows, np.float64)
    seen = np.full(len(texts.needed), np.int32(NONE))
    marks = np.zeros(_MARKS >> 6, np.uint64)
    hits = np.empty(max(sizes.max(), 1) if len(sizes) else 1, np.uint32)
    for unit in range(len(sizes)):
        values = halves_at(addresses[unit], sizes[unit])
        n_hits = _sift(values, index.bitmap, bits, hits)
        if n_hits == 0:
            continue  # nearly all rows that contain nothing
        row = rows[unit]
        is_marked = False
        for hit in hits[:n_hits]:
            slot = u64(hit) >> u64(32 - table_bits)
            for key in range(index.table[slot], index.table[slot + u64(1)]):
                if index.keys[key] != hit:
                    continue
                for text in index.texts[index.bounds[key] : index.bounds[key + 1]]:
                    if seen[text] == unit:
                        continue
                    seen[text] = unit
                    if not is_marked:
                        is_marked = True
                        _mark(marks, values)
                    own = texts.values[texts.starts[text] : texts.starts[text + 1]]
                    share = _share(own, values, marks, texts.needed[text])
                    record = texts.records[text]
                    if share > overlap[row] or (share == overlap[row] and record < best[row]):
                        best[row], overlap[row] = record, share
        if is_marked:
            for value in values:
                marks[(value & u32(_MARKS - 1)) >> u32(6)] = u64(0)
    return best, overlap


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sift(values: U32, bitmap: U64, bits: int, hits: U32) -> int:
    """Write to `hits` the values that the bitmap knows, and return how many."""
    shift = u64(32 - bits)
    n = 0
    for value in values:  # always write, count only what is known: no branch to guess
        bit = u64(value) >> shift
        hits[n] = value
        n += int((bitmap[bit >> u64(6)] >> (bit & u64(63))) & u64(1))
    return n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mark(marks: U64, values: U32) -> None:
    for value in values:
        marks[(value & u32(_MARKS - 1)) >> u32(6)] |= u64(1) << u64(value & u32(63))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _share(own: U32, values: U32, marks: U64, needed: int) -> float:
    """Return the share of `own` that is in `values`, both ascending; 0 if fewer than `needed` are.

    What is not marked is not there: most texts are out as soon as too many of theirs are not.
    """
    allowed = len(own) - needed
    for value in own:
        mark = marks[(value & u32(_MARKS - 1)) >> u32(6)] >> u64(value & u32(63))
        allowed -= 1 - int(mark & u64(1))
        if allowed < 0:
            return 0.0
    i = j = common = 0
    while i < len(own) and j < len(values):
        x, y = own[i], values[j]
        common += x == y
        i += x <= y
        j += y <= x
    return common / len(own) if common >= needed else 0.0
