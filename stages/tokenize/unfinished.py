"""Turns of which only the beginning is kept: encoded to their end, and then cut at a token."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.spans import SpanClass
from stages import arrow
from stages.tokenize.engine import Engine
from stages.tokenize.policies import Cut, Ending, Outline, Turn, Window, cut_before

_ENDINGS: Final = {
    SpanClass.CONTENT.value: Ending.INSIDE,
    SpanClass.REASONING.value: Ending.INSIDE,
    SpanClass.TOOL_CALL.value: Ending.INSIDE,
    SpanClass.STOP.value: Ending.BEHIND,
}
"""Where a span of the assistant may be cut, by its class; what the template writes inside a turn is never its end."""


def endings(roles: Sequence[str], classes: Sequence[str]) -> list[Ending]:
    """Return where each span may be cut."""
    return [
        _ENDINGS.get(name, Ending.NOWHERE) if role == "assistant" else Ending.NOWHERE
        for role, name in zip(roles, classes, strict=True)
    ]


def cut_windows(
    windows: list[Window], outline: Outline, encoded: pl.DataFrame, engine: Engine, limit: int
) -> tuple[list[Window], dict[int, Cut]]:
    """Return the windows with what is cut of them in truth, and where to cut the rows that have more than `limit` tokens.

    `encoded` has a row for each window. Cut are only turns that alone are too long, never inside a character. A row that
    cannot be cut, since nothing of an answer would be left, is as if it had one token too many.
    """
    found = list(windows)
    cuts = {}
    n_head = outline.turns[0].first if outline.turns else 0
    for number, window in enumerate(windows):
        if not window.rest:
            continue
        ids = encoded["input_ids"][number].to_numpy()
        if len(ids) <= limit:  # it had more tokens as a part of the whole conversation
            found[number] = window._replace(rest=0, is_unfinished=False)
            continue
        begin, turn = outline.turns[window.first].first, outline.turns[window.last - 1]
        moved = Turn(n_head + turn.first - begin, n_head + turn.last - begin)
        ends = [*[Ending.NOWHERE] * n_head, *outline.endings[begin : turn.last]]
        tokens = [*encoded["spans"][number].struct.field("start").to_list(), len(ids)]
        cut = cut_before(tokens, ends, moved, _between_characters(engine, ids, limit))
        cuts[number] = cut or Cut(limit + 1, len(ends), True)
        if cut:
            found[number] = window._replace(rest=len(ids) - cut.n_tokens, is_unfinished=cut.is_unfinished)
    return found, cuts


def shorten(encoded: pl.DataFrame, cuts: dict[int, Cut]) -> pl.DataFrame:
    """Return the rows cut; what is known of the whole of such a row (`proof`, `n_straddling`) stays as it is."""
    if not cuts:
        return encoded
    n_tokens, n_spans = (encoded[name].list.len().to_numpy().astype(np.int64) for name in ("input_ids", "spans"))
    for row, cut in cuts.items():
        n_tokens[row], n_spans[row] = cut.n_tokens, cut.n_spans
    sized = encoded.with_columns(n_tokens=pl.Series(n_tokens), n_spans=pl.Series(n_spans))
    out = sized.with_columns(
        pl.col("input_ids").list.head(pl.col("n_tokens")), pl.col("spans").list.head(pl.col("n_spans"))
    ).drop("n_tokens", "n_spans")
    spans = out["spans"].explode(empty_as_null=False).struct.unnest()
    last = pl.Series(np.repeat(n_tokens, n_spans).astype(np.int32))
    spans = spans.with_columns(pl.min_horizontal("end", last).alias("end"))
    parts = pa.StructArray.from_arrays([column.to_arrow() for column in spans], names=spans.columns)
    offsets = np.concatenate(([0], np.cumsum(n_spans)))
    return out.with_columns(arrow.frame({"spans": arrow.list_column(offsets, parts)})["spans"])


def _between_characters(engine: Engine, ids: NDArray[np.int32], limit: int) -> int:
    """Return the greatest number of tokens, at most `limit`, that do not end inside a character.

    A token whose spelling is unknown stands for whole characters.
    """
    n = limit
    while n and not _ends_whole(engine.spellings.spell(ids[max(0, n - 4) : n])):
        n -= 1
    return n


def _ends_whole(data: bytes) -> bool:
    """Return whether UTF-8, which may begin inside a character, ends between two."""
    for behind, byte in enumerate(reversed(data[-4:]), 1):
        if byte & 0xC0 != 0x80:
            return behind >= (1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
    return True
