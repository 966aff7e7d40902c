"""The packs of a finished run: verified once, then read through memory maps."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from schemas.conform import SchemaError
from schemas.files import sha256_of
from schemas.manifest import FileRecord, Manifest
from schemas.tables import PACKED
from trainer.data.stream import Integers
from trainer.errors import DataError
from trainer.model.decoder import Batch

REBUILD = "`chatloom data CONFIG --verify` rebuilds it"


def read_manifest(run: Path) -> Manifest:
    """Return the manifest of RUN/pack. Raises DataError when the data is not there or not finished."""
    path = run / "pack" / "manifest.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise DataError(f"{path}: not found, so there is nothing to train on; run `make data` first") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: not a manifest of this version: {error}; {REBUILD}") from None


def split_files(manifest: Manifest, split: str) -> list[FileRecord]:
    """Return the files of `split`, by path. Raises DataError for a path that leaves the stage's directory."""
    files = [file for shard in manifest.shards for file in shard.files if file.path.startswith(f"kept/{split}/")]
    for file in files:
        if Path(file.path).parts != ("kept", split, Path(file.path).name) or ".." in file.path:
            raise DataError(f"pack/manifest.json: {file.path!r} is no shard's path; {REBUILD}")
    return sorted(files, key=lambda file: file.path)


def verify(stage: Path, file: FileRecord) -> str | None:
    """Return what is wrong with a shard's bytes, or None when they are exactly those that were written."""
    path = stage / file.path
    try:
        got = sha256_of(path)
    except OSError as error:
        return f"{path}: {error.strerror or error}; the manifest lists it; {REBUILD}"
    if got != file.sha256:
        return f"{path}: the shard is damaged: sha256 is {got}, the manifest says {file.sha256}; {REBUILD}"
    return None


