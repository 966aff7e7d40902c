"""Records that hold a list of turns."""

from typing import Any, Final

from stages.ingest.line import Line
from stages.ingest.messages import agreed, bad_shape
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.turns import message

_TURNS: Final = ("messages", "conversations", "conversation")


def turns_key(record: dict[str, Any]) -> str | None:
    """Return the key of the list of turns, None if no key has one; raises LineError when two keys disagree."""
    lists = {key: record[key] for key in _TURNS if isinstance(record.get(key), list)}
    return agreed({key: turns for key, turns in lists.items() if turns} or lists, "record")


def _has_turns(record: Any) -> bool:
    return isinstance(record, dict) and any(isinstance(record.get(key), list) for key in _TURNS)


def _read(record: Any, line: Line) -> list[Draft]:
    key = turns_key(record) if isinstance(record, dict) else None
    if key is None:
        raise bad_shape("record", "a key messages or conversations that is a list", _keys(record))
    return [Draft([message(turn, (key, i), line) for i, turn in enumerate(record[key])], key)]


def _keys(record: Any) -> Any:
    return sorted(record)[:12] if isinstance(record, dict) else record


TURN_LISTS: Final = (
    Shape(
        name="messages",
        recognises=_has_turns,
        read=_read,
        rule="`messages`, `conversations` or `conversation`: a list of objects with `role` and `content`",
        example='{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}',
        used_by="OpenAI, TRL, minimind",
    ),
    Shape(
        name="sharegpt",
        recognises=_has_turns,
        read=_read,
        rule="the same keys: a list of objects with `from` and `value`",
        example='{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}], "system": "Short."}',
        used_by="Vicuna, FastChat, LLaMA-Factory",
    ),
)
