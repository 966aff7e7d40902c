"""The shapes records come in: one small adapter each, in one table, chosen by the record's own keys."""

from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.shapes.marked import MARKED
from stages.ingest.shapes.moss import MOSS
from stages.ingest.shapes.pairs import PAIRS, PAIRS_FIRST
from stages.ingest.shapes.preference import PREFERENCE
from stages.ingest.shapes.remainder import REMAINDER
from stages.ingest.shapes.rounds import ROUNDS
from stages.ingest.shapes.shape import Draft, Found, Shape
from stages.ingest.shapes.tasks import TASKS
from stages.ingest.shapes.trees import TREES
from stages.ingest.shapes.turn_lists import TURN_LISTS
from stages.ingest.shapes.unlabelled import TEXTS, UNLABELLED

SHAPES: Final[dict[str, Shape]] = {
    shape.name: shape
    for shape in (
        *(PREFERENCE, TREES, MOSS, *ROUNDS, *TASKS, *PAIRS_FIRST),
        *(UNLABELLED, *TURN_LISTS),
        *PAIRS,
        *(TEXTS, MARKED, *REMAINDER),
    )
}
"""In the order in which they are tried: what one data set has alone, lists of turns, questions and answers, the rest."""


def recognise(record: Any) -> Shape:
    """Return the first shape that recognises `record`. Raises LineError, with the record's keys, when none does."""
    for shape in SHAPES.values():
        if shape.recognises(record):
            return shape
    if not isinstance(record, dict):
        hint = ""
        if isinstance(record, list) and record and isinstance(record[0], str):
            hint = ' of texts; if they are turns, say so: shape = "texts"'
        raise LineError(DropReason.UNKNOWN_SHAPE, f"expected a JSON object, got {type(record).__name__}{hint}")
    keys = ", ".join(sorted(record)[:12])
    raise LineError(
        DropReason.UNKNOWN_SHAPE, f"keys {keys or '(none)'}: no known shape has them; mapping says what is what"
    )


__all__ = ["SHAPES", "Draft", "Found", "Shape", "recognise"]
