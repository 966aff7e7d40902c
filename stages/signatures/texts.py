"""Where the strings of a shard lie in memory, without copying them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

I64 = NDArray[np.int64]

FIELDS = ("role", "content", "reasoning", "tool_calls", "tool_call_id", "name")
"""What is hashed of a message. Their order is part of the hash."""
SPOKEN = ("reasoning", "content", "tool_calls")
"""What a message says, in this order."""


@dataclass(frozen=True, kw_only=True)
class Strings:
    """Columns of strings, as addresses of their UTF-8 bytes."""

    addresses: NDArray[np.uint64]
    """Shape (columns, rows)."""
    sizes: NDArray[np.int32]
    """Shape (columns, rows); -1 for null."""
    owners: tuple[Any, ...]
    """The Arrow arrays; the addresses are good as long as these are referenced."""


@dataclass(frozen=True, kw_only=True)
class Conversations:
    """The messages of a shard."""

    bounds: I64
    """Row r has the messages bounds[r] to bounds[r + 1]."""
    fields: Strings
    """Those of FIELDS that any message has."""
    codes: I64
    """Which of FIELDS they are."""
    spoken: Strings
    """Those of SPOKEN that any message has, less what is left out."""
    tools: Strings
    counts: NDArray[np.bool_]
    """Of each message, whether it is part of the conversation that is compared."""
    roles: NDArray[np.uint8]
    """1 for a user's message, 2 for one of the assistant, 0 for others."""


def read_conversations(frame: pl.DataFrame, leave_out: Sequence[str], *, includes_system: bool) -> Conversations:
    """Return the messages and tools of a frame of MEASURED."""
    lists = frame["messages"].rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    offsets = lists.offsets.to_numpy().astype(np.int64, copy=False)
    bounds = offsets - offsets[0]
    messages = lists.values.slice(offsets[0], bounds[-1])
    columns = {name: messages.field(name) for name in FIELDS}
    used = {name: column for name, column in columns.items() if column.null_count < len(column)}
    role = pl.Series(pl.from_arrow(columns["role"]))
    return Conversations(
        bounds=bounds,
        fields=_strings(list(used.values()), len(messages)),
        codes=np.array([FIELDS.index(name) for name in used], np.int64),
        spoken=_strings([_less(used[name], leave_out) for name in SPOKEN if name in used], len(messages)),
        tools=_strings([frame["tools"].rechunk().to_arrow(compat_level=pl.CompatLevel.newest())], frame.height),
        counts=np.ones(len(messages), np.bool_) if includes_system else (role != "system").to_numpy(),
        roles=(role == "user").to_numpy().view(np.uint8) + 2 * (role == "assistant").to_numpy().view(np.uint8),
    )


def _less(column: pa.Array, patterns: Sequence[str]) -> pa.Array:
    if not patterns:
        return column
    text = pl.Series(pl.from_arrow(column))
    for pattern in patterns:
        text = text.str.replace_all(pattern, " ")
    return text.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())


def _strings(columns: Sequence[pa.Array], n_rows: int) -> Strings:
    from stages.signatures.view_kernel import read_views

    addresses, sizes = np.zeros((len(columns), n_rows), np.uint64), np.full((len(columns), n_rows), -1, np.int32)
    for i, column in enumerate(columns):
        if column.null_count == n_rows:
            continue
        buffers = column.buffers()
        starts = np.array([buffer.address for buffer in buffers[2:]], np.uint64)
        read_views(np.uint64(buffers[1].address + 16 * column.offset), starts, addresses[i], sizes[i])
        if column.null_count:
            sizes[i][column.is_null().to_numpy(zero_copy_only=False)] = -1
    return Strings(addresses=addresses, sizes=sizes, owners=tuple(columns))
