"""Texts as they fit into a line: the part that was compared, white space collapsed, cut at a width."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from schemas.scopes import Scope

EXCERPT: Final = 400
"""Characters of an excerpt that is handed on; more are never shown."""
HEAD: Final = 30
"""Characters shown of the beginning of texts that begin alike ..."""
TAIL: Final = 20
"""... and before the first in which they differ."""

Message = Mapping[str, Any]


def printable(text: str) -> str:
    """Return `text` with every character shown that could move the cursor, change colours or reorder the line."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def visible(text: str) -> str:
    """Return `text` on one line, with every character shown that is not seen as itself: also line ends and tabs."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def compared(messages: Sequence[Message], scope: Scope | None) -> list[tuple[str, str]]:
    """Return (role, text) of the messages that a scope compares; of all, the system's aside, for whole conversations.

    A conversation that has none of them is shown whole.
    """
    said = [(str(message["role"]), said_by(message)) for message in messages]
    if scope == "prompt":
        wanted = [pair for pair in said if pair[0] == "user"][:1]
    elif scope == "answer":
        wanted = [pair for pair in said if pair[0] == "assistant"][-1:]
    else:
        wanted = [pair for pair in said if pair[0] != "system"]
    return wanted or said


def said_by(message: Message) -> str:
    """Return all that a message says."""
    return "\n".join(message[key] for key in ("reasoning", "content", "tool_calls") if message.get(key))


def compared_line(messages: Sequence[Message], scope: Scope | None) -> str:
    """Return what a scope compares, on one line."""
    return one_line(" ".join(text for _, text in compared(messages, scope)))


def unlike_words(left: str, right: str) -> tuple[str, str]:
    """Return the beginnings of two lines; where they begin alike, a few words and then where they first differ."""
    alike = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    if alike <= HEAD + TAIL or alike == max(len(left), len(right)):
        return left[:EXCERPT], right[:EXCERPT]
    head = f"{left[:HEAD].rstrip()} … "
    first = alike - TAIL
    return head + left[first : first + EXCERPT], head + right[first : first + EXCERPT]


def words_around(text: str, record: str, limit: int = EXCERPT) -> str:
    """Return, on one line, `limit` characters of `text` from where it begins to say what `record` says."""
    line, words = one_line(text), record.split()
    folded = line.casefold()
    for i in range(min(len(words), 40)):
        piece = " ".join(words[i : i + 3]).casefold()
        at = folded.find(piece) if len(piece) > 3 or len(words) == 1 else -1
        if 0 <= at < len(line):
            return ("… " if at else "") + line[at : at + limit]
    return line[:limit]


def fitted(text: str, width: int) -> str:
    """Return `text`, made printable, in at most `width` cells; Chinese and the like take two each."""
    shown = printable(text)
    return shown if cell_len(shown) <= width else f"{set_cell_size(shown, max(width - 1, 0)).rstrip()}…"


def one_line(text: str) -> str:
    """Return `text` with every stretch of white space as one space."""
    return " ".join(text.split())
