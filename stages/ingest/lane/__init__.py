"""The fast lane: lines of common shapes, read by compiled code that gives the very rows that the strict lane would give.

The strict decoder, the adapters and the policies are the law. A line takes the lane only if the walk over its bytes has seen
that it is exactly what the lane knows: its keys, what kinds of values they have, roles, texts, and nothing that a policy could
have something to say of. Every other line is left to the law.
"""

import sys
from typing import Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from stages.ingest.lane.plan import PLANS, READ, SLOTS, Plan
from stages.ingest.ranking import Ranking
from stages.ingest.rules import Rules
from stages.ingest.settings import Ingest

ENOUGH_BYTES: Final = 2 << 20
"""Fewer are read sooner than the kernels are loaded (0.15 s)."""
FEW_BYTES: Final = 1 << 12
"""Fewer are read sooner than columns are made, when they are loaded."""
_KERNELS: Final = "stages.ingest.lane.columns"
MOST_BYTES: Final = 1 << 30
"""More might not fit the offsets of a column."""


class Lane(NamedTuple):
    """What the config and the rules say, as far as it concerns the lane."""

    shape: str
    border: str
    """What stands between the parts of a question."""
    ranking: Ranking
    tags: tuple[str, ...]
    """What every row is tagged with first."""
    trims_end: bool = True
    """Whether turns after the assistant's last one are left out; else the lane leaves such records."""
    keeps_opening: bool = True
    """Whether the assistant may speak first; else the lane leaves such records."""

    @property
    def asked(self) -> tuple[str, ...]:
        """Return the keys of a record by which it is ranked, each once."""
        return tuple(dict.fromkeys(key for key in self.ranking if key is not None))

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Return how records of the shapes that may come are read."""
        return tuple(plan for plan in PLANS if self.shape in ("auto", plan.shape))

    def is_open(self) -> bool:
        """Tell whether any line may take the lane.

        None where records are ranked by a key that the lane itself reads, or tagged with what may be their own tag too.
        """
        known = {*SLOTS, *READ}
        labels = tuple(f"{key}:" for plan in self.plans for key in plan.tags)
        return (
            bool(self.plans)
            and not any({key, key.partition(".")[0]} & known for key in self.asked)
            and not any(tag.startswith(labels) for tag in self.tags)
            and len(set(self.tags)) == len(self.tags)
        )


def lane_of(config: Ingest, rules: Rules) -> Lane | None:
    """Return the lane for rows under `rules`; None where something is asked that it does not know."""
    if config.mapping is not None or config.end_texts or Rules(tags=rules.tags, shape=rules.shape) != rules:
        return None
    return Lane(
        rules.shape or config.shape,
        config.input_border,
        Ranking(config.score, config.created),
        rules.tags,
        trims_end=config.trailing == "trim",
        keeps_opening=config.first_assistant == "keep",
    )


def take(frame: pl.DataFrame, lane: Lane) -> tuple[NDArray[np.int64], pa.Table] | None:
    """Return (which rows of `frame` took the lane, what became of them), None when none did.

    `frame` has records of one file and under one set of rules; the result has the columns of stages.ingest.ingest_lines.
    """
    size = int(frame["raw"].bin.size().sum() or 0)
    least = FEW_BYTES if _KERNELS in sys.modules else ENOUGH_BYTES
    # what is written besides the bytes of the lines: ids, and borders between the parts of questions
    written = frame.height * (len(frame["source"][0].encode()) + 4 * len(lane.border.encode()) + 20) if size else 0
    if size < least or size + written > MOST_BYTES or not lane.is_open():
        return None
    from stages.ingest.lane.columns import read_columns

    rows, table = read_columns(frame, lane, size)
    return (rows, table) if len(rows) else None
