"""Checksums of packs: written beside each one by who builds it, compared at each read by who trains on it.

There are two levels. The column `checksum` holds the CRC-32 of all that training uses of a pack, and FileRecord.checksums,
in the manifest, the SHA-256 of a file's SUMMARY columns, `checksum` among them. Whoever compares the second at the start, a
few bytes a pack, and the first at every read has compared each byte that it uses with the manifest, and none that it does
not use. CRC-32 finds every error of up to 32 neighbouring bits, and others but for one in 2^32.
"""

import hashlib
import struct
import zlib
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int32s = NDArray[np.int32]
Floats = NDArray[np.float32]

SUMMARY: Final = (
    "n_tokens",
    "longest",
    "sum_squares",
    "n_supervised",
    "n_trained",
    "weight_sum",
    "root_weight_sum",
    "checksum",
)
"""Columns of one number a pack, which are read at the start: their names in schemas.tables.PACKED."""
_HEAD: Final = struct.Struct("<6qd")


class PackedRow(NamedTuple):
    """What a pack holds, as it lies on disk."""

    ids: NDArray[np.uint8]
    """The ids of its conversations in UTF-8, end to end."""
    id_lengths: Int32s
    input_ids: Int32s
    labels: Int32s
    loss_weights: Floats | None
    """None where all are 0 or 1."""
    seq_lengths: Int32s

    def names(self) -> list[str]:
        """Return the ids of the conversations, in order; what is no UTF-8, in a damaged pack, is replaced."""
        data, ends = self.ids.tobytes(), np.cumsum(self.id_lengths).tolist()
        return [
            data[end - length : end].decode(errors="replace")
            for end, length in zip(ends, self.id_lengths.tolist(), strict=True)
        ]

    def copied(self) -> "PackedRow":
        """Return a copy in memory: what is then checked is what is used, whatever becomes of the file."""
        return PackedRow(*(None if part is None else part.copy() for part in self))  # type: ignore[arg-type]

    def checksum(self, *, n_supervised: int, weight_sum: float) -> int:
        """Return the CRC-32 of the number of items of each part, of the two sums, and of the parts, in little endian."""
        n_weights = -1 if self.loss_weights is None else len(self.loss_weights)
        sizes = (len(self.id_lengths), len(self.input_ids), len(self.labels), n_weights, len(self.seq_lengths))
        crc = zlib.crc32(_HEAD.pack(*sizes, n_supervised, weight_sum))
        for part in (self.id_lengths, self.ids, self.input_ids, self.labels, self.loss_weights, self.seq_lengths):
            if part is not None:
                crc = zlib.crc32(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data, crc)
        return crc


class PackedRows:
    """The packs of one record batch, by row: views of its buffers.

    An offset that points outside, in a damaged file, gives a short pack or IndexError, never other memory.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._ids = batch["ids"].offsets.to_numpy()
        self._names, self._bytes = _strings(batch["ids"].values)
        self._input_ids, self._labels = _Lists(batch["input_ids"]), _Lists(batch["labels"])
        self._seq_lengths = _Lists(batch["seq_lengths"])
        self._weights = _Lists(batch["loss_weights"])
        # one byte a pack, copied, for validity is kept in bits
        self._is_weighted = batch["loss_weights"].is_valid().to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> PackedRow:
        first, last = _bounds(self._ids, row)
        edges = self._names[first : last + 1]
        return PackedRow(
            ids=self._bytes[slice(*_bounds(edges[[0, -1]], 0))],
            id_lengths=np.diff(edges),
            input_ids=self._input_ids[row],
            labels=self._labels[row],
            loss_weights=self._weights[row] if self._is_weighted[row] else None,
            seq_lengths=self._seq_lengths[row],
        )


class _Lists:
    """A column of lists of numbers, by row, without copying."""

    def __init__(self, column: pa.ListArray) -> None:
        self._offsets, self._values = column.offsets.to_numpy(), column.values.to_numpy()

    def __getitem__(self, row: int) -> NDArray[Any]:
        first, last = _bounds(self._offsets, row)
        part: NDArray[Any] = self._values[first:last]
        return part


def _bounds(offsets: Int32s, row: int) -> tuple[int, int]:
    """Return where a row begins and ends; numpy would count a negative bound from the end."""
    return max(int(offsets[row]), 0), max(int(offsets[row + 1]), 0)


def _strings(column: pa.StringArray) -> tuple[Int32s, NDArray[np.uint8]]:
    """Return (offsets, bytes) of a column of strings."""
    _, offsets, data = column.buffers()
    if not len(column):
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    edges = np.frombuffer(offsets, np.int32, count=len(column) + 1, offset=4 * column.offset)
    return edges, np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)


def checksums(batch: pa.RecordBatch) -> NDArray[np.uint32]:
    """Return the checksum of each pack of a batch that has all columns of schemas.tables.PACKED that a checksum covers."""
    rows = PackedRows(batch)
    sums = zip(batch["n_supervised"].to_pylist(), batch["weight_sum"].to_pylist(), strict=True)
    found = (rows[i].checksum(n_supervised=n, weight_sum=weight) for i, (n, weight) in enumerate(sums))
    return np.fromiter(found, np.uint32, count=batch.num_rows)


def summary(table: pa.Table) -> str:
    """Return the SHA-256 of the SUMMARY columns, one after the other, in little endian."""
    return summary_of([table[name].to_numpy() for name in SUMMARY])


def summary_of(columns: list[NDArray[Any]]) -> str:
    """Return the SHA-256 of the SUMMARY columns, given in this order and in the types of the schema."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column, column.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
