"""MOSS: a turn has parts, each between its own marker and its own end."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from stages.ingest.decode import LineError, decode_text
from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape, optional_text, refuse_unknown, text
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.turns import loss_weight

BLANKS: Final = " \t\r\n"
"""What may stand between a marker and what is said, and is no part of it."""
ENDS: Final = {
    "Human": "<eoh>",
    "Inner Thoughts": "<eot>",
    "Commands": "<eoc>",
    "Results": "<eor>",
    "MOSS": "<eom>",
}
_PARTS: Final = {
    "Human": "Human",
    "Inner Thoughts": "Inner Thoughts",
    "Commands": "Commands",
    "Tool Responses": "Results",
    "MOSS": "MOSS",
}
"""Keys of a turn, in the order in which they are said, and the names in their markers."""
_WEIGHTS: Final = ("weight", "loss_weight", "train")
_ABSENT: Final = ("", "None", "None.")
"""What MOSS writes where there are no thoughts or commands."""
_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_COMMAND: Final = re.compile(rf"(\w+)\(({_STRING})\)[,\s]*")
_API: Final = re.compile(r"\bAPI: (\w+)\((\w+)\)")
"""How the instruction declares a tool, e.g. "Calculator: enabled. API: Calculate(expression)"."""


def said(sections: Iterable[tuple[str, str, float | None]], instruction: str | None, line: Line) -> Iterator[Message]:
    """Yield the messages of (name, text, loss weight) sections, in order; names as in ENDS.

    Thoughts become the reasoning of what follows them: the commands, or the answer. Raises LineError for thoughts after
    which nothing is said.
    """
    api = dict(_API.findall(instruction or ""))
    thoughts: str | None = None
    is_called = False
    for name, body, weight in sections:
        if name == "Inner Thoughts":
            thoughts = None if body in _ABSENT else body
        elif name == "Commands":
            if is_called := body not in _ABSENT:
                yield _command(body, thoughts, weight, api, line)
                thoughts = None
        elif name == "Results":
            if is_called or body not in _ABSENT:
                yield Message("tool", body, weight=weight)
        else:
            if name == "Human" and thoughts:
                break
            yield Message("user" if name == "Human" else "assistant", body, thoughts, weight=weight)
            thoughts = None
    if thoughts:
        raise bad_shape("Inner Thoughts", "commands or an answer after them", thoughts)


def _command(body: str, thoughts: str | None, weight: float | None, api: dict[str, str], line: Line) -> Message:
    """Return calls where each command is a declared tool with the one text it takes, else the commands as they are written."""
    calls: list[str] = []
    end = 0
    while (found := _COMMAND.match(body, end)) and _is_call(found[1], found[2], api, line):
        calls.append(
            f'{{"type": "function", "function": {{"name": "{found[1]}", "arguments": {{"{api[found[1]]}": {found[2]}}}}}}}'
        )
        end = found.end()
    if end < len(body):
        return Message("assistant", body, thoughts, weight=weight)
    return Message("assistant", None, thoughts, f"[{', '.join(calls)}]", weight=weight)


def _is_call(name: str, argument: str, api: dict[str, str], line: Line) -> bool:
    try:
        decode_text(argument, name, max_depth=line.max_depth)
    except LineError:  # escapes or line breaks that no JSON text may hold
        return False
    return name in api


def _is_moss(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("chat"), dict) and "turn_1" in record["chat"]


def _read(record: Any, line: Line) -> list[Draft]:
    if not _is_moss(record):
        raise bad_shape("record", "a key chat with turn_1, turn_2, ...", record)
    chat = record["chat"]
    if list(chat) != [f"turn_{i}" for i in range(1, len(chat) + 1)]:
        raise bad_shape("chat", "turn_1, turn_2, ... in this order", list(chat)[:12])
    instruction = optional_text(record, "meta_instruction")
    sections = (section for name, turn in chat.items() for section in _sections(turn, f"chat.{name}"))
    system = [Message("system", instruction)] if instruction else []
    return [Draft([*system, *said(sections, instruction, line)])]


def _sections(turn: Any, at: str) -> Iterator[tuple[str, str, float | None]]:
    if not isinstance(turn, dict):
        raise bad_shape(at, f"an object with {', '.join(_PARTS)}", turn)
    refuse_unknown(turn, frozenset((*_PARTS, *_WEIGHTS)), at)
    weight = loss_weight(turn, at)
    for key, name in _PARTS.items():
        if turn.get(key) is not None:
            yield name, _between(text(turn[key], f"{at}.{key}"), name, f"{at}.{key}"), weight


def _between(value: str, name: str, at: str) -> str:
    """Return what stands between the marker of `name` and its end; text that has neither is taken as it is."""
    body = value.strip(BLANKS)
    marker, end = f"<|{name}|>:", ENDS[name]
    if body.startswith(marker) and body.endswith(end):
        return body[len(marker) : -len(end)].strip(BLANKS)
    if body.startswith(marker) or body.endswith(end):
        raise bad_shape(at, f"{marker} before it and {end} after it, or neither", value)
    return body


MOSS: Final = Shape(
    name="moss",
    recognises=_is_moss,
    read=_read,
    rule="`chat`: an object with `turn_1`, `turn_2`, ...",
    example='{"meta_instruction": "- Calculator: enabled. API: Calculate(expression)\\n", "chat": {"turn_1": {"Human": '
    '"<|Human|>: 6 * 7?<eoh>\\n", "Inner Thoughts": "<|Inner Thoughts|>: A product.<eot>\\n", "Commands": "<|Commands|>: '
    'Calculate(\\"6 * 7\\")<eoc>\\n", "Tool Responses": "<|Results|>:\\nCalculate(\\"6 * 7\\") => 42\\n<eor>\\n", "MOSS": '
    '"<|MOSS|>: 42.<eom>\\n"}}}',
    used_by="MOSS",
)
