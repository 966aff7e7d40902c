"""Where conversations come from: the section [source] and its sets."""

from typing import Annotated

import msgspec

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

    def __post_init__(self) -> None:
        """Refuse a set without inputs."""
        if not self.inputs:
            raise ValueError("a set without inputs reads nothing: name files, directories or globs in its inputs")
        refuse_both(self.shape, self.mapping)

    def rules(self) -> Rules:
        """Return what ingest has to know of the rows of this set."""
        return Rules(tags=self.tags, shape=self.shape, mapping=self.mapping)


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where conversations come from."""

    inputs: tuple[str, ...] = ()
    """Files, directories and globs of .jsonl, .ndjson and .json, each also as .gz."""
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
