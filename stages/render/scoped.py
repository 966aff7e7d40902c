"""Weights for parts of messages: spans are cut where regular expressions match, and the matches weighed."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, get_args

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from stages import arrow

SCOPED: Final = "scoped"
"""The column that `apply_scoped` adds: matches of each rule in a row."""
_MARK: Final = "\0"

WrittenClass = Literal["content", "reasoning", "tool_call", "tool_result"]


class Scoped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule: what `pattern` matches in messages of `role` has its loss weight multiplied by `weight`."""

    pattern: Annotated[str, msgspec.Meta(min_length=1)]
    """A regular expression in the syntax of Rust's regex crate, which takes linear time: no look-around, no backreference."""
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
    """Factor on the loss weight; 0: not trained."""
    role: Literal["system", "user", "assistant", "tool", "*"] = "assistant"
    """Whose messages it is searched in; "*": everybody's."""
    class_: WrittenClass | Literal["*"] = msgspec.field(name="class", default="content")
    """Text that a message wrote: content, reasoning, tool_call, tool_result, or "*" for all of them."""

    def __post_init__(self) -> None:
        """Refuse a pattern that cannot be compiled."""
        try:
            pl.Series([""]).str.contains(self.pattern, strict=True)
        except pl.exceptions.ComputeError as error:
            why = str(error).partition("\n\nThis error occurred")[0].strip().splitlines()[-1]
            raise ValueError(
                f"pattern {self.pattern!r} is no regular expression of Rust's regex crate "
                f"({why.removeprefix('error: ').removeprefix('regex error: ')}); see docs/masks.md for its syntax"
            ) from None


def apply_scoped(frame: pl.DataFrame, rules: Sequence[Scoped]) -> pl.DataFrame:
    """Cut the spans of a rendered frame at the edges of what `rules` match, and multiply the weights of the matches.

    Matches are searched within one span of text that a message wrote, so none reaches over an edge between messages or
    into the template. Where matches of several rules overlap, their weights multiply. Spans stay a partition of the
    text; a match of no characters is none. Adds a column `scoped`, the number of each rule's matches in a row.
    """
    spans = frame["spans"].drop_nulls().explode(empty_as_null=False).struct.unnest()
    lengths = frame["spans"].list.len().fill_null(0).to_numpy().astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    found = [_matches(frame, spans, offsets, rule) for rule in rules]
    row_of = np.repeat(np.arange(frame.height), lengths)
    counts = np.stack([np.bincount(row_of[spans_], minlength=frame.height) for spans_, _, _ in found], axis=1)
    n_matches = pl.Series(SCOPED, counts.astype(np.int32)).arr.to_list()
    if counts.any():
        frame = frame.with_columns(_cut(frame["spans"], spans, offsets, found, rules))
    return frame.with_columns(n_matches)


def count_scoped(out: pl.DataFrame) -> dict[str, int]:
    """Return {"scoped/<number of the rule>": matches} of a frame's kept rows; of all rules, those without one included."""
    if SCOPED not in out.columns:
        return {}
    kept = out.filter(pl.col("drop_reason").is_null())[SCOPED]
    n_rules = int(kept.list.len().max() or 0)  # type: ignore[arg-type]
    return {f"scoped/{rule}": int(kept.list.get(rule).sum()) for rule in range(n_rules)}


Matches = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""(span, first character, one past the last) of each match; characters are counted in the row's text."""


def _matches(frame: pl.DataFrame, spans: pl.DataFrame, offsets: NDArray[np.int64], rule: Scoped) -> Matches:
    from stages.render.scoped_kernel import byte_edges, marked  # compiled code, loaded only where it runs

    text_offsets, text = arrow.string_buffers(frame["text"])
    starts, ends = spans["start"].to_numpy(), spans["end"].to_numpy()
    edges = byte_edges(text_offsets, text, offsets, starts, ends)
    texts = pl.Series(
        pl.from_arrow(pa.LargeStringArray.from_buffers(len(starts), pa.py_buffer(edges), pa.py_buffer(text)))
    )
    classes = [name for name in get_args(WrittenClass) if rule.class_ in (name, "*")]
    is_meant = spans["class"].is_in(classes) & (
        pl.repeat(value=True, n=spans.height, eager=True) if rule.role == "*" else spans["role"] == rule.role
    )
    chosen = (is_meant & texts.str.contains(rule.pattern)).arg_true()
    # No message holds NUL, ingest sees to that; what a template might write of it must not look like a mark.
    searched = texts.gather(chosen).str.replace_all(_MARK, "\ufffd", literal=True)
    # Polars tells no offsets: each match is put between two marks, and the marks are found.
    which, first, last = marked(*arrow.string_buffers(searched.str.replace_all(rule.pattern, f"{_MARK}${{0}}{_MARK}")))
    span = chosen.to_numpy().astype(np.int64)[which]
    return span, first + starts[span], last + starts[span]


def _cut(
    column: pl.Series,
    spans: pl.DataFrame,
    offsets: NDArray[np.int64],
    found: Sequence[Matches],
    rules: Sequence[Scoped],
) -> pl.Series:
    """Return the list column of spans, cut at the edges of all matches."""
    from stages.render.scoped_kernel import split

    span = np.concatenate([spans_ for spans_, _, _ in found for _ in (0, 1)])
    at = np.concatenate([edge for _, first, last in found for edge in (first, last)])
    rule = np.concatenate([np.full(len(spans_), i) for i, (spans_, _, _) in enumerate(found) for _ in (0, 1)])
    order = np.lexsort((at, span))
    source, starts, ends, factors = split(
        spans["start"].to_numpy(),
        spans["end"].to_numpy(),
        span[order],
        at[order],
        rule[order],
        np.array([rule.weight for rule in rules], np.float32),
    )
    cut = spans[source].with_columns(pl.Series("start", starts), pl.Series("end", ends))
    weights = (
        pl.when(pl.Series(factors) == 1).then("weight").otherwise(pl.col("weight").fill_null(1) * pl.Series(factors))
    )
    cut = cut.with_columns(weights.cast(pl.Float32).alias("weight"))
    new_offsets = np.searchsorted(source, offsets).astype(np.int32)
    structs = cut.to_struct().to_arrow()
    return pl.Series(
        column.name,
        pl.from_arrow(pa.ListArray.from_arrays(pa.array(new_offsets), structs, mask=column.is_null().to_arrow())),
    )
