"""From traced text to a partition: whose each character is, and which of them an assistant must produce."""

from typing import Final, NamedTuple

import msgspec

from schemas.spans import SpanClass
from stages.render.traced import Span

CLASSES: Final = (
    str(SpanClass.CONTENT),
    str(SpanClass.REASONING),
    str(SpanClass.TOOL_CALL),
    str(SpanClass.TOOL_RESULT),
)
SCAFFOLD: Final = str(SpanClass.SCAFFOLD)
STOP: Final = str(SpanClass.STOP)
TEMPLATE: Final = str(SpanClass.TEMPLATE)


class Boundaries(msgspec.Struct, frozen=True, kw_only=True):
    """What surrounds an assistant's turn in one template."""

    header: str = ""
    """End of the generation prompt, as it also stands in a whole conversation."""
    after_user: str = ""
    """From the end of a user's text to the end of the generation prompt."""
    after_tool: str = ""
    """From the end of a tool's text to the end of the generation prompt."""
    lead: str = ""
    """From the end of the generation prompt to the assistant's first character."""
    stops: tuple[str, ...] = ()
    """Texts that end a turn."""


class Part(NamedTuple):
    """One element of the partition."""

    start: int
    end: int
    kind: str
    message: int


def partition(text: str, written: tuple[Span, ...], roles: list[str], boundaries: Boundaries) -> list[Part]:
    """Cut `text` into adjacent parts that cover it; neighbours differ in class or message.

    The turn of an assistant reaches from the end of the generation prompt to the end of its stop: the template's text
    in it is scaffold, or stop. A message that wrote no character has no turn. `written` is ascending and disjoint.
    """
    parts: list[Part] = []
    at = index = 0
    previous = ""
    while index < len(written):
        message = written[index][2] >> 2
        last = index
        while last + 1 < len(written) and written[last + 1][2] >> 2 == message:
            last += 1
        first = written[index][0]
        is_turn = roles[message] == "assistant"
        if is_turn:
            start = at + _turn_start(text[at:first], previous, boundaries)
            _add(parts, at, start, TEMPLATE, -1)
            at = start
        between, who = (SCAFFOLD, message) if is_turn else (TEMPLATE, -1)
        for begin, end, source in written[index : last + 1]:
            _add(parts, at, begin, between, who)
            _add(parts, begin, end, CLASSES[source & 3], message)
            at = end
        index = last + 1
        if is_turn:
            at = _close_turn(parts, text, at, written[index][0] if index < len(written) else len(text), boundaries)
        previous = roles[message]
    _add(parts, at, len(text), TEMPLATE, -1)
    return parts


def _add(parts: list[Part], start: int, end: int, kind: str, message: int) -> None:
    if start == end:
        return
    if parts and parts[-1].kind == kind and parts[-1].message == message:
        parts[-1] = Part(parts[-1].start, end, kind, message)
    else:
        parts.append(Part(start, end, kind, message))


def _turn_start(literal: str, previous: str, boundaries: Boundaries) -> int:
    """Return where in the template's text before an assistant's first character its turn begins."""
    header = boundaries.header
    if header and (found := literal.rfind(header)) >= 0:
        return found + len(header)
    tail = {"user": boundaries.after_user, "tool": boundaries.after_tool}.get(previous)
    if tail and literal.startswith(tail):
        return len(tail)
    return len(literal) - len(boundaries.lead) if literal.endswith(boundaries.lead) else len(literal)


def _close_turn(parts: list[Part], text: str, at: int, limit: int, boundaries: Boundaries) -> int:
    """Add scaffold and stop that follow a turn's last character; return where they end."""
    message = parts[-1].message
    header = boundaries.header
    if header and (found := text.find(header, at, limit)) >= 0:
        limit = found  # the next turn's: a stop behind it is not ours
    best = min(
        ((found, -len(stop)) for stop in boundaries.stops if (found := text.find(stop, at, limit)) >= 0), default=None
    )
    if best is None:
        return at
    found, length = best[0], -best[1]
    _add(parts, at, found, SCAFFOLD, message)
    _add(parts, found, found + length, STOP, message)
    return found + length
