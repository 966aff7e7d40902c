"""From traced text to a partition: whose each character is, and which of them an assistant must produce."""

from collections.abc import Sequence
from typing import Final

import msgspec

from schemas.spans import SpanClass
from stages.render.traced import NO_MESSAGE, Span
from stages.render.traced import TOOLS as TOOL_SCHEMAS

CLASSES: Final = tuple(map(str, SpanClass))
"""Names of the classes; the first four are the kinds of stages.render.traced."""
SCAFFOLD: Final = CLASSES.index(SpanClass.SCAFFOLD)
STOP: Final = CLASSES.index(SpanClass.STOP)
GENERATION_PROMPT: Final = CLASSES.index(SpanClass.GENERATION_PROMPT)
TOOLS: Final = CLASSES.index(SpanClass.TOOLS)
TEMPLATE: Final = CLASSES.index(SpanClass.TEMPLATE)


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


def partition(
    text: str, written: Sequence[Span], roles: Sequence[str], boundaries: Boundaries
) -> list[tuple[int, int, int, int]]:
    """Cut `text` into adjacent parts that cover it: start, end, class (index into CLASSES), message.

    Neighbours differ in class or message. The turn of an assistant reaches from the end of the generation prompt to the
    end of its stop: the template's text in it is scaffold, or stop; the prompt before it is a class of its own. A message
    that wrote no character has no turn, and what stands behind the end of a message's turn is no message's.
    `written` is ascending and disjoint.
    """
    written, _ = _to_their_stops(text, written, roles, boundaries)
    parts: list[tuple[int, int, int, int]] = []
    at = index = 0
    n_written = len(written)
    previous = ""
    while index < n_written:
        first, end, who = written[index]
        message = who >> 2
        role = roles[message] if message >= 0 else ""
        between, owner = TEMPLATE, -1
        if role == "assistant":
            asked, answered = _turn_start(text[at:first], previous, boundaries)
            parts += _given(at, at + asked, at + answered, message)
            at += answered
            between, owner = SCAFFOLD, message
        while True:  # over all that this message wrote before another one did
            if at < first:
                parts.append((at, first, between, owner))
            at = end
            index += 1
            while index < n_written and written[index][0] == end and written[index][2] == who:
                at = end = written[index][1]
                index += 1
            parts.append((first, end, TOOLS if who == TOOL_SCHEMAS else who & 3, max(message, NO_MESSAGE)))
            if index == n_written or written[index][2] >> 2 != message:
                break
            first, end, who = written[index]
        if role == "assistant":
            limit = written[index][0] if index < n_written else len(text)
            found, after = _find_stop(text, at, limit, boundaries)
            if at < found:
                parts.append((at, found, SCAFFOLD, message))
            if found < after:
                parts.append((found, after, STOP, message))
            at = after
        previous = role or previous
    if at < len(text):
        parts.append((at, len(text), TEMPLATE, -1))
    return parts


def overruns(text: str, written: Sequence[Span], roles: Sequence[str], boundaries: Boundaries) -> list[int]:
    """Return the messages of which the template writes a part for the first time behind the end of their turn."""
    return _to_their_stops(text, written, roles, boundaries)[1]


def _to_their_stops(
    text: str, written: Sequence[Span], roles: Sequence[str], boundaries: Boundaries
) -> tuple[Sequence[Span], list[int]]:
    """Return `written`, where what stands behind the end of an assistant's turn is written by no message, and `overruns`.

    Some templates put the name of the called function in front of its result: it was written before. Some end a turn and go
    on with it, as DeepSeek V3's does at a third call: no model would be asked for that. A turn does go on behind another
    generation prompt, and behind the text of another message (a tool's result that stands inside of it).
    """
    out: list[Span] = []
    known: dict[int, list[str]] = {}
    ends: dict[int, int] = {}
    overrun: list[int] = []
    previous = -1
    bare = ""
    for first, end, who in written:
        message = who >> 2
        if message >= 0 and roles[message] == "assistant":
            is_repeated = any(text[first:end] in own for own in known.get(who, ()))
            if message in ends and (is_repeated or previous == message):
                bare = bare or _bare(text, written)
                found, after = _find_stop(bare, ends[message], first, boundaries)
                has_prompt = bool(boundaries.header) and boundaries.header in bare[after:first]
                if found < after and not has_prompt:
                    out.append((first, end, NO_MESSAGE << 2 | who & 3))
                    overrun += [message] if not is_repeated and message not in overrun else []
                    continue
            ends[message] = end
            known.setdefault(who, []).append(text[first:end])
        previous = message
        out.append((first, end, who))
    return out, overrun


def _bare(text: str, written: Sequence[Span]) -> str:
    """Return `text` with a NUL for each character that is not the template's: no message can spell a stop."""
    pieces: list[str] = []
    at = 0
    for first, end, _ in written:
        pieces += (text[at:first], "\0" * (end - first))
        at = end
    return "".join((*pieces, text[at:]))


def _given(at: int, asked: int, answered: int, message: int) -> list[tuple[int, int, int, int]]:
    """Return what the template writes before a turn: all that ends what was before, and the generation prompt."""
    parts = [(at, asked, TEMPLATE, -1), (asked, answered, GENERATION_PROMPT, message)]
    return [part for part in parts if part[0] < part[1]]


def _turn_start(literal: str, previous: str, boundaries: Boundaries) -> tuple[int, int]:
    """Return where in the template's text before an assistant's first character its prompt and its turn begin."""
    header = boundaries.header
    if header and (found := literal.rfind(header)) >= 0:
        return found, found + len(header)
    tail = {"user": boundaries.after_user, "tool": boundaries.after_tool}.get(previous)
    if tail and literal.startswith(tail):
        start = len(tail)
    else:
        start = len(literal) - len(boundaries.lead) if literal.endswith(boundaries.lead) else len(literal)
    return start, start


def _find_stop(text: str, at: int, limit: int, boundaries: Boundaries) -> tuple[int, int]:
    """Return where the stop of a turn that fell silent at `at` begins and ends; twice `at` where it has none."""
    header = boundaries.header
    if header and (found := text.find(header, at, limit)) >= 0:
        limit = found  # the next turn's: a stop behind it is not ours
    best, length = limit, 0
    for stop in boundaries.stops:
        found = text.find(stop, at, limit)
        if 0 <= found < best or (found == best and len(stop) > length):
            best, length = found, len(stop)
    return (best, best + length) if length else (at, at)
