"""What the fast lane knows of the shapes: the keys of a record, what may stand under them, and what is made of that.

All of it follows from the tables of the adapters; what they read besides is only for the strict lane.
"""

from dataclasses import dataclass
from typing import Final

from stages.ingest.conversation import IDS, SYSTEMS
from stages.ingest.messages import HARMLESS, MEDIA, ROLES
from stages.ingest.policies import DISLIKED, UNTRAINED
from stages.ingest.shapes.pair import HISTORY, REASONING, SPEAKING
from stages.ingest.shapes.pairs import FLAT, OF_ONE_DATA_SET
from stages.ingest.shapes.turn_lists import TURNS

SOURCE: Final = "source"
_MOST_IGNORED: Final = 56
BESIDE_TURNS: Final = ("prompt", "category")
"""Keys that are read elsewhere, and say nothing beside a list of turns (UltraChat, No Robots)."""
TURN_KEYS: Final = ("role", "content", "from", "value")
"""In the order of stages.ingest.lane.walk_kernel."""
IGNORED: Final = tuple(sorted(HARMLESS))[:_MOST_IGNORED]
"""Keys of a turn that say nothing, whatever scalar stands under them; more than so many are left to the strict lane."""
CANONICAL: Final = ("system", "user", "assistant", "tool")
"""In the order of stages.ingest.lane.walk_kernel."""
READ: Final = frozenset(
    (
        *SPEAKING,
        *REASONING,
        *MEDIA,
        *DISLIKED,
        *UNTRAINED,
        *("Definition", "chat", "column_1", "data", "functions", "parent_id", "plain_text", "reannotated_messages"),
        *("rejected", "is_correct", "tags", "tools"),
        *(key for pair in (*FLAT, *OF_ONE_DATA_SET) for key in (*pair.question, *pair.answers, *pair.also, *pair.tags)),
    )
)
"""Keys that one adapter or another reads. What is no slot of a plan among them is left to the strict lane."""


@dataclass(frozen=True)
class Plan:
    """Records of one shape that the lane knows, and of them those that need no policy."""

    shape: str
    required: frozenset[str]
    optional: frozenset[str]
    question: tuple[str, ...] = ()
    answer: str | None = None
    tags: tuple[str, ...] = ()
    form: int = 0
    """How turns say who speaks: see stages.ingest.lane.walk_kernel."""


def _plans() -> tuple[Plan, ...]:
    always = frozenset((*SYSTEMS, *IDS, SOURCE))
    found = [
        Plan(shape, frozenset((key,)), always | {*BESIDE_TURNS}, tags=(SOURCE,), form=form)
        for key in TURNS
        for shape, form in (("messages", 1), ("sharegpt", 2))
    ]
    for pair in FLAT:
        if pair.also or pair.is_whole:
            continue
        for answer in pair.answers:
            own = (pair.asked, answer)
            tags = tuple(key for key in (*pair.tags, SOURCE) if key not in (*pair.question, answer))
            optional = always | {*pair.question, *tags, HISTORY} - {*own}
            found.append(Plan(pair.name, frozenset(own), optional, pair.question, answer, tags))
    return tuple(found)


PLANS: Final = _plans()
SLOTS: Final = tuple(dict.fromkeys(key for plan in PLANS for key in (*sorted(plan.required), *sorted(plan.optional))))
"""Keys that the lane reads itself."""

__all__ = [
    "CANONICAL",
    "HISTORY",
    "IDS",
    "IGNORED",
    "PLANS",
    "READ",
    "ROLES",
    "SLOTS",
    "SOURCE",
    "SYSTEMS",
    "TURNS",
    "TURN_KEYS",
    "Plan",
]
