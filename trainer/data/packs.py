"""The packs of a finished run: opened by their sums, and verified pack by pack as they are read."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from schemas.checksum import SUMMARY, PackedRow, PackedRows, summary_of
from schemas.manifest import FORMAT, FileRecord, Manifest
from schemas.tables import PACKED
from trainer.data.stream import Integers
from trainer.errors import DataError
from trainer.model.decoder import Batch

REBUILD = "`chatloom data CONFIG --verify` rebuilds it"
NAMED: Final = 8
"""Conversations of a pack that an error names; the rest are counted."""


def read_manifest(run: Path) -> Manifest:
    """Return the manifest of RUN/pack. Raises DataError when the data is not there or not finished."""
    path = run / "pack" / "manifest.json"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise DataError(
            f"{path}: not found, so there is nothing to train on; run `chatloom data CONFIG --run {run}` first"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected the directory of a finished run") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a manifest of this version: {error}; {REBUILD}") from None
    if (manifest.format, manifest.stage) != (FORMAT, "pack"):
        raise DataError(
            f"{path}: format {manifest.format} of stage {manifest.stage!r}, expected format {FORMAT} of 'pack'; build the run "
            "with this version of Chatloom (`chatloom data CONFIG`), or train with that which built it"
        )
    return manifest


def split_files(manifest: Manifest, split: str) -> list[FileRecord]:
    """Return the files of `split`, by path. Raises DataError for a path that leaves the stage's directory, or stands twice."""
    files = [file for shard in manifest.shards for file in shard.files if file.path.startswith(f"kept/{split}/")]
    for file in files:
        if Path(file.path).parts != ("kept", split, Path(file.path).name) or ".." in file.path:
            raise DataError(f"pack/manifest.json: {file.path!r} is no shard's path; {REBUILD}")
    if len({file.path for file in files}) < len(files):
        raise DataError(f"pack/manifest.json: a shard of {split} is listed twice and would be trained twice; {REBUILD}")
    return sorted(files, key=lambda file: file.path)


