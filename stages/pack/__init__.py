"""Whole conversations into packs of bounded length, nearly without waste."""

from typing import Annotated, Literal

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.reasons import DropReason
from stages import arrow


class Pack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How conversations share a sequence."""

    max_seq_len: Annotated[int, msgspec.Meta(ge=8, le=1 << 20)] = 2048
    """Most tokens of a pack, and of a conversation: [tokenize] too_long says what to do with a longer one. Nothing is cut
    here: what is still longer is dropped (over_max_seq_len)."""
    strategy: Literal["bfd"] = "bfd"
    """bfd: best-fit decreasing, longest first, each into the fullest pack that still has room."""


def pack_conversations(frame: pl.DataFrame, config: Pack) -> pl.DataFrame:
    """Group the conversations of each split into packs of at most `max_seq_len` tokens, never splitting one.

    The same frame gives the same packs; tokens in = tokens out. A conversation that fits no pack comes out alone, with
    its drop reason. Source: best-fit decreasing, as in "Fewer Truncations Improve Language Modeling" (2404.10830).
    """
    splits = frame["split"].unique().sort().to_list()
    packs = [_pack_split(frame.filter(pl.col("split") == split), split, config) for split in splits]
    return pl.concat(packs) if packs else _pack_split(frame, "train", config)


def _pack_split(frame: pl.DataFrame, split: str, config: Pack) -> pl.DataFrame:
    from stages.pack.kernels import best_fit_decreasing, gather  # compiled code, loaded only where it runs

    offsets, ids = arrow.list_buffers(frame["input_ids"])
    _, labels = arrow.list_buffers(frame["labels"])
    lengths = np.diff(offsets)
    fits = lengths <= config.max_seq_len
    order, ends = best_fit_decreasing(np.flatnonzero(fits), lengths, config.max_seq_len)
    too_long = np.flatnonzero(~fits)
    # Conversations in the order of the packs, then each of the dropped ones as a pack of its own.
    rows = np.concatenate((order, too_long))
    pack_ends = np.concatenate((ends, len(order) + 1 + np.arange(len(too_long)))).astype(np.int64)
    seq_lengths = lengths[rows]
    token_ends = np.concatenate(([0], np.cumsum(seq_lengths)))
    packed_tokens = token_ends[pack_ends]
    weights, weight_sums = _weights(frame, rows, pack_ends, token_ends)
    running = np.concatenate(([0], np.cumsum(frame["n_supervised"].to_numpy()[rows], dtype=np.int64)))
    return arrow.frame(
        {
            "ids": arrow.list_column(pack_ends, frame["id"].to_arrow().take(pa.array(rows))),
            "split": pa.array([split] * (len(pack_ends) - 1), pa.string()),
            "input_ids": arrow.list_column(packed_tokens, gather(rows, offsets, ids.astype(np.int32, copy=False))),
            "labels": arrow.list_column(packed_tokens, gather(rows, offsets, labels.astype(np.int32, copy=False))),
            "loss_weights": weights,
            "seq_lengths": arrow.list_column(pack_ends, seq_lengths.astype(np.int32)),
            "n_supervised": pa.array(np.diff(running[pack_ends]).astype(np.int32)),
            "weight_sum": pa.array(weight_sums),
            "drop_reason": pa.array(
                [None] * (len(ends) - 1) + [DropReason.OVER_MAX_SEQ_LEN.value] * len(too_long), pa.string()
            ),
            "detail": pa.array(
                [None] * (len(ends) - 1)
                + [f"{lengths[row]} tokens, [pack] max_seq_len = {config.max_seq_len}" for row in too_long.tolist()],
                pa.string(),
            ),
        }
    )


def _weights(
    frame: pl.DataFrame, rows: NDArray[np.int64], pack_ends: NDArray[np.int64], token_ends: NDArray[np.int64]
) -> tuple[pa.Array, NDArray[np.float64]]:
    """Return (loss_weights, weight_sum) of each pack; weights are null for a pack that needs none."""
    n_supervised = frame["n_supervised"].to_numpy()[rows].astype(np.float64)
    if frame["loss_weights"].null_count() == frame.height:
        sums = np.concatenate(([0.0], np.cumsum(n_supervised)))
        return pa.nulls(len(pack_ends) - 1, pa.list_(pa.float32())), np.diff(sums[pack_ends])
    # Rare, and rows differ in whether they have weights at all: one small array a pack.
    column, labels = frame["loss_weights"].to_list(), frame["labels"].to_list()
    packs: list[NDArray[np.float32] | None] = []
    weight_sums = []
    for first, last in zip(pack_ends[:-1].tolist(), pack_ends[1:].tolist(), strict=True):
        members = rows[first:last].tolist()
        needs = any(column[row] is not None for row in members)
        parts = [
            np.asarray(column[row], np.float32)
            if column[row] is not None
            else (np.asarray(labels[row]) >= 0).astype(np.float32)
            for row in members
        ]
        values = np.concatenate(parts)
        assert len(values) == token_ends[last] - token_ends[first]
        packs.append(values if needs else None)
        weight_sums.append(float(values.sum(dtype=np.float64)))
    return pa.array(packs, pa.list_(pa.float32())), np.asarray(weight_sums)


__all__ = ["Pack", "pack_conversations"]
