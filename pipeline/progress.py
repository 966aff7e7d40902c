"""What a build tells its watcher."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.source import Chunk
from schemas.manifest import Manifest, ShardRecord


class Progress:
    """The default says nothing."""

    def compiling(self) -> None:
        """Report that kernels are compiled on the way: nobody has used this version of the code before."""

    def scanning(self, path: str, done: int, total: int) -> None:
        """Report how many bytes of an input file have been looked at, of so many as it has on disk."""

    def found(self, paths: Sequence[str], ignored: Sequence[str], chunks: Sequence[Chunk]) -> None:
        """Report the inputs, and what lies in the directories beside them but is not read."""

    def referred(
        self, name: str, paths: Sequence[str], n_records: int, unreadable: Mapping[str, int], directory: Path
    ) -> None:
        """Report what a setting that names other files or runs stands for: records to compare with, and lines lost, by reason.

        Where files are read, they lie in `directory`, a run of its own."""

    def added(self, template: str, tokens: dict[str, int]) -> None:
        """Report the tokens that a template declares and the tokenizer lacked, with the ids they got."""

    def started(self, stages: Sequence[str], n_stale: int, n_shards: int) -> None:
        """Report that a phase begins."""

    def reading(self, stage: str, name: str, n_read: int, n_shards: int) -> None:
        """Report how many shards of `name`, of so many, a stage over the corpus has read; it may read them more than once."""

    def advanced(self, stages: Sequence[str], records: Sequence[ShardRecord]) -> None:
        """Report that one shard has gone through a phase."""

    def finished(self, manifest: Manifest, seconds: float | None) -> None:
        """Report a complete stage; `seconds` of work over all workers, None if it was up to date."""
