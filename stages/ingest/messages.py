"""The canonical message, and what the readers of records have in common."""

from collections.abc import Mapping
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
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "counselor": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "tool_response": "tool",
}
"""Names that published data sets give to the four roles, in lower case."""

HARMLESS: Final = frozenset(
    (
        "annotation",
        "annotations",
        "cache_control",
        "category",
        "citations",
        "country",
        "create_time",
        "created_at",
        "date",
        "emotion",
        "finish_reason",
        "hash",
        "hashed_ip",
        "header",
        "id",
        "index",
        "intent",
        "label",
        "labels",
        "lang",
        "language",
        "logprobs",
        "message_id",
        "meta",
        "metadata",
        "model",
        "parent_id",
        "rating",
        "score",
        "scores",
        "signature",
        "source",
        "state",
        "status",
        "stop_reason",
        "tags",
        "time",
        "timestamp",
        "timestamps",
        "topic",
        "turn",
        "turn_id",
        "turn_identifier",
        "type",
        "update_time",
        "updated_at",
        "usage",
        "uuid",
    )
)
"""Keys of a message that tell about it, not what it says: they are left out."""


MEDIA: Final = ("image", "images", "audio", "audios", "video", "videos")
"""Keys, of a message or a record, of what is no text."""


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
    score: float | None = None
    created: int | None = None
    """Microseconds since 1970, UTC."""
    shape: str = "messages"
    record_id: str | None = None
    rejected: str | None = None
    """The answer that was not chosen, as JSON text."""
    repairs: tuple[str, ...] = ()
    """What a policy changed, e.g. "trailing:1"."""


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


def role(value: Any, where: str, known: Mapping[str, str] = ROLES) -> str:
    """Return the canonical role for the name `value`, by the table `known`; upper and lower case are the same."""
    if type(value) is not str:
        raise bad_shape(where, "the name of a role", value)
    found = known.get(value) or known.get(value.strip().lower())
    if found is None:
        detail = f"{where}: {_short(value)}; known: {', '.join(known)} ([ingest.mapping] roles adds others)"
        raise LineError(DropReason.UNKNOWN_ROLE, detail)
    return found


def refuse_media(record: dict[str, Any], at: str) -> None:
    """Raise LineError if `record` has an image, audio or video beside its text: the text alone would not say the same."""
    for key in MEDIA:
        if record.get(key):
            place = f"{at}.{key}" if at else key
            raise LineError(DropReason.UNSUPPORTED_PART, f"{place}: {_short(record[key])}; only text can be trained on")


def agreed(options: dict[str, Any], at: str) -> str | None:
    """Return the key of what `options` say, or None when they say nothing; null and "" say nothing beside a value.

    Raises LineError when two keys say different things: to prefer one would lose the other.
    """
    said = {key: value for key, value in options.items() if value is not None}
    if len(said) < 2:
        return next(iter(said), None)
    full = {key: value for key, value in said.items() if value != ""} or said
    first = next(iter(full))
    if any(value != full[first] for value in full.values()):
        keys = ", ".join(full)
        raise LineError(DropReason.BAD_SHAPE, f"{at}: {keys} say different things; keep one of them")
    return first


def refuse_unknown(record: dict[str, Any], known: frozenset[str], at: str) -> None:
    """Raise LineError if `record` has keys that may hold part of what is said, and that nothing here reads.

    Such a key holds text, a list or an object that is not empty, and is neither `known` nor HARMLESS.
    """
    unread = [
        _short(key)
        for key in sorted(record.keys() - known - HARMLESS)
        if record[key] and isinstance(record[key], str | list | dict)
    ]
    if unread:
        raise LineError(
            DropReason.BAD_SHAPE,
            f"{at}: {', '.join(unread)} is not read, and may hold part of what is said; remove or rename it"
            " (docs/formats.md lists what is read)",
        )


def _short(value: Any) -> str:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or very deep nesting
        return f"a {type(value).__name__} too large to show"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
