"""Which records are read: drawn by a hash of the seed, the path and the record's number, before anything is decoded."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.source.chunk import Chunk
from pipeline.source.settings import Source
from schemas.reasons import DropReason
from stages.clusters.hashes import GOLDEN, mix64

U64 = NDArray[np.uint64]

_ALL: Final = 1 << 63
"""Draws are smaller than this."""
_HELD: Final = 1 << 20


def draws(path: str, seed: int, numbers: NDArray[np.int64]) -> U64:
    """Return the number, uniform over 63 bits, that each record of the file at `path` draws.

    It depends on the seed, the path as given and the record's number (its line) alone.
    """
    start = mix64(np.array([seed], np.uint64) + GOLDEN)
    name = np.frombuffer(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[:8], ">u8").astype(np.uint64)
    drawn: U64 = mix64(mix64(start ^ name) + numbers.astype(np.uint64) * GOLDEN) >> np.uint64(1)
    return drawn


def choose(chunks: Sequence[Chunk], set_of: Mapping[str, int], config: Source) -> list[Chunk]:
    """Return the chunks, each with what it needs to know which of its records are in the sample; see Source.limit.

    `set_of` says of each path the number of its set, from 1; 0 for the rest. A share takes the records that draw the smallest
    numbers, a limit as many of these as it says: so a sample is part of every larger one. A limit of all inputs takes
    from each set as large a part as the set's own share and limit leave in proportion. What a chunk is told follows from
    which of its records are chosen, so that it stays as it was when a limit moves elsewhere. Blank lines draw as well: a
    limit takes fewer where there are some.

    Memory: 8 bytes for each of `limit` records, and for each of one chunk.
    """
    shares = [1.0, *(each.share for each in config.sets)]
    limits = [None, *(each.limit for each in config.sets)]
    if config.limit is None and all(share == 1 for share in shares) and not any(limits):
        return list(chunks)
    ends = [int(share * _ALL) for share in shares]  # draws below its end are taken from a set
    for number, limit in enumerate(limits):
        if limit is not None:
            of_set = (drawn for chunk, drawn in _drawn(chunks, config) if set_of[chunk.path] == number)
            cut = _smallest((drawn[drawn < ends[number]] for drawn in of_set), limit)
            ends[number] = ends[number] if cut is None else int(cut)
    places = None
    if config.limit is not None:
        # where each stands among those that its set offers, so that what one set gives up is not made up for by another
        placed = (
            _places(drawn[drawn < ends[set_of[chunk.path]]], ends[set_of[chunk.path]])
            for chunk, drawn in _drawn(chunks, config)
        )
        places = _smallest(placed, config.limit)
    chosen = []
    for chunk, drawn in _drawn(chunks, config):
        end = ends[set_of[chunk.path]]
        is_in = drawn < end
        if places is not None:
            is_in &= _places(drawn, end) < places
        last = int(drawn[is_in].max()) + 1 if is_in.any() else 0
        chosen.append(chunk if is_in.all() else msgspec.structs.replace(chunk, sample=(config.seed, last)))
    return chosen


def only_sampled(lines: pl.DataFrame, chunk: Chunk) -> pl.DataFrame:
    """Return the lines of a chunk (schemas.tables.LINES) without the bytes of those that are not in the sample."""
    if chunk.sample is None:
        return lines
    seed, end = chunk.sample
    numbers = lines["line"].to_numpy()
    # what stands behind the last record says that a file is torn: that is no matter of chance
    is_in = (draws(chunk.path, seed, numbers) < end) | (numbers >= chunk.line + chunk.n_records)
    return lines.with_columns(
        raw=pl.when(pl.Series(is_in)).then("raw"),
        skip=pl.when(pl.Series(is_in)).then("skip").otherwise(pl.lit(DropReason.NOT_SAMPLED.value)),
    )


def _drawn(chunks: Sequence[Chunk], config: Source) -> Iterable[tuple[Chunk, U64]]:
    for chunk in chunks:
        if chunk.container == "lines" and not chunk.n_records and not chunk.is_torn:
            raise ValueError(f"{chunk.path}: a chunk that does not say how many records it has cannot be sampled from")
        yield chunk, draws(chunk.path, config.seed, np.arange(chunk.line, chunk.line + chunk.n_records))


def _places(drawn: U64, end: int) -> NDArray[np.float64]:
    return drawn / np.float64(max(end, 1))


def _smallest(parts: Iterable[NDArray[Any]], n: int) -> float | int | None:
    """Return what the n smallest of all values are less than; None if there are no more than n."""
    held: list[NDArray[Any]] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size > 2 * n + _HELD:
            held = [np.partition(np.concatenate(held), n)[: n + 1]]
            size = n + 1
    if size <= n:
        return None
    value: float | int = np.partition(np.concatenate(held), n)[n].item()
    return value