class Packs:
    """All packs of one split as one sequence; their sums in arrays, their tokens on disk until read.

    Arrays are indexed by pack: `n_tokens`, `longest_of` (tokens of its longest document), `sum_squares` (of document
    lengths), `n_supervised`, `weights` (sum of the loss weights of the trained labels), `n_trained` (conversations with
    such labels), `root_weights` (sum of the roots of their weights). They are compared with the manifest here, all else
    with its checksum whenever it is read, so that starting costs a few bytes a pack and nothing unverified is ever
    returned. Raises DataError.
    """

    def __init__(self, stage: Path, files: Sequence[FileRecord]) -> None:
        self._files, self._paths = tuple(files), [stage / file.path for file in files]
        self._tags: list[pa.ListArray] | None = None
        tables = [_open(path, file) for path, file in zip(self._paths, files, strict=True)]
        self._mapped = [(path.stat().st_ino, file.bytes) for path, file in zip(self._paths, files, strict=True)]
        columns = {name: _column(tables, name) for name in SUMMARY}
        self._file_starts = np.cumsum([0, *(table.num_rows for table in tables)])
        for path, file, first, last in zip(
            self._paths, files, self._file_starts[:-1].tolist(), self._file_starts[1:].tolist(), strict=True
        ):
            _compare(path, file, [column[first:last] for column in columns.values()])
        batches = [batch for table in tables for batch in table.to_batches() if batch.num_rows]
        self._batches = [PackedRows(batch) for batch in batches]
        self._batch_starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._checksums = columns["checksum"]
        self.n_tokens: Integers = columns["n_tokens"].astype(np.int64)
        self.sum_squares: Integers = columns["sum_squares"]
        self.n_supervised: Integers = columns["n_supervised"].astype(np.int64)
        self.n_trained: Integers = columns["n_trained"].astype(np.int64)
        self.weights: npt.NDArray[np.float64] = columns["weight_sum"]
        self.root_weights: npt.NDArray[np.float64] = columns["root_weight_sum"]
        self.longest_of: Integers = columns["longest"].astype(np.int64)
        self.longest = int(self.longest_of.max(initial=0))

    def __len__(self) -> int:
        return len(self._checksums)

    def row(self, pack: int) -> PackedRow:
        """Return what a pack holds, a copy. Raises DataError, naming it and its conversations, if a bit of it has changed."""
        batch = int(np.searchsorted(self._batch_starts, pack, side="right")) - 1
        self._require_whole(pack)
        try:
            row = self._batches[batch][pack - int(self._batch_starts[batch])].copied()
        except IndexError:  # an offset that leads nowhere
            self._raise_damaged(pack, "its offsets lead outside the file", ())
        found = row.checksum(n_supervised=int(self.n_supervised[pack]), weight_sum=float(self.weights[pack]))
        if found != self._checksums[pack]:
            self._raise_damaged(pack, f"expected checksum {self._checksums[pack]:08x}, got {found:08x}", row.names())
        return row

    def ids(self, packs: Sequence[int]) -> list[str]:
        """Return the ids of the conversations in `packs`, in order."""
        return [name for pack in packs for name in self.row(pack).names()]

    def tags(self, packs: Sequence[int]) -> list[list[str]]:
        """Return the tags of each conversation in `packs`, in order. Raises DataError if a bit of a file has changed.

        No pack's checksum covers them, for nothing is trained with them: at the first call each file is read whole and
        compared with the manifest, and its tags are kept in memory.
        """
        if self._tags is None:
            self._tags = [_tags(path, file) for path, file in zip(self._paths, self._files, strict=True)]
        found: list[list[str]] = []
        for pack in packs:
            file = self._file_of(pack)
            found += self._tags[file][pack - int(self._file_starts[file])].as_py()
        return found

    def document_lengths(self, pack: int) -> npt.NDArray[np.int32]:
        """Return the lengths of the conversations of a pack, in order."""
        return self.row(pack).seq_lengths

    def tokens(self, pack: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return the input ids and the labels of a pack."""
        row = self.row(pack)
        return row.input_ids, row.labels

    def read(self, packs: Sequence[int], *, vocab_size: int) -> Batch:
        """Return `packs` as one batch on the CPU; no packs give one token that trains nothing.

        Raises DataError, naming the pack, when it is damaged, lengths disagree, a document starts on a trained label, or
        a token is outside the vocabulary.
        """
        if not packs:
            return nothing()
        found = [self.row(pack) for pack in packs]
        for pack, row in zip(packs, found, strict=True):
            self._check(pack, row, vocab_size)
        ids, labels = np.concatenate([row.input_ids for row in found]), np.concatenate([row.labels for row in found])
        lengths = np.concatenate([row.seq_lengths for row in found])
        starts = np.cumsum(lengths) - lengths
        # a label is the target of the token before it; the first of a document is -100, so none crosses a border
        rows = np.flatnonzero(labels[1:] != -100)
        weights = np.concatenate([_weights(row) for row in found])
        return Batch(
            input_ids_T=torch.from_numpy(ids.astype(np.int64)),
            positions_T=torch.from_numpy(np.arange(len(ids)) - np.repeat(starts, lengths)),
            lengths=tuple(lengths.tolist()),
            rows_S=torch.from_numpy(rows),
            targets_S=torch.from_numpy(labels[rows + 1].astype(np.int64)),
            weights_S=torch.from_numpy(weights[rows + 1]),
        )

    def _check(self, pack: int, row: PackedRow, vocab_size: int) -> None:
        """Raise DataError for a pack that is as it was built, and yet cannot be trained on."""
        ids, labels, lengths, n_tokens = row.input_ids, row.labels, row.seq_lengths, int(self.n_tokens[pack])
        wrong = None
        if not len(ids) == len(labels) == n_tokens == lengths.sum():
            wrong = (
                f"{len(ids)} input_ids, {len(labels)} labels, seq_lengths sum to {lengths.sum()}, n_tokens {n_tokens}"
            )
        elif (lengths < 1).any():
            wrong = "a conversation without tokens"
        elif (labels[np.cumsum(lengths) - lengths] != -100).any():
            wrong = "the first label of a conversation is trained, expected -100"
        elif ids.min(initial=0) < 0 or ids.max(initial=0) >= vocab_size:
            wrong = f"token ids {ids.min()} to {ids.max()}, the model knows 0 to {vocab_size - 1}"
        elif np.count_nonzero(labels != -100) != self.n_supervised[pack]:
            wrong = f"{(labels != -100).sum()} trained labels, n_supervised says {self.n_supervised[pack]}"
        if wrong:
            raise DataError(f"{self._where(pack, row.names())}: {wrong}; {REBUILD}")

    def _require_whole(self, pack: int) -> None:
        """Raise DataError where the file that is mapped has been cut since: to read behind its end would end the process."""
        file = self._file_of(pack)
        inode, size = self._mapped[file]
        try:
            found = self._paths[file].stat()
        except OSError:  # it is gone under this name; what is mapped stays
            return
        if found.st_ino == inode and found.st_size < size:
            self._raise_damaged(pack, f"its file had {size:,} bytes when training began, and now {found.st_size:,}", ())

    def _file_of(self, pack: int) -> int:
        return int(np.searchsorted(self._file_starts, pack, side="right")) - 1

    def _raise_damaged(self, pack: int, wrong: str, names: Sequence[str]) -> NoReturn:
        raise DataError(
            f"{self._where(pack, names)}: the pack is damaged: {wrong}. Nothing of it was trained; {REBUILD}"
        )

    def _where(self, pack: int, names: Sequence[str]) -> str:
        file = self._file_of(pack)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        said = f" ({', '.join(names[:NAMED])}{more})" if names else ""
        return f"{self._paths[file]}: row {pack - int(self._file_starts[file])}{said}"


def _weights(row: PackedRow) -> npt.NDArray[np.float32]:
    return np.ones(len(row.labels), np.float32) if row.loss_weights is None else row.loss_weights


def _open(path: Path, file: FileRecord) -> pa.Table:
    """Return the columns of a shard, mapped: only what says where they lie is read."""
    if not file.checksums:
        raise DataError(f"{path}: built by an older version, without checksums; run `chatloom data CONFIG` again")
    try:
        size = path.stat().st_size
        if size != file.bytes:
            raise DataError(
                f"{path}: the shard is damaged: {size:,} bytes, the manifest says {file.bytes:,}; {REBUILD}"
            )
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        types = {column.name: column.type for column in table.schema}  # a name may have become no UTF-8
    except OSError as error:  # an ArrowInvalid is none
        raise DataError(f"{path}: {error.strerror or error}; the manifest lists it; {REBUILD}") from None
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{path}: the shard is damaged: not a readable Arrow file: {error}; {REBUILD}") from None
    if wrong := [f"{own.name} ({own.type})" for own in PACKED if types.get(own.name) != own.type]:
        raise DataError(f"{path}: the shard is damaged: column(s) {', '.join(wrong)} not found; {REBUILD}")
    table = table.select(PACKED.names)
    try:
        table.validate()  # lengths and buffers agree; of the offsets, each row's are bounded when it is read
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: the shard is damaged: {error}; {REBUILD}") from None
    if nulls := [own.name for own in PACKED if not own.nullable and table[own.name].null_count]:
        raise DataError(f"{path}: the shard is damaged: column(s) {', '.join(nulls)} have nulls; {REBUILD}")
    if table.num_rows != file.rows:
        raise DataError(
            f"{path}: the shard is damaged: {table.num_rows} packs, the manifest says {file.rows}; {REBUILD}"
        )
    return table


def _tags(path: Path, file: FileRecord) -> pa.ListArray:
    """Return the tags of the conversations of each pack of a file, a copy in memory."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; the manifest lists it; {REBUILD}") from None
    if (found := hashlib.sha256(data).hexdigest()) != file.sha256:
        raise DataError(
            f"{path}: the shard is damaged, or of another build: expected sha256 {file.sha256}, got {found}, so its tags are not "
            f"to be trusted; {REBUILD}"
        )
    column = pa.ipc.open_file(data).read_all()["tags"].combine_chunks()
    return column.take(pa.array(range(len(column)), pa.int64()))  # without the rest of the file


def _column(tables: Sequence[pa.Table], name: str) -> npt.NDArray[Any]:
    """Return a column of all tables, a copy in memory."""
    kind = PACKED.field(name).type.to_pandas_dtype()
    return np.concatenate([np.zeros(0, kind), *(chunk.to_numpy() for table in tables for chunk in table[name].chunks)])


def _compare(path: Path, file: FileRecord, columns: list[npt.NDArray[Any]]) -> None:
    if summary_of(columns) != file.checksums:
        raise DataError(
            f"{path}: the shard is damaged, or of another build: the checksums of its packs are not those of the "
            f"manifest; {REBUILD}"
        )


def nothing() -> Batch:
    """Return the batch of no packs: one token that trains nothing."""
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        input_ids_T=torch.zeros(1, dtype=torch.int64),
        positions_T=torch.zeros(1, dtype=torch.int64),
        lengths=(1,),
        rows_S=none,
        targets_S=none,
        weights_S=torch.zeros(0),
    )
