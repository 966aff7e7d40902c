"""Cells of a table that hold JSON as text: lists of turns, and tools, in formats that have no lists of their own."""

from typing import Any, Final

import msgspec

from stages.ingest.decode import MAX_DEPTH, LineError, strict_json

LISTS: Final = frozenset(
    ("messages", "conversations", "conversation", "history", "tools", "functions", "instances", "tags")
)
"""Columns under which adapters read a list or an object, so that JSON text there is one."""
SIDES: Final = frozenset(("prompt", "completion", "chosen", "rejected", "data"))
"""Columns under which they read text as well: JSON is one only if it is a list of turns."""
JSON_COLUMNS: Final = LISTS | SIDES
_BLANK: Final = " \t\r\n"


def json_of(column: str, cell: str) -> msgspec.Raw | None:
    """Return the JSON that a cell of one of JSON_COLUMNS holds, byte for byte; None if it is to be taken as text.

    It is read as strictly as a line: of what is not quite JSON the text is kept, and the adapters say what they miss.
    """
    first = cell[:1] if cell[:1] not in _BLANK else cell.lstrip(_BLANK)[:1]
    if first != "[" and (first != "{" or column in SIDES):
        return None
    raw = cell.encode()
    try:
        value = strict_json(raw, max_depth=MAX_DEPTH)
    except LineError:
        return None
    if column in SIDES and not _is_turns(value):
        return None
    return msgspec.Raw(raw)


def _is_turns(value: Any) -> bool:
    return bool(value) and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
