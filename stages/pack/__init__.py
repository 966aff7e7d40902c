"""Whole conversations into packs of bounded length, nearly without waste."""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.checksum import checksums
from schemas.fields import TAGS
from schemas.reasons import DropReason
from stages import arrow
from stages.pack.tags import count_tags, tags_of


class Pack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How conversations share a sequence."""

    max_seq_len: Annotated[int, msgspec.Meta(ge=8, le=1 << 20)] = 2048
    """Most tokens of a pack, and of a conversation: [tokenize] too_long says what to do with a longer one. Nothing is cut
    here: what is still longer is dropped (over_max_seq_len)."""
    strategy: Literal["bfd", "single"] = "bfd"
    """bfd: best-fit decreasing, longest first, each into the fullest pack that still has room. single: each conversation alone,
    in the order of the rows, so that a batch of packs is a batch of conversations."""


def pack_conversations(frame: pl.DataFrame, distinct: pl.DataFrame, config: Pack) -> pl.DataFrame:
    """Group the conversations of each split into packs of at most `max_seq_len` tokens, never splitting one.

    `distinct` has their tags (schemas.tables.DISTINCT), which come out beside their ids. The same frame gives the same
    packs; tokens in = tokens out. A conversation that fits no pack comes out alone, with its drop reason. Source: best-fit
    decreasing, as in "Fewer Truncations Improve Language Modeling" (2404.10830).
    """
    frame = frame.with_columns(pl.Series("tags", tags_of(frame["id"], distinct)))
    splits = frame["split"].unique().sort().to_list()
    packs = [_pack_split(frame.filter(pl.col("split") == split), split, config) for split in splits]
    return pl.concat(packs) if packs else _pack_split(frame, "train", config)


def count_packed(_out: pl.DataFrame, frame: pl.DataFrame, distinct: pl.DataFrame, config: Pack) -> dict[str, int]:
    """Return what is packed under each tag: see stages.pack.tags.count_tags."""
    return count_tags(frame, distinct, config.max_seq_len)


def _pack_split(frame: pl.DataFrame, split: str, config: Pack) -> pl.DataFrame:
    from stages.pack.kernels import best_fit_decreasing, gather  # compiled code, loaded only where it runs

    offsets, ids = arrow.list_buffers(frame["input_ids"])
    _, labels = arrow.list_buffers(frame["labels"])
    lengths = np.diff(offsets)
    fits = lengths <= config.max_seq_len
    if config.strategy == "single":
        order = np.flatnonzero(fits)
        ends = np.arange(len(order) + 1)
    else:
        order, ends = best_fit_decreasing(np.flatnonzero(fits), lengths, config.max_seq_len)
    too_long = np.flatnonzero(~fits)
    # Conversations in the order of the packs, then each of the dropped ones as a pack of its own.
    rows = np.concatenate((order, too_long))
    pack_ends = np.concatenate((ends, len(order) + 1 + np.arange(len(too_long)))).astype(np.int64)
    seq_lengths = lengths[rows]
    token_ends = np.concatenate(([0], np.cumsum(seq_lengths)))
    packed_tokens = token_ends[pack_ends]
    weights, row_weights = _weights(frame, rows, pack_ends)
    columns = {
        "ids": arrow.list_column(pack_ends, frame["id"].to_arrow().cast(pa.string()).take(pa.array(rows))),
        "tags": arrow.list_column(pack_ends, frame["tags"].to_arrow().cast(TAGS.type).take(pa.array(rows))),
        "split": pa.array([split] * (len(pack_ends) - 1), pa.string()),
        "input_ids": arrow.list_column(packed_tokens, gather(rows, offsets, ids.astype(np.int32, copy=False))),
        "labels": arrow.list_column(packed_tokens, gather(rows, offsets, labels.astype(np.int32, copy=False))),
        "loss_weights": weights,
        "seq_lengths": arrow.list_column(pack_ends, seq_lengths.astype(np.int32)),
        "n_tokens": pa.array(np.diff(packed_tokens).astype(np.int32)),
        "longest": pa.array(_each(np.maximum, seq_lengths, pack_ends).astype(np.int32)),
        "sum_squares": pa.array(_each(np.add, seq_lengths**2, pack_ends)),
        "n_supervised": pa.array(_each(np.add, frame["n_supervised"].to_numpy()[rows], pack_ends).astype(np.int32)),
        "n_trained": pa.array(_each(np.add, (row_weights > 0).astype(np.int32), pack_ends)),
        "weight_sum": pa.array(_each(np.add, row_weights, pack_ends)),
        "root_weight_sum": pa.array(_each(np.add, np.sqrt(row_weights), pack_ends)),
    }
    evidence = {
        "drop_reason": pa.array(
            [None] * (len(ends) - 1) + [DropReason.OVER_MAX_SEQ_LEN.value] * len(too_long), pa.string()
        ),
        "detail": pa.array(
            [None] * (len(ends) - 1)
            + [f"{lengths[row]} tokens, [pack] max_seq_len = {config.max_seq_len}" for row in too_long.tolist()],
            pa.string(),
        ),
    }
    return arrow.frame({**columns, "checksum": pa.array(checksums(pa.record_batch(columns))), **evidence})


def _each(combine: np.ufunc, values: NDArray[Any], ends: NDArray[np.int64]) -> NDArray[Any]:
    """Return the values of each pack combined; none is empty."""
    return combine.reduceat(values, ends[:-1]) if len(ends) > 1 else values[:0]


def _weights(
    frame: pl.DataFrame, rows: NDArray[np.int64], pack_ends: NDArray[np.int64]
) -> tuple[pa.Array, NDArray[np.float64]]:
    """Return the loss weights of each pack, null for one that needs none, and the sum of those of each of `rows`."""
    sums = frame["n_supervised"].to_numpy()[rows].astype(np.float64)
    if frame["loss_weights"].null_count() == frame.height:
        return pa.nulls(len(pack_ends) - 1, pa.list_(pa.float32())), sums
    # Rare, and rows differ in whether they have weights at all: one small array a pack.
    column, labels = frame["loss_weights"].to_list(), frame["labels"].to_list()
    packs: list[NDArray[np.float32] | None] = []
    for first, last in zip(pack_ends[:-1].tolist(), pack_ends[1:].tolist(), strict=True):
        members = rows[first:last].tolist()
        needs = any(column[row] is not None for row in members)
        parts = [
            np.asarray(column[row], np.float32)
            if column[row] is not None
            else (np.asarray(labels[row]) >= 0).astype(np.float32)
            for row in members
        ]
        packs.append(np.concatenate(parts) if needs else None)
        sums[first:last] = [part.sum(dtype=np.float64) for part in parts]
    return pa.array(packs, pa.list_(pa.float32())), sums


__all__ = ["Pack", "count_packed", "pack_conversations"]
