"""A canonical conversation in the form that Hugging Face gives to chat templates."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from stages.render.containers import trace
from stages.render.symbol import Inquiry, Slot, Symbol, View
from stages.render.traced import CONTENT, REASONING, TOOL_CALL, TOOL_RESULT, TOOLS, origin, whole

MANY_TOOLS: Final = 4_000
"""Characters of tool schemas of which few are kept parsed."""
FIELDS: Final = ("role", "content", "reasoning", "tool_calls", "tool_call_id", "name")


class Message(NamedTuple):
    """One message: the fields of schemas.fields.MESSAGE that a template may see."""

    role: str
    content: str | None = None
    reasoning: str | None = None
    tool_calls: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Shape(NamedTuple):
    """What a template expects where Hugging Face leaves the form open."""

    arguments: Literal["text", "object"] = "text"
    """A call's arguments: JSON text, as OpenAI has them, or the object itself."""
    absent: str | None = ""
    """Content of a message that has none."""


def build(messages: Sequence[Message], shape: Shape, *, tracing: bool) -> list[dict[str, Any]]:
    """Return the dictionaries that the template sees, holding only the keys that are there.

    With `tracing`, every string knows its message and field; without, all is plain. Raises ValueError for tool calls
    that are no JSON list.
    """
    return [_message(index, message, shape, tracing) for index, message in enumerate(messages)]


def _message(index: int, message: Message, shape: Shape, tracing: bool) -> dict[str, Any]:
    role, content, reasoning, tool_calls, tool_call_id, name = message
    mark: Callable[[str, int], str] = whole if tracing else _plain
    who = origin(index, TOOL_RESULT if role == "tool" else CONTENT)
    out: dict[str, Any] = {}
    if reasoning is not None:
        thinking = mark(reasoning, origin(index, REASONING))
        out["thinking"] = thinking  # transformers gives reasoning under this name too
    out["role"] = role
    out["content"] = shape.absent if content is None else mark(content, who)
    if reasoning is not None:
        out["reasoning_content"] = thinking
    if tool_calls is not None and (calls := _calls(index, tool_calls, shape)):
        out["tool_calls"] = trace(calls, origin(index, TOOL_CALL)) if tracing else calls
    if tool_call_id is not None:
        out["tool_call_id"] = mark(tool_call_id, who)
    if name is not None:
        out["name"] = mark(name, who)
    return out


def symbols(roles: Sequence[str], reasons: Sequence[bool], inquiry: Inquiry) -> list[dict[str, Any]]:
    """Return messages of plain text, as `build` makes them, with symbols in place of their texts."""
    out = []
    for index, (role, has_reasoning) in enumerate(zip(roles, reasons, strict=True)):
        message: dict[str, Any] = {}
        if has_reasoning:
            thinking = Symbol((Slot(index, View("reasoning")),), inquiry)
            message["thinking"] = thinking
        message["role"] = role
        message["content"] = Symbol((Slot(index, View("content")),), inquiry)
        if has_reasoning:
            message["reasoning_content"] = thinking
        out.append(message)
    return out


def _plain(text: str, _: int) -> str:
    return text


def _calls(index: int, text: str, shape: Shape) -> list[Any]:
    """Parse tool calls and bring their arguments into the form the template expects."""
    try:
        calls = json.loads(text)
    except ValueError as error:
        raise ValueError(f"message {index}: tool_calls is not JSON: {error}") from error
    if not isinstance(calls, list):
        raise ValueError(f"message {index}: tool_calls is a JSON {type(calls).__name__}, expected a list")
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else {}
        if isinstance(function, dict) and "arguments" in function:
            function["arguments"] = _arguments(function["arguments"], shape)
    return calls


def _arguments(arguments: Any, shape: Shape) -> Any:
    if shape.arguments == "text":
        return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return arguments  # a model's unfinished JSON: it stays the text it is
    return parsed if isinstance(parsed, dict) else arguments


def tools_of(text: str, *, tracing: bool) -> Any:
    """Parse tool schemas; the result may be shared, and a sandboxed template cannot change it."""
    return (_few_tools if len(text) < MANY_TOOLS else _many_tools)(text, tracing)


def _parsed(text: str, tracing: bool) -> Any:
    return trace(json.loads(text), TOOLS) if tracing else json.loads(text)


# Parsed, a text takes some thirty times its size.
_few_tools, _many_tools = lru_cache(maxsize=256)(_parsed), lru_cache(maxsize=4)(_parsed)
