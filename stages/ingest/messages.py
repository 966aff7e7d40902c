"""The canonical message, and how one is made from what records hold."""

import json
from typing import Any, Final, NamedTuple

from schemas.reasons import DropReason
from stages.ingest.decode import LineError

ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "client": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "counselor": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""Names that published data sets give to the four roles, in lower case."""


class Message(NamedTuple):
    """One message, fields as in schemas.fields.MESSAGE."""

    role: str
    content: str | None
    reasoning: str | None = None
    tool_calls: str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    weight: float | None = None


class Conversation(NamedTuple):
    """What an adapter makes of a record."""

    messages: list[Message]
    tools: str | None = None
    tags: tuple[str, ...] = ()


def bad_shape(where: str, expected: str, got: Any) -> LineError:
    """Return the error for a field of the wrong type."""
    return LineError(DropReason.BAD_SHAPE, f"{where}: expected {expected}, got {_short(got)}")


def text(value: Any, where: str) -> str:
    """Return `value` if it is text. Raises LineError otherwise: null never becomes the text "None"."""
    if type(value) is not str:
        raise bad_shape(where, "text", value)
    return value


def optional_text(record: dict[str, Any], key: str, where: str = "") -> str | None:
    """Return the text under `key`, or None when it is absent or null."""
    value = record.get(key)
    return None if value is None else text(value, f"{where}{key}")


def role(value: Any, where: str) -> str:
    """Return the canonical role for the name `value`."""
    if type(value) is not str:
        raise bad_shape(where, "the name of a role", value)
    known = ROLES.get(value) or ROLES.get(value.strip().lower())
    if known is None:
        raise LineError(DropReason.UNKNOWN_ROLE, f"{where}: {_short(value)}; known: {', '.join(ROLES)}")
    return known


def json_text(value: Any, where: str) -> str | None:
    """Return `value` as JSON text; text that is JSON already stays as it is, byte for byte."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            raise bad_shape(where, "JSON", value) from None
        return value if parsed else None
    if not isinstance(value, list | dict):
        raise bad_shape(where, "JSON", value)
    return json.dumps(value, ensure_ascii=False) if value else None


def parts_text(parts: list[Any], where: str) -> tuple[str | None, str | None, list[Any]]:
    """Return (content, reasoning, tool calls) of a content that is a list of typed parts.

    Raises LineError for a part that is not text, reasoning or a tool call (an image, say): leaving it out would change
    what the message says.
    """
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[Any] = []
    for i, part in enumerate(parts):
        at = f"{where}[{i}]"
        if isinstance(part, str):
            content.append(part)
            continue
        if not isinstance(part, dict):
            raise bad_shape(at, "a part", part)
        kind = part.get("type")
        value = part.get("value", part.get("text", part.get("content")))
        if kind == "text":
            content.append(text(value, f"{at}.text"))
        elif kind in ("reasoning", "thinking"):
            reasoning.append(text(value if value is not None else part.get(kind), f"{at}.{kind}"))
        elif kind == "tool_call":
            calls.append(tool_call(value, at))
        else:
            raise bad_shape(at, "a part of type text, reasoning or tool_call", kind)
    return ("".join(content) if content else None, "".join(reasoning) if reasoning else None, calls)


def tool_call(value: Any, where: str) -> dict[str, Any]:
    """Return one call in OpenAI's form from {"name", "arguments"}, as an object or as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise bad_shape(where, "a call as JSON", value) from None
    if not isinstance(value, dict):
        raise bad_shape(where, "a call with a name", value)
    function = value.get("function", value)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad_shape(where, "a call with a name", value)
    if "function" in value:
        return value
    return {"type": "function", "function": {"name": function["name"], "arguments": function.get("arguments", {})}}


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
