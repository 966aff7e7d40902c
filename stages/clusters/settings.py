"""What counts as a duplicate, which copy stays, and what must not be in the corpus at all."""

from typing import Annotated, Literal

import msgspec

from schemas.scopes import Scope
from stages.clusters.rank import Criterion, check_keep


class Clusters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as a duplicate, and which copy stays."""

    threshold: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.8
    """Exact Jaccard similarity of shingles from which a row is a duplicate."""
    thresholds: dict[Scope, Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]] = {}
    """Thresholds of single scopes of [signatures], where they differ: {prompt = 0.95}."""
    recall: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.999
    """Probability that a pair at exactly the threshold becomes a candidate; more similar pairs have more."""
    keep: Criterion | tuple[Criterion, ...] = "longest"
    """Which copy stays: "longest", "shortest", "first" (by source and line), "newest" or "oldest" (by [ingest] created), highest
    "score" (by [ingest] score), or the best "source" (see priority); in a list, the next one decides between equals."""
    priority: tuple[str, ...] = ()
    """Patterns (*, ?) of sources from best to worst, for keep = "source": of their paths, or of their names in the tags."""
    copies: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    """Similar rows that may stay: a row goes when so many that stay are similar to it; 0: none of a cluster stays."""
    ignore_common: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.0
    """Share of the texts from which on a shingle counts as boilerplate and is ignored; 0: none is. Of a text that itself occurs
    so often only equal copies are found then, no near ones."""
    against: tuple[str, ...] = ()
    """Other files, directories, globs or finished runs; rows similar to one of theirs are dropped."""
    evaluations: tuple[str, ...] = ()
    """Evaluation sets that must not be trained on; rows that contain one of their records are reported, or dropped."""
    overlap: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.5
    """Share of an evaluation record's shingles from which on a row contains it."""
    contaminated: Literal["report", "drop"] = "report"
    """What becomes of rows that contain an evaluation record: first look at the report, then drop them."""
    max_source_loss: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.5
    """The build stops when a source loses more than this share (and at least 100 rows) to duplicates, those of `against`
    aside; 1: never."""
    memory: Annotated[float, msgspec.Meta(gt=0.0)] = 4.0
    """GiB that clustering may take, beside 130 bytes a row; what needs more lies in a temporary file in the run. It changes
    nothing else."""

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """Return what decides which copy stays, the first thing first."""
        return (self.keep,) if isinstance(self.keep, str) else self.keep

    def threshold_of(self, scope: Scope) -> float:
        """Return the threshold of a scope."""
        return self.thresholds.get(scope, self.threshold)

    def __post_init__(self) -> None:
        check_keep(self.criteria, self.priority)
