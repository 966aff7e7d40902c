"""The run directory: the only place that reads and writes shards, each committed whole and known by its hash."""

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from pipeline.graph import Stage
from pipeline.halves import Halves
from schemas.checksum import summary
from schemas.errors import GateError
from schemas.fields import CHECKSUM
from schemas.files import TEMPORARY, remove, sha256_of, write_if_changed, write_whole
from schemas.manifest import STAGES, FileRecord, Manifest, ShardRecord, total


class DamagedShardError(GateError):
    """A file is not what its record says."""


@dataclass(frozen=True)
class Store:
    """A run directory."""

    root: Path

    def directory(self, stage: str) -> Path:
        """Return where a stage's output lies."""
        return self.root / stage

    def record(self, stage: str, shard: int) -> ShardRecord | None:
        """Return what is known of a committed shard, or None: absent is never ambiguous, for the record comes last."""
        try:
            return msgspec.json.decode(self._record_path(stage, shard).read_bytes(), type=ShardRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def holds(self, stage: str, record: ShardRecord) -> bool:
        """Return whether the files of a record are there, in the right size."""
        return all(_size(self.directory(stage) / file.path) == file.bytes for file in record.files)

    def is_whole(self, stage: str, record: ShardRecord) -> bool:
        """Return whether every byte of a record's files is as it was written."""
        try:
            for file in record.files:
                verify(self.directory(stage) / file.path, file)
        except DamagedShardError:
            return False
        return True

    def forget(self, stage: str, shard: int) -> None:
        """Remove the record of a shard: it is then to be built anew."""
        remove(self._record_path(stage, shard))

    def read(self, stage: str, record: ShardRecord) -> pl.DataFrame:
        """Return the kept rows of a shard, memory-mapped. Raises DamagedShardError if a byte of it has changed."""
        for file in record.kept_files():
            verify(self.directory(stage) / file.path, file)
        return self.map(stage, record)

    def map(self, stage: str, record: ShardRecord) -> pl.DataFrame:
        """Return the kept rows of a shard, memory-mapped and unverified. Raises OSError."""
        tables = []
        for file in record.kept_files():
            with pa.memory_map(str(self.directory(stage) / file.path)) as source:
                tables.append(pa.ipc.open_file(source).read_all())
        frame = pl.from_arrow(pa.concat_tables(tables))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def commit(self, stage: Stage, shard: int, key: str, halves: Halves, source: str = "") -> ShardRecord:
        """Write both halves of a stage's output, and last the record that makes them count."""
        record = self.write(stage, shard, key, halves, source)
        self.remember(stage.name, record)
        return record

    def write(self, stage: Stage, shard: int, key: str, halves: Halves, source: str = "") -> ShardRecord:
        """Write both halves of a stage's output and return their record, which does not count before it is remembered.

        A file that holds the very bytes already is left as it is.
        """
        directory = self.directory(stage.name)
        remove(self._record_path(stage.name, shard))  # first: a record must never describe another content
        files = [
            _write(directory, f"kept/{part}{shard:05d}.arrow", rows)
            for part, rows in _partition(halves.kept, stage.partition)
        ]
        if halves.dropped is not None:
            files.append(_write(directory, f"dropped/{shard:05d}.arrow", halves.dropped))
        self._remove_strays(stage, shard, files)
        return ShardRecord(
            shard=shard,
            key=key,
            source=source,
            rows_in=halves.rows_in,
            kept=halves.n_kept,
            dropped=halves.reasons,
            tokens=_tokens(halves.kept),
            supervised=_sum(halves.kept, "n_supervised"),
            counts=halves.counts,
            files=tuple(files),
        )

    def remember(self, stage: str, record: ShardRecord) -> None:
        """Write the record of a shard: from now on it counts."""
        path = self._record_path(stage, record.shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=1))

    def _remove_strays(self, stage: Stage, shard: int, files: Iterable[FileRecord]) -> None:
        """Remove what an earlier build left of this shard: a dropped file without rows, a split that is no more."""
        directory = self.directory(stage.name)
        wanted = {directory / file.path for file in files}
        for path in (*directory.glob(f"kept/**/{shard:05d}.arrow"), *directory.glob(f"dropped/{shard:05d}.arrow")):
            if path not in wanted:
                remove(path)

    def finish(
        self,
        stage: Stage,
        records: list[ShardRecord],
        key: str,
        *,
        settings: str,
        libraries: dict[str, str],
        added_tokens: dict[str, int],
    ) -> Manifest:
        """Write the manifest, the proof that the stage is complete, after removing what no record names."""
        directory = self.directory(stage.name)
        wanted = {directory / file.path for record in records for file in record.files}
        wanted |= {self._record_path(stage.name, record.shard) for record in records}
        for path in sorted(directory.rglob("*"), reverse=True):  # what a directory holds comes before it
            if path.is_dir():
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()
            elif path.is_file() and path not in wanted and path != self._manifest_path(stage.name):
                remove(path)
        shards = tuple(records)
        assets = (
            {str(path.relative_to(self.root)): sha256_of(path) for path in self._tokenizer()} if stage.partition else {}
        )
        manifest = Manifest(
            stage=stage.name,
            key=key,
            settings=settings,
            libraries=libraries,
            assets=assets,
            added_tokens=added_tokens if stage.partition else {},
            totals=total(shards),
            shards=shards,
        )
        data = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
        write_if_changed(self._manifest_path(stage.name), data)
        return manifest

    def _tokenizer(self) -> list[Path]:
        return sorted(path for path in (self.root / "tokenizer").rglob("*") if path.is_file())

    def unfinish(self, stage: str) -> None:
        """Remove the manifest: from now on the stage is incomplete."""
        remove(self._manifest_path(stage))

    def sweep(self) -> None:
        """Remove temporary files that a killed build left behind; a trainer's own are none of ours."""
        for directory in (self.root, self.root / "tokenizer", *(self.directory(stage) for stage in STAGES)):
            walk = directory.glob if directory == self.root else directory.rglob
            for path in walk(f"{TEMPORARY}*"):
                if path.is_file():
                    path.unlink(missing_ok=True)

    def _record_path(self, stage: str, shard: int) -> Path:
        return self.directory(stage) / "shards" / f"{shard:05d}.json"

    def _manifest_path(self, stage: str) -> Path:
        return self.directory(stage) / "manifest.json"


