"""Which tokens are trained: integer arithmetic on spans, by one table of weights."""

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.reasons import DropReason
from stages import arrow
from stages.mask.gate import check, refuse_endless
from stages.mask.settings import Mask
from stages.mask.spans import Spans, spans_of
from stages.mask.table import ASSISTANT, GENERATION_PROMPT, STOP, kept_turns, weight_table


def label_tokens(frame: pl.DataFrame, config: Mask) -> pl.DataFrame:
    """Give each token its label: the token itself where it is trained, -100 elsewhere; not shifted.

    The first label of a conversation is always -100, so that shifting never crosses a border. A turn of the assistant
    that says nothing but its stop is not trained. A row without any label is dropped (nothing_to_learn). A turn that would
    be trained without a trained stop at its end meets `without_stop`. Raises MaskError for it, or if the labels, read
    anew, break the contract (see gate.check).
    """
    from stages.mask.kernels import EMPTY, NO_STOP, STOP_UNTRAINED, silence, spread, spread_weights

    offsets, ids = arrow.list_buffers(frame["input_ids"])
    spans = spans_of(frame["spans"])
    weights, verdicts = weigh_turns(spans, config)
    is_endless = (verdicts >= NO_STOP) & (verdicts <= STOP_UNTRAINED)
    if config.without_stop == "refuse":
        refuse_endless(frame, spans, verdicts, is_endless)
    is_silent = verdicts == EMPTY
    if config.without_stop == "mask":
        is_silent |= is_endless
    if is_silent.any():
        silence(spans.offsets, spans.roles, spans.messages, is_silent, weights, ASSISTANT)
    labels, n_supervised, is_weighted = spread(offsets, ids, spans.offsets, spans.starts, spans.ends, weights)
    reasons: NDArray[np.object_] = np.full(frame.height, None, object)
    details: NDArray[np.object_] = np.full(frame.height, None, object)
    reasons[n_supervised == 0] = DropReason.NOTHING_TO_LEARN.value
    if config.without_stop == "drop":
        for turn in np.flatnonzero(is_endless)[::-1].tolist():  # backwards: the first of a row has the last word
            row = int(np.searchsorted(spans.offsets, turn, side="right")) - 1
            reasons[row] = DropReason.NO_STOP.value
            details[row] = f"message {spans.messages[turn]} does not end on a trained stop"
    weight_offsets, values = spread_weights(offsets, spans.offsets, spans.starts, spans.ends, weights, is_weighted)
    out = arrow.frame(
        {
            "id": frame["id"].to_arrow(),
            "split": frame["split"].to_arrow(),
            "input_ids": frame["input_ids"].to_arrow(),
            "labels": arrow.list_column(offsets, labels),
            "loss_weights": _weight_column(weight_offsets, values, is_weighted),
            "n_tokens": pa.array(np.diff(offsets).astype(np.int32)),
            "n_supervised": pa.array(n_supervised),
            "detail": pa.array(details, pa.string()),
            "drop_reason": pa.array(reasons, pa.string()),
        }
    )
    check(frame, out, spans, config)
    return out


def weigh_turns(spans: Spans, config: Mask) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return (weight of each span, verdict on each turn, at its first span), before any policy for turns."""
    from stages.mask.kernels import weigh

    n_turns, from_end = kept_turns(config)
    weights, verdicts = weigh(*spans, weight_table(config), n_turns, from_end, ASSISTANT, STOP, GENERATION_PROMPT)
    return weights, verdicts


def _weight_column(
    offsets: NDArray[np.int64], values: NDArray[np.float32], is_weighted: NDArray[np.bool_]
) -> pa.ListArray:
    """Return the weights of the rows that need them, null for the others."""
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(values, pa.float32()), mask=pa.array(~is_weighted)
    )
