"""The chunks of all inputs, found anew at each build; only unpacking a compressed file twice is avoided."""

import hashlib
import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path

import msgspec

from pipeline.keys import READER, closure, digest
from pipeline.plan import Task
from pipeline.progress import Progress
from pipeline.source import COMPRESSED, SUFFIXES, Chunk, Source, SourceError, choose, expand_sets, scan, without_query
from pipeline.source.cutting import BLOCK
from pipeline.source.dialect import TableSettings
from pipeline.source.opening import open_file
from pipeline.source.scan import Watch
from schemas.files import write_if_changed


class _Packed(msgspec.Struct, frozen=True):
    key: str
    chunks: tuple[Chunk, ...]


class Catalog:
    """Which chunks the inputs consist of. Keeps source.json in the run directory, and unpacked files while needed."""

    def __init__(
        self, root: Path, config: Source, *, what: str = "input", suffixes: tuple[str, ...] = SUFFIXES
    ) -> None:
        self._config = config
        self._index = root / "source.json"
        self._spool = root / ".spool"
        self._rules, self.ignored, self._set_of = expand_sets(config, what=what, suffixes=suffixes)
        self.paths = list(self._rules)
        self._tables = {
            path: config.sets[number - 1].table() if number else TableSettings()
            for path, number in self._set_of.items()
        }

    def chunks(self, progress: Progress | None = None) -> list[Chunk]:
        """Return all chunks in order, each with the digest of its bytes as they are now.

        A compressed file is unpacked again only if its own bytes have changed. Raises SourceError.
        """
        packed = self._load()
        known: dict[str, _Packed] = {}
        chunks: list[Chunk] = []
        for path in self.paths:
            watch = partial((progress or Progress()).scanning, path)
            if without_query(path).endswith(COMPRESSED):
                key = digest(self._packed_key(path), self._rules[path] or "", repr(self._tables[path]))
                entry = packed.get(path)
                if entry is None or entry.key != key:
                    entry = _Packed(key, tuple(self._scan(path, watch)))
                known[path] = entry
                chunks += entry.chunks
            else:
                chunks += self._scan(
                    path, watch, needed=()
                )  # pieces of large row groups only when a task asks for them
        write_if_changed(self._index, msgspec.json.format(msgspec.json.encode(known), indent=1))
        self._sweep({chunk.spool for chunk in chunks})
        return choose(chunks, self._set_of, self._config)

    def unpack_for(self, tasks: list[Task], progress: Progress | None = None) -> None:
        """Make sure that the bytes of every chunk in `tasks` can be read. Raises SourceError."""
        missing: dict[str, dict[int, str]] = {}
        for task in tasks:
            chunk = task.chunk
            if chunk.spool and not Path(chunk.spool).exists():
                missing.setdefault(chunk.path, {})[chunk.start] = chunk.spool
        for path, pieces in missing.items():
            watch = partial((progress or Progress()).scanning, path)
            self._scan(path, watch, pieces)
            if not all(Path(piece).exists() for piece in pieces.values()):
                raise SourceError(
                    f"{path}: changed while the build was reading it. Run it again when nothing writes to the file"
                )

    def _scan(self, path: str, watch: Watch, needed: Collection[int] | None = None) -> list[Chunk]:
        rules, table = self._rules[path], self._tables[path]
        return scan(path, self._config, self._spool, rules, watch=watch, needed=needed, table=table)

    @staticmethod
    def used(chunk: Chunk) -> None:
        """Remove what was unpacked of a chunk: its records have been read."""
        if chunk.spool:
            Path(chunk.spool).unlink(missing_ok=True)

    def _sweep(self, pieces: set[str | None]) -> None:
        """Remove what an earlier build has unpacked, and nobody asks for."""
        for path in self._spool.glob("*"):
            if str(path) not in pieces:
                path.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove unpacked files."""
        shutil.rmtree(self._spool, ignore_errors=True)

    def _load(self) -> dict[str, _Packed]:
        try:
            return msgspec.json.decode(self._index.read_bytes(), type=dict[str, _Packed])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}

    def _packed_key(self, path: str) -> str:
        code, _ = closure(READER)
        sizes = f"{self._config.shard_bytes} {self._config.max_line_bytes}"
        return digest(_sha256(path), sizes, str(self._spool), *(sha256 for _, sha256 in code))


def _sha256(path: str) -> str:
    """Return the hash of a file's bytes, wherever it lies. Raises SourceError."""
    state = hashlib.sha256()
    try:
        file, _ = open_file(path)
        try:
            while block := file.read(BLOCK):
                state.update(block)
        finally:
            file.close()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    return state.hexdigest()