def verify(path: Path, file: FileRecord) -> None:
    """Raise DamagedShardError unless the file at `path` has the bytes that its record says."""
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        found = "no such file"
    if found != file.sha256:
        raise DamagedShardError(
            f"{path}: the shard is damaged: expected sha256 {file.sha256}, got {found}. `chatloom data CONFIG --verify`, with "
            "the config of the run that it is in, finds every damaged shard and rebuilds it"
        )


def _write(directory: Path, name: str, table: pa.Table) -> FileRecord:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = memoryview(_serialised(table))
    sha256 = hashlib.sha256(data).hexdigest()
    if _size(path) != len(data) or sha256_of(path) != sha256:
        write_whole(path, data)
    checksums = summary(table) if CHECKSUM.name in table.column_names else ""
    return FileRecord(path=name, rows=table.num_rows, bytes=len(data), sha256=sha256, checksums=checksums)


def _serialised(table: pa.Table) -> pa.Buffer:
    """Return the bytes of a table's file, in memory that was asked for once: what grows is copied whole at each step."""
    measure = pa.MockOutputStream()
    _serialise(table, measure)
    data = pa.allocate_buffer(measure.size())
    _serialise(table, pa.FixedSizeBufferWriter(data))
    return data


def _serialise(table: pa.Table, sink: pa.NativeFile) -> None:
    # One record batch: a shard is bounded, its rows are then reached without copying, and its bytes do not depend on how
    # the stage happened to chunk them.
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(table.num_rows, 1))


def _partition(table: pa.Table, column: str | None) -> list[tuple[str, pa.Table]]:
    """Return (directory, rows) per value of `column`; a shard without rows still has its train file."""
    if column is None:
        return [("", table)]
    values = sorted(pc.unique(table[column]).to_pylist()) or ["train"]
    return [(f"{value}/", table.filter(pc.equal(table[column], value)).combine_chunks()) for value in values]


def _tokens(table: pa.Table) -> int:
    if "input_ids" not in table.column_names:
        return 0
    return pc.sum(pc.list_value_length(table["input_ids"])).as_py() or 0


def _sum(table: pa.Table, column: str) -> int:
    return (pc.sum(table[column]).as_py() or 0) if column in table.column_names else 0


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
