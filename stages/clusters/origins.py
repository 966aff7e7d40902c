"""Where rows come from: the path of their file, and each source that their tags name."""

from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

PREFIX: Final = "source:"
"""What a tag begins with that names a source. It stays in the origin's name, so that no path is taken for it."""
_BORDER: Final = "\0"  # in no path, and no text has it: ingest refuses it


class Origins(NamedTuple):
    """Of each row of a shard, which set of origins it has."""

    codes: NDArray[np.uint32]
    """Of each row: its set."""
    sets: list[tuple[str, ...]]
    """The sets that occur: the path first, then each "source:NAME" once, in alphabetical order."""


def origins_of(shard: pl.DataFrame) -> Origins:
    """Return the origins of the rows of a shard (columns source and tags)."""
    named = pl.element().filter(pl.element().str.starts_with(PREFIX))
    joined = shard.select(
        pl.concat_str("source", pl.col("tags").list.eval(named).list.join(_BORDER), separator=_BORDER)
    ).to_series()
    codes = (joined.rank("dense") - 1).to_numpy().astype(np.uint32)
    sets = []
    for text in joined.unique().sort():
        path, *names = text.split(_BORDER)
        sets.append((path, *sorted({name for name in names if name})))
    return Origins(codes, sets)
