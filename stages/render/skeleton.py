"""What a template makes of all conversations of one form: literals, and places for their texts, in classes."""

from collections.abc import Sequence
from typing import NamedTuple

from stages.render.notes import behind_stops, unwritten
from stages.render.regions import Boundaries, overruns, partition
from stages.render.symbol import ObservedError, Slot, Symbol
from stages.render.traced import CONTENT, REASONING, TOOL_RESULT, Span, origin


class Part(NamedTuple):
    """A span to be: pieces that have one author."""

    class_: int
    """Index into stages.render.regions.CLASSES."""
    message: int
    pieces: tuple[str | Slot, ...]


class Skeleton(NamedTuple):
    """A rendered conversation less its texts. Each slot's text has at least one character."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    is_asked: bool = False
    """Whether something that was found in a text led here, so that a text may have asked for what the template writes."""


def slots_of(rendered: str | Symbol) -> tuple[Slot, ...]:
    """Return the slots of a rendered text, in order."""
    return tuple(part for part in rendered.parts if type(part) is Slot) if type(rendered) is Symbol else ()


def skeleton(rendered: str | Symbol, roles: Sequence[str], reasons: Sequence[bool], boundaries: Boundaries) -> Skeleton:
    """Return the skeleton of a rendered conversation; `reasons` says which of its messages have reasoning.

    Each slot counts as one character, so that no text can be mistaken for the template's. Raises ObservedError where two
    slots may or may not hold the same text, and UnicodeEncodeError for literals that are no text.
    """
    seen = {(slot.message, slot.view.field) for slot in slots_of(rendered)}
    if len(seen) < len(set(slots_of(rendered))):
        raise ObservedError  # whether one repeats the other decides about spans
    pieces: tuple[str | Slot, ...] = (rendered,) if isinstance(rendered, str) else rendered.parts
    written: list[Span] = []
    at = 0
    for piece in pieces:
        if type(piece) is Slot:
            written.append((at, at + 1, _author(piece, roles)))
        at += len(piece) if type(piece) is str else 1
    text = "".join(piece if type(piece) is str else "\0" for piece in pieces)
    text.encode()
    parts = [
        Part(class_, message, tuple(_between(pieces, start, end)))
        for start, end, class_, message in partition(text, written, roles, boundaries)
    ]
    fields = [(message, "reasoning") for message, has in enumerate(reasons) if has]
    fields += [(message, "content") for message in range(len(roles))]
    notes = unwritten(field for field in sorted(fields) if field not in seen)
    return Skeleton(tuple(parts), (*notes, *behind_stops(overruns(text, written, roles, boundaries))))


def _author(slot: Slot, roles: Sequence[str]) -> int:
    if slot.view.field == "reasoning":
        return origin(slot.message, REASONING)
    return origin(slot.message, TOOL_RESULT if roles[slot.message] == "tool" else CONTENT)


def _between(pieces: Sequence[str | Slot], start: int, end: int) -> list[str | Slot]:
    """Return the pieces from character `start` to `end`, where a slot is one character."""
    found: list[str | Slot] = []
    at = 0
    for piece in pieces:
        length = len(piece) if type(piece) is str else 1
        if at < end and start < at + length:
            found.append(piece[max(start - at, 0) : end - at] if type(piece) is str else piece)
        at += length
    return found