class Packs:
    """All packs of one split as one sequence; their metadata in arrays, their tokens on disk until read.

    Arrays are indexed by pack: `n_tokens`, `sum_squares` (of document lengths), `n_supervised`, `weights` (sum of the
    loss weights of the trained labels).
    """

    def __init__(self, stage: Path, files: Sequence[FileRecord]) -> None:
        tables = [_open(stage / file.path, file) for file in files]
        self._table = pa.concat_tables(tables) if tables else PACKED.empty_table()
        self._lengths = _Lists(self._table["seq_lengths"])
        self._ids = self._table["ids"]
        self._input_ids = _Lists(self._table["input_ids"])
        self._labels = _Lists(self._table["labels"])
        self._loss_weights = self._table["loss_weights"]
        self.n_supervised: Integers = self._table["n_supervised"].to_numpy().astype(np.int64)
        self.weights: npt.NDArray[np.float64] = self._table["weight_sum"].to_numpy()
        lengths, starts = self._lengths.flat()
        self.n_tokens: Integers = _sums(lengths, starts)
        self.sum_squares: Integers = _sums(lengths * lengths, starts)
        self.longest = int(lengths.max(initial=0))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def ids(self, packs: Sequence[int]) -> list[str]:
        """Return the ids of the conversations in `packs`, in order."""
        return [name for pack in packs for name in self._ids[pack].as_py()]

    def document_lengths(self, pack: int) -> npt.NDArray[np.int32]:
        """Return the lengths of the conversations of a pack, in order."""
        return self._lengths[pack]

    def tokens(self, pack: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return the input ids and the labels of a pack, zero-copy."""
        return self._input_ids[pack], self._labels[pack]

    def read(self, packs: Sequence[int], *, vocab_size: int) -> Batch:
        """Return `packs` as one batch on the CPU; no packs give one token that trains nothing.

        Raises DataError, naming the pack, when lengths disagree, a document starts on a trained label, or a token is
        outside the vocabulary.
        """
        if not packs:
            return _nothing()
        ids, labels = (np.concatenate(column) for column in zip(*(self.tokens(pack) for pack in packs), strict=True))
        lengths = np.concatenate([self._lengths[pack] for pack in packs])
        starts = np.cumsum(lengths) - lengths
        self._check(packs, ids, labels, lengths, starts, vocab_size)
        # a label is the target of the token before it; the first of a document is -100, so none crosses a border
        rows = np.flatnonzero(labels[1:] != -100)
        weights = np.concatenate([self._weights(pack) for pack in packs])
        return Batch(
            input_ids_T=torch.from_numpy(ids.astype(np.int64)),
            positions_T=torch.from_numpy(np.arange(len(ids)) - np.repeat(starts, lengths)),
            lengths=tuple(lengths.tolist()),
            rows_S=torch.from_numpy(rows),
            targets_S=torch.from_numpy(labels[rows + 1].astype(np.int64)),
            weights_S=torch.from_numpy(weights[rows + 1]),
        )

    def _weights(self, pack: int) -> npt.NDArray[np.float32]:
        value = self._loss_weights[pack]
        if not value.is_valid:
            return np.ones(int(self.n_tokens[pack]), dtype=np.float32)
        weights: npt.NDArray[np.float32] = value.values.to_numpy(zero_copy_only=False).astype(np.float32)
        return weights

    def _check(
        self,
        packs: Sequence[int],
        ids: npt.NDArray[np.int32],
        labels: npt.NDArray[np.int32],
        lengths: npt.NDArray[np.int32],
        starts: Integers,
        vocab_size: int,
    ) -> None:
        wrong = None
        if not len(ids) == len(labels) == lengths.sum():
            wrong = f"{len(ids)} input_ids, {len(labels)} labels, seq_lengths sum to {lengths.sum()}"
        elif (lengths < 1).any():
            wrong = "a conversation without tokens"
        elif (labels[starts] != -100).any():
            wrong = "the first label of a conversation is trained, expected -100"
        elif ids.min() < 0 or ids.max() >= vocab_size:
            wrong = f"token ids {ids.min()} to {ids.max()}, the model knows 0 to {vocab_size - 1}"
        elif int((labels != -100).sum()) != int(self.n_supervised[list(packs)].sum()):
            wrong = f"{(labels != -100).sum()} trained labels, n_supervised says {self.n_supervised[list(packs)].sum()}"
        if wrong:
            raise DataError(f"packs {list(packs)} ({', '.join(self.ids(packs)[:3])} …): {wrong}; {REBUILD}")


class _Lists:
    """Random access to a chunked column of lists of int32, without copying."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = [(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in column.chunks if len(chunk)]
        sizes = [len(offsets) - 1 for offsets, _ in self._chunks]
        self._starts = np.cumsum([0, *sizes])

    def flat(self) -> tuple[Integers, Integers]:
        """Return all values, end to end, and where each row starts among them, then where the last one ends."""
        parts = [values[offsets[0] : offsets[-1]] for offsets, values in self._chunks]
        counts = [np.diff(offsets) for offsets, _ in self._chunks]
        none = np.zeros(0, dtype=np.int64)
        starts = np.cumsum(np.concatenate([[0], *counts])).astype(np.int64)
        return np.concatenate([none, *parts]).astype(np.int64), starts

    def __getitem__(self, row: int) -> npt.NDArray[np.int32]:
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        offsets, values = self._chunks[chunk]
        at = row - int(self._starts[chunk])
        part: npt.NDArray[np.int32] = values[offsets[at] : offsets[at + 1]]
        return part


def _sums(values: Integers, starts: Integers) -> Integers:
    """Return the sum of each row; `starts` has one more entry than there are rows."""
    # a zero at the end gives a row that starts there something to point at; reduceat gives an empty row its first value
    sums = np.add.reduceat(np.append(values, 0), starts[:-1]) if len(starts) > 1 else np.zeros(0, dtype=np.int64)
    sums[np.diff(starts) == 0] = 0
    return sums


def _open(path: Path, file: FileRecord) -> pa.Table:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not a readable Arrow file: {error}; {REBUILD}") from None
    if missing := [name for name in PACKED.names if name not in table.column_names]:
        raise DataError(f"{path}: column(s) {', '.join(missing)} are missing; got {table.column_names}; {REBUILD}")
    try:
        table = table.select(PACKED.names).cast(PACKED)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, SchemaError) as error:
        raise DataError(f"{path}: not the columns of a pack: {error}; {REBUILD}") from None
    if table.num_rows != file.rows:
        raise DataError(f"{path}: {table.num_rows} packs, the manifest says {file.rows}; {REBUILD}")
    return table


def _nothing() -> Batch:
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        input_ids_T=torch.zeros(1, dtype=torch.int64),
        positions_T=torch.zeros(1, dtype=torch.int64),
        lengths=(1,),
        rows_S=none,
        targets_S=none,
        weights_S=torch.zeros(0),
    )
