"""Cells of a table that hold JSON as text: lists of turns, tools and marks, in formats that have only texts."""

from typing import Any, Final

import msgspec

from stages.ingest.decode import MAX_DEPTH, LineError, strict_json
from stages.ingest.policies import DISLIKED
from stages.ingest.shapes.pair import HISTORY
from stages.ingest.shapes.turn_lists import TURNS

_OF_TASKS: Final = ("Definition", "Instances", "instances", "reformulations", "Categories", "Domains")
LISTS: Final = frozenset((*TURNS, HISTORY, "reannotated_messages", "chat", "tools", "functions", "tags", *_OF_TASKS))
"""Columns under which adapters read a list or an object, so that JSON text there is one."""
SIDES: Final = frozenset(("prompt", "completion", "chosen", "rejected", "data"))
"""Columns under which they read text as well: JSON is one only if it is a turn, or a list of turns."""
MARKS: Final = frozenset((*DISLIKED, "is_correct"))
"""Columns that say true or false of a record. "False" as Python writes it counts too: to miss it would train a bad answer."""
JSON_COLUMNS: Final = LISTS | SIDES | MARKS
_BOOLEANS: Final = {"true": msgspec.Raw(b"true"), "false": msgspec.Raw(b"false")}
_BLANK: Final = " \t\r\n"


def json_of(column: str, cell: str) -> msgspec.Raw | None:
    """Return the JSON that a cell of one of JSON_COLUMNS holds, byte for byte; None if it is to be taken as text.

    It is read as strictly as a line: of what is not quite JSON the text is kept, and the adapters say what they miss.
    """
    if column in MARKS:
        return _BOOLEANS.get(cell.strip().lower())
    first = cell[:1] if cell[:1] not in _BLANK else cell.lstrip(_BLANK)[:1]
    if first not in ("[", "{"):
        return None
    raw = cell.encode()
    try:
        value = strict_json(raw, max_depth=MAX_DEPTH)
    except LineError:
        return None
    return None if column in SIDES and not _is_turns(value) else msgspec.Raw(raw)


def _is_turns(value: Any) -> bool:
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns)
