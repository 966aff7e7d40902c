"""Which tokens are trained: integer arithmetic on spans, by one table of weights."""

from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import GateError
from schemas.reasons import DropReason
from schemas.spans import SpanClass
from stages import arrow

IGNORED: Final = -100
"""The label that no loss looks at."""

Weight = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
RoleName = Literal["system", "user", "assistant", "tool", "*"]
ClassName = Literal[
    "content", "reasoning", "tool_call", "tool_result", "stop", "scaffold", "generation_prompt", "template", "*"
]
Table = dict[RoleName, dict[ClassName, Weight]]

_TURN: Final[Table] = {
    "assistant": {"content": 1.0, "reasoning": 1.0, "tool_call": 1.0, "scaffold": 1.0, "stop": 1.0},
}
PRESETS: Final[dict[str, Table]] = {"full": _TURN, "last": _TURN, "none": {"*": {"*": 1.0}}}
"""Role, then class, to weight; "*" stands for any, and what is not named has weight 0."""


class MaskError(GateError):
    """The mask would break its contract; the text names rows and says what to do."""


class Mask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tokens are trained."""

    preset: Literal["full", "none", "last"] = "full"
    """full: every turn of the assistant; last: the final one only; none: nothing is masked, every token is trained."""
    weights: Table = {}
    """Changes to the preset: role, then class, to loss weight, e.g. {user = {content = 0.1}}; "*" stands for any. Roles are
    system, user, assistant, tool; classes content, reasoning, tool_call, tool_result, stop, scaffold (what the template
    writes inside a turn), generation_prompt (what it writes to let the assistant speak), template (what it writes around
    turns; of no role)."""
    require_stop: bool = True
    """Refuse to build when a trained turn does not end on a trained stop token: such a model never stops."""


def label_tokens(frame: pl.DataFrame, config: Mask) -> pl.DataFrame:
    """Give each token its label: the token itself where it is trained, -100 elsewhere; not shifted.

    The first label of a conversation is always -100, so that shifting never crosses a border. A row without any label
    is dropped (nothing_to_learn). Raises MaskError when a trained turn of the assistant lacks its stop token, unless
    `require_stop` is off.
    """
    offsets, ids = arrow.list_buffers(frame["input_ids"])
    spans = (
        frame.select("spans")
        .with_row_index("row")
        .explode("spans", empty_as_null=False)
        .unnest("spans")
        .with_columns(n_tokens=pl.col("end") - pl.col("start"))
    )
    spans = spans.with_columns(value=_span_weights(spans, config))
    if config.require_stop:
        _check_stops(frame, spans)
    weights = np.repeat(spans["value"].to_numpy(), spans["n_tokens"].to_numpy()).astype(np.float32)
    lengths = np.diff(offsets)
    weights[offsets[:-1][lengths > 0]] = 0.0
    labels = np.where(weights > 0, ids, IGNORED).astype(np.int32)
    n_supervised = _row_sums(weights > 0, offsets)
    is_weighted = _row_sums((weights != 0) & (weights != 1), offsets) > 0
    return arrow.frame(
        {
            "id": frame["id"].to_arrow(),
            "split": frame["split"].to_arrow(),
            "input_ids": frame["input_ids"].to_arrow(),
            "labels": arrow.list_column(offsets, labels),
            "loss_weights": _weight_column(offsets, weights, is_weighted),
            "n_tokens": pa.array(lengths.astype(np.int32)),
            "n_supervised": pa.array(n_supervised.astype(np.int32)),
            "drop_reason": pc.if_else(
                pa.array(n_supervised > 0), pa.scalar(None, pa.string()), DropReason.NOTHING_TO_LEARN.value
            ),
        }
    )


def _span_weights(spans: pl.DataFrame, config: Mask) -> pl.Series:
    """Return the weight of each span: the table's, times the message's own; of the last turn only if so asked."""
    table: Table = {role: dict(classes) for role, classes in PRESETS[config.preset].items()}
    for role, classes in config.weights.items():
        table[role] = table.get(role, {}) | classes
    value = pl.lit(0.0)
    # From the general to the particular, so that the last word is the most specific.
    for role, name in sorted(
        ((role, name) for role, classes in table.items() for name in classes),
        key=lambda pair: (pair[0] != "*", pair[1] != "*"),
    ):
        matches = (pl.lit(value=True) if role == "*" else pl.col("role") == role) & (
            pl.lit(value=True) if name == "*" else pl.col("class") == name
        )
        value = pl.when(matches).then(table[role][name]).otherwise(value)
    value = value * pl.col("weight").fill_null(1.0)
    if config.preset == "last":
        last = pl.col("message").filter(pl.col("role") == "assistant").max().over("row")
        value = pl.when((pl.col("role") == "assistant") & (pl.col("message") != last)).then(0.0).otherwise(value)
    return spans.select(value.cast(pl.Float32).alias("value")).to_series()


def _check_stops(frame: pl.DataFrame, spans: pl.DataFrame) -> None:
    is_trained = (pl.col("value") > 0) & (pl.col("n_tokens") > 0)
    turns = (
        spans.lazy()
        .filter(pl.col("role") == "assistant")
        .group_by("row", "message")
        .agg(
            is_trained=is_trained.any(),
            stops=(is_trained & (pl.col("class") == SpanClass.STOP.value)).any(),
        )
        .filter(pl.col("is_trained") & ~pl.col("stops"))
        .sort("row", "message")
        .collect()
    )
    if turns.height:
        ids = frame["id"]
        named = ", ".join(f"{ids[row]} (message {message})" for row, message, *_ in turns.head(5).iter_rows())
        raise MaskError(
            f"{turns.height} trained turn(s) of the assistant do not end on a trained stop token, so the model would not "
            f"learn to stop: {named}{', ...' if turns.height > 5 else ''}. Expected the chat template to close a turn with "
            "one of the tokenizer's special tokens. Choose a template whose control tokens the tokenizer has, or a tokenizer "
            "that has the template's; name the token in [render] stop if the tokenizer has it unflagged; or set "
            "[mask] require_stop = false"
        )


def _row_sums(flags: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    running = np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))
    return np.asarray(running[offsets[1:]] - running[offsets[:-1]], np.int64)


def _weight_column(
    offsets: NDArray[np.int64], weights: NDArray[np.float32], is_weighted: NDArray[np.bool_]
) -> pa.ListArray:
    """Return the weights of the rows that need them, null for the others."""
    lengths = np.where(is_weighted, np.diff(offsets), 0)
    values = weights[np.repeat(is_weighted, np.diff(offsets))]
    ends = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values, pa.float32()), mask=pa.array(~is_weighted))
