"""What a stage says of its own output: written last, so that its presence is the proof of completion."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

FORMAT: Final = 1
"""Version of the layout of a run directory; part of every key."""

STAGES: Final = ("ingest", "length", "signatures", "clusters", "dedup", "render", "tokenize", "mask", "pack")
"""Names of the stages in order, for those who read a run without running anything."""


REFERENCES: Final = ("against", "evaluations")
"""Settings of [clusters] that name what a run is compared with; each has a run of its own in REFERENCES_DIRECTORY."""
REFERENCES_DIRECTORY: Final = "references"


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a shard."""

    path: str
    """Relative to the stage's directory, for example kept/00000.arrow."""
    rows: int
    bytes: int
    sha256: str
    checksums: str = ""
    """Of a file of packs: hash of the columns that a reader compares instead of all bytes, see schemas.checksum."""


class ShardRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one shard: enough to know that it is fresh, whole and conserved."""

    shard: int
    key: str
    source: str = ""
    """Path of the file that its rows came from, as given."""
    rows_in: int
    kept: int
    """Conversations kept. For every stage but ingest the next stage's rows_in, unless [tokenize] too_long = "windows" made
    several rows of one: tokenize still counts it once, and from mask on each window is a conversation of its own."""
    dropped: dict[str, int]
    """Conversations dropped, by reason."""
    tokens: int = 0
    supervised: int = 0
    counts: dict[str, int] = {}
    """What else the stage has to report of this shard, by name, e.g. "trained/assistant/content"."""
    files: tuple[FileRecord, ...] = ()

    def digest(self) -> str:
        """Return a text that changes whenever a kept byte changes; it enters the keys downstream."""
        return " ".join(file.sha256 for file in self.kept_files())

    def kept_files(self) -> tuple[FileRecord, ...]:
        """Return the files that the next stage reads."""
        return tuple(file for file in self.files if file.path.startswith("kept/"))


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over a stage's shards."""

    rows_in: int
    kept: int
    dropped: dict[str, int]
    tokens: int = 0
    supervised: int = 0
    counts: dict[str, int] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A finished stage. Holds no clock and no path of the machine: the same input gives the same manifest."""

    format: int = FORMAT
    stage: str
    key: str
    """Hash over the keys of all shards: equal keys mean equal bytes."""
    settings: str = ""
    """Hash of all that determined it but its input: code, settings, libraries; equal ones mean comparable rows."""
    libraries: dict[str, str]
    assets: dict[str, str] = {}
    """Files outside the stage that its rows must be read with, relative to the run, to their sha256."""
    added_tokens: dict[str, int] = {}
    """Tokens of those files' tokenizer that the chat template declares and the model's own tokenizer lacked, to their ids."""
    totals: Totals
    shards: tuple[ShardRecord, ...]


def total(shards: tuple[ShardRecord, ...]) -> Totals:
    """Return the sums over `shards`."""
    return Totals(
        rows_in=sum(shard.rows_in for shard in shards),
        kept=sum(shard.kept for shard in shards),
        dropped=_sums(shard.dropped for shard in shards),
        tokens=sum(shard.tokens for shard in shards),
        supervised=sum(shard.supervised for shard in shards),
        counts=_sums(shard.counts for shard in shards),
    )


def _sums(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for one in counts:
        for name, n in one.items():
            sums[name] = sums.get(name, 0) + n
    return dict(sorted(sums.items()))


def read_manifest(run: Path, stage: str) -> Manifest | None:
    """Return the manifest of a finished stage, or None."""
    try:
        return msgspec.json.decode((run / stage / "manifest.json").read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def read_manifests(run: Path) -> dict[str, Manifest]:
    """Return the manifests of all finished stages of a run, in order."""
    found = {stage: read_manifest(run, stage) for stage in STAGES}
    return {stage: manifest for stage, manifest in found.items() if manifest is not None}
