"""Records of any other shape as one text: enough to be compared with, though nothing can be learned from it."""

from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import BOM, LineError
from stages.ingest.messages import Conversation, Message

_NAMES_NEIGHBOUR: Final = {"role": "content", "from": "value", "type": "text"}
"""Keys that say what their neighbour is, and are no part of what is said."""


def is_plain(source: str) -> bool:
    """Tell whether the lines of a file are text as it stands, not JSON."""
    name = source.partition("?")[0] if "://" in source else source
    return name.removesuffix(".gz").removesuffix(".zst").endswith(".txt")


def read_plain(raw: bytes) -> Conversation:
    """Return a line of text as one message. Raises LineError for bytes that are no UTF-8, and for NUL characters."""
    try:
        text = raw.removeprefix(BOM).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise LineError(DropReason.BAD_UTF8, f"byte {error.start}: {error.reason}") from None
    if "\0" in text:
        raise LineError(DropReason.NUL_CHARACTER, "the line holds U+0000; remove it at the source")
    return Conversation([Message("user", text)])


def strings_of(value: Any) -> Conversation | None:
    """Return all strings in a JSON value, in their order and a line each, as one message; None if it has none.

    Keys, numbers and the names of roles are no part of it.
    """
    found: list[str] = []
    pending = [value]  # a stack of its own: at the greatest depth, calls within calls would run out of Python's
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            pending.extend(reversed(value))
        elif isinstance(value, dict):
            said = [item for key, item in value.items() if _NAMES_NEIGHBOUR.get(key) not in value]
            pending.extend(reversed(said))
    text = "\n".join(part for part in found if part.strip())
    return Conversation([Message("user", text)]) if text else None
