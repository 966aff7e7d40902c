"""Lists of turns that do not say who speaks: two speakers take turns, the user first."""

from itertools import cycle
from typing import Any, Final

from stages.ingest.line import Line
from stages.ingest.messages import Message, agreed, bad_shape, refuse_media, refuse_unknown, text
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.shapes.turn_lists import TURNS, first_turn, turns_key
from stages.ingest.turns import loss_weight

_KNOWN: Final = frozenset(("message", "attrs", "weight", "loss_weight", "train"))
"""What a turn may have; `attrs` are notes on what its speaker knew, and no part of what is said."""
_LISTS: Final = (*TURNS, "data")


def _is_unlabelled(record: Any) -> bool:
    first = record[0] if isinstance(record, list) and record else first_turn(record)
    return isinstance(first, dict) and "message" in first and "role" not in first and "from" not in first


def _read_unlabelled(record: Any, _: Line) -> list[Draft]:
    key = turns_key(record) if isinstance(record, dict) else None
    listed = record if isinstance(record, list) else record[key] if key is not None else None
    if not isinstance(listed, list):
        raise bad_shape("record", "a list of turns with `message`", record)
    messages = []
    for i, (turn, speaker) in enumerate(zip(listed, cycle(("user", "assistant")), strict=False)):
        at = f"{key or ''}[{i}]"
        if not isinstance(turn, dict):
            raise bad_shape(at, "an object with message", turn)
        weight = loss_weight(turn, at)
        refuse_media(turn, at)
        refuse_unknown(turn, _KNOWN, at)
        messages.append(Message(speaker, text(turn.get("message"), f"{at}.message"), weight=weight))
    return [Draft(messages)]


def _texts_key(record: Any) -> str | None:
    lists = {key: record[key] for key in _LISTS if isinstance(record.get(key), list) and record[key]}
    return next((key for key, listed in lists.items() if type(listed[0]) is str), None)


def _is_texts(record: Any) -> bool:
    # a list without a key might as well be one of labels: it is a conversation only where the config says so
    return isinstance(record, dict) and _texts_key(record) is not None


def _read_texts(record: Any, _: Line) -> list[Draft]:
    key = _texts_key(record) if isinstance(record, dict) else None
    if key is not None:  # beside another list, of which it cannot be told whether it is said too
        agreed({name: record[name] for name in _LISTS if isinstance(record.get(name), list) and record[name]}, "record")
    listed = record if isinstance(record, list) else record[key] if key is not None else None
    if not isinstance(listed, list):
        raise bad_shape("record", f"a list of texts, or one under {', '.join(_LISTS)}", record)
    speakers = cycle(("user", "assistant"))
    return [Draft([Message(next(speakers), text(said, f"{key or ''}[{i}]")) for i, said in enumerate(listed)])]


UNLABELLED: Final = Shape(
    name="unlabelled",
    recognises=_is_unlabelled,
    read=_read_unlabelled,
    rule="a list of turns as below, the first with `message` and without a role; user and assistant take turns",
    example='{"messages": [{"message": "Who made it?"}, {"attrs": [{"name": "film"}], "message": "Ang Lee."}], "name": "film"}',
    used_by="KdConv",
)
TEXTS: Final = Shape(
    name="texts",
    recognises=_is_texts,
    read=_read_texts,
    rule="`conversations`, `messages`, `conversation` or `data`: a list of texts, by user and assistant in turn; a record that"
    " is such a list itself only where the config names the shape",
    example='{"id": "0", "data": ["How do I start?", "Write one sentence.", "And then?", "Another."]}',
    used_by="LIMA (conversations), UltraChat (data)",
)
