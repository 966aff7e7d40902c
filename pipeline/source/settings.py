"""Where conversations come from: the section [source] and its sets."""

from typing import Annotated

import msgspec

from pipeline.source.dialect import Header, TableSettings
from stages.ingest.mapping import Mapping, refuse_both
from stages.ingest.rules import Rules
from stages.ingest.shapes.names import ShapeName


class SourceSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs that have something in common: how they are read, what their rows are tagged with, how many of them are taken."""

    inputs: tuple[str, ...]
    """Files, directories, globs, dataset names and URLs, as in [source] inputs. A file that both name belongs to the set."""
    tags: tuple[str, ...] = ()
    """Put on every row, before the record's own; by convention "kind:value", e.g. "domain:medical", "language:zh", "class:B"."""
    shape: ShapeName | None = None
    """Shape of every record, instead of that of [ingest]; "auto" recognises each record by its keys."""
    mapping: Mapping | None = None
    """Where in a record its parts stand, for records of no known shape; instead of that of [ingest]."""
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    """Share of its records that is read, drawn by [source] seed: what 0.1 takes, 0.2 takes too."""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Most records of the set that are read, drawn from all of them: what 1000 takes, 2000 takes too."""
    split: str | None = None
    """Split of datasets that is read, or several joined by +, e.g. "train+validation"; "train" unless given."""
    config: str | None = None
    """Config of datasets whose card has several and says no default."""
    header: Header = "auto"
    """Whether the first record of a CSV or TSV file names its columns. "auto": that of CSV does, and that of TSV unless it has no
    more than three columns and none of the names that are known (docs/formats.md); else columns are column_1, column_2 ..."""
    delimiter: str | None = None
    """What stands between the fields of a CSV or TSV file; the tab of TSV, and the first of , ; tab that CSV has in its first
    line, unless given."""
    quote: str | None = None
    """What quotes a field of a CSV or TSV file, "" for nothing. Unless given, the double quote in CSV, and in TSV if every field
    that begins with one ends with one."""

    def __post_init__(self) -> None:
        """Refuse a set without inputs."""
        if not self.inputs:
            raise ValueError("a set without inputs reads nothing: name files, directories or globs in its inputs")
        refuse_both(self.shape, self.mapping)
        for name, mark in (("delimiter", self.delimiter), ("quote", self.quote or None)):
            if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in "\r\n\0"):
                raise ValueError(f"{name} = {mark!r}: expected one ASCII character that ends no line")
        if self.delimiter is not None and self.delimiter == (self.quote if self.quote is not None else '"'):
            raise ValueError(f"delimiter and quote are both {self.delimiter!r}: fields could not be told apart")

    def table(self) -> TableSettings:
        """Return how its CSV and TSV files are written."""
        return TableSettings(header=self.header, delimiter=self.delimiter, quote=self.quote)

    def rules(self) -> Rules:
        """Return what ingest has to know of the rows of this set."""
        return Rules(tags=self.tags, shape=self.shape, mapping=self.mapping)


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where conversations come from."""

    inputs: tuple[str, ...] = ()
    """Files, directories, globs and URLs of .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow and .feather, each also as .gz
    and .zst; directories of the library datasets, of which the split train is read; and datasets on the Hugging Face hub,
    as owner/name or hf://datasets/owner/name, with @revision or /path after it."""
    sets: tuple[SourceSet, ...] = ()
    """More inputs, each with tags, a shape or a mapping of its own: tables [[source.sets]]."""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Most records that are read, for a smoke run: a sample drawn from all inputs, not their beginning. The others are dropped
    in ingest (not_sampled)."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    """Another seed draws other samples."""
    shard_bytes: Annotated[int, msgspec.Meta(ge=1 << 10, le=1 << 30)] = 8 << 20
    """Bytes of input per shard: the unit of memory, of parallel work and of resumption."""
    max_line_bytes: Annotated[int, msgspec.Meta(ge=1 << 10, le=1 << 30)] = 16 << 20
    """Longest line that is read; a longer one is quarantined (line_too_long)."""
