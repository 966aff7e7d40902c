"""Text and its spans in, token ids and the same spans in tokens out: one pass, no prefix is ever encoded again."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.assets import Vocabulary
from schemas.reasons import DropReason
from schemas.spans import WRITTEN_BY_MESSAGE
from stages import arrow
from stages.tokenize.engine import Engine, engine_for
from stages.tokenize.guard import encode_guarded, is_clean
from stages.tokenize.settings import Tokenize


def encode_conversations(frame: pl.DataFrame, config: Tokenize, vocabulary: Vocabulary) -> pl.DataFrame:
    """Encode each text and move its spans from characters to tokens.

    A token that straddles an edge belongs to the span in which it starts. A control token stands only where the
    template wrote it: a row whose content spells one is encoded anew with those tokens disabled in the content, and
    dropped (control_token) if even then the ids would hold one.

    The ids are those of `tokenizers`: a frame in whose compared rows gigatoken differs is encoded without it, and no
    other frame is touched by that. So what the tokenizer's own rules change stays changed, as when the model is served:
    an NFC normaliser joins a letter with its accent, and a token with `rstrip` takes the spaces behind it.
    """
    engine = engine_for(vocabulary, config.engine)
    texts = frame["text"].to_list()
    offsets, ids = engine.encode(texts, verify=len(texts) if config.verify == "all" else 32)
    spans = frame["spans"].explode(empty_as_null=False).struct.unnest()
    is_written = spans["class"].is_in([str(name) for name in WRITTEN_BY_MESSAGE]).to_numpy()
    span_offsets = np.concatenate(([0], frame["spans"].list.len().cum_sum().to_numpy())).astype(np.int64)
    text_offsets, text_bytes = arrow.string_buffers(frame["text"])

    from stages.tokenize.kernels import spans_to_tokens  # compiled code is loaded only by a process that needs it

    starts, are_aligned, are_clean = spans_to_tokens(
        text_offsets,
        text_bytes,
        span_offsets,
        spans["start"].to_numpy(),
        spans["end"].to_numpy(),
        is_written,
        offsets,
        ids,
        engine.byte_lengths,
        engine.is_added,
        engine.is_control,
        engine.prepends,
    )
    are_aligned &= engine.keeps_text(texts)
    reasons: list[str | None] = [None] * len(texts)
    details: list[str | None] = [None] * len(texts)
    anew = np.flatnonzero(~(are_aligned & are_clean))
    if len(anew):
        pieces: dict[int, NDArray[Any]] = {}
        for row in anew.tolist():
            first, last = int(span_offsets[row]), int(span_offsets[row + 1])
            edges = spans["start"][first:last].to_list()
            encoded = _encode_anew(engine, texts[row], edges, is_written[first:last].tolist())
            if encoded is None:
                reasons[row] = DropReason.CONTROL_TOKEN.value
                details[row] = "the content spells a control token that this tokenizer cannot encode as text"
                encoded = (np.empty(0, np.int32), np.zeros(last - first, np.int32))
            pieces[row], starts[first:last] = encoded
        offsets, ids = _replace_rows(offsets, ids, pieces)
    ends = np.zeros_like(starts)
    ends[:-1] = starts[1:]
    has_spans = np.diff(span_offsets) > 0
    ends[span_offsets[1:][has_spans] - 1] = np.diff(offsets)[has_spans]
    token_spans = pa.StructArray.from_arrays(
        [
            pa.array(starts.astype(np.int32)),
            pa.array(ends.astype(np.int32)),
            *(spans[name].to_arrow() for name in ("class", "role", "message", "weight")),
        ],
        names=["start", "end", "class", "role", "message", "weight"],
    )
    return arrow.frame(
        {
            "id": frame["id"].to_arrow(),
            "split": frame["split"].to_arrow(),
            "input_ids": arrow.list_column(offsets, ids.astype(np.int32)),
            "spans": arrow.list_column(span_offsets, token_spans),
            "n_straddling": pa.array(np.zeros(len(texts), np.int32)),
            "detail": pa.array(details, pa.string()),
            "drop_reason": pa.array(reasons, pa.string()),
        }
    )


def _encode_anew(
    engine: Engine, text: str, edges: list[int], is_written: list[bool]
) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Return (ids, first token of each span) of one row, by the oracle's character offsets; None if unsafe."""
    ids, token_offsets = engine.encode_with_offsets(text)
    token_starts = [first for first, _ in token_offsets]
    if not is_clean(engine, text, ids, token_offsets, edges, is_written):
        guarded = encode_guarded(engine, text, edges, is_written)
        if guarded is None:
            return None
        ids, token_starts = guarded
    return np.asarray(ids, np.int32), np.searchsorted(token_starts, edges, side="left").astype(np.int32)


def _replace_rows(
    offsets: NDArray[Any], ids: NDArray[Any], rows: dict[int, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    lengths = np.diff(offsets)
    pieces = []
    previous = 0
    for row, new in sorted(rows.items()):
        pieces += [ids[offsets[previous] : offsets[row]], new]
        lengths[row] = len(new)
        previous = row + 1
    pieces.append(ids[offsets[previous] :])
    return np.concatenate(([0], np.cumsum(lengths))), np.concatenate(pieces)
