"""Records that hold a list of turns, each an object that says who speaks."""

from typing import Any, Final

from stages.ingest.line import Line
from stages.ingest.messages import agreed, bad_shape
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.turns import turns

TURNS: Final = ("messages", "conversations", "conversation")
"""Keys of a list of turns."""
_SPOKEN: Final = ("role", "from", "content", "value")
_SHAREGPT: Final = ("from", "value")


def turns_key(record: dict[str, Any]) -> str | None:
    """Return the key of the list of turns, None if no key has one; raises LineError when two keys disagree."""
    lists = {key: record[key] for key in TURNS if isinstance(record.get(key), list)}
    return agreed({key: listed for key, listed in lists.items() if listed} or lists, "record")


def first_turn(record: Any) -> Any:
    """Return the first turn of the first list of turns that has one, None if there is none."""
    if not isinstance(record, dict):
        return None
    return next((record[key][0] for key in TURNS if isinstance(record.get(key), list) and record[key]), None)


def _has_turns(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and any(isinstance(record.get(key), list) for key in TURNS)
        and type(first_turn(record)) is not str
    )


def _is_sharegpt(record: Any) -> bool:
    first = first_turn(record)
    return isinstance(first, dict) and any(key in first for key in _SHAREGPT) and "role" not in first


def _is_bare(record: Any) -> bool:
    return (
        isinstance(record, list)
        and bool(record)
        and isinstance(record[0], dict)
        and any(key in record[0] for key in _SPOKEN)
    )


def _read(record: Any, line: Line) -> list[Draft]:
    key = turns_key(record) if isinstance(record, dict) else None
    if key is None:
        expected = f"a list under one of the keys {', '.join(TURNS)}"
        raise bad_shape("record", expected, sorted(record)[:12] if isinstance(record, dict) else record)
    return [Draft(turns(record[key], (key,), line), key)]


def _read_bare(record: Any, line: Line) -> list[Draft]:
    if not isinstance(record, list):
        raise bad_shape("record", "a list of turns", record)
    return [Draft(turns(record, (), line))]


TURN_LISTS: Final = (
    Shape(
        name="sharegpt",
        recognises=_is_sharegpt,
        read=_read,
        rule="`messages`, `conversations` or `conversation`: a list of objects with `from` and `value`, the first without `role`",
        example='{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}], "system": "Short."}',
        used_by="ShareGPT, Vicuna, FastChat, LLaMA-Factory, Glaive",
    ),
    Shape(
        name="messages",
        recognises=_has_turns,
        read=_read,
        rule="`messages`, `conversations` or `conversation`: a list of objects with `role` and `content`",
        example='{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}',
        used_by="OpenAI, TRL, minimind",
    ),
    Shape(
        name="turns",
        recognises=_is_bare,
        read=_read_bare,
        rule="the record is itself a list of such objects",
        example='[{"role": "client", "content": "I cannot sleep."}, {"role": "counselor", "content": "Since when?"}]',
        used_by="SMILE",
    ),
)
"""Tried after lists whose turns do not say who speaks."""
