"""Conversations of one question, what ingest makes of their answer, and hostile text to put into them."""

from typing import Any, Final

from schemas.reasons import DropReason
from tests.stages.reading import Row, kept

QA: Final = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
CALL: Final = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
FLAT: Final = {"name": "f", "arguments": {"x": 1}}
_DEEP: Final = "[" * 5_000 + "]" * 5_000
HOSTILE: Final = [
    (_DEEP, DropReason.TOO_DEEP),
    ("[" * 5_000, DropReason.TOO_DEEP),
    ('[{"a": "\\ud83d"}]', DropReason.LONE_SURROGATE),
    ('[{"a": 1, "a": 2}]', DropReason.DUPLICATE_KEY),
    ('[{"a": 1, "a"  : 2}]', DropReason.DUPLICATE_KEY),
    ('[{"a": "\\u0000"}]', DropReason.NUL_CHARACTER),
    ('[{"a": NaN}]', DropReason.BAD_JSON),
    ('[{"a": 1e400}]', DropReason.BAD_JSON),
]
"""JSON text that is refused wherever it stands, and why."""


def chat(**extra: Any) -> dict[str, Any]:
    """Return a conversation whose answer has `extra` beside its role; content is its own to give."""
    return {"messages": [QA[0], {"role": "assistant", **extra}]}


def answer(record: Any, **settings: Any) -> Row:
    """Return the last message of a record that must be kept."""
    message: Row = kept(record, **settings)["messages"][-1]
    return message
