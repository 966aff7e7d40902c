"""A rendered conversation back into messages, by what its template writes around them; for text without tool calls."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final

import msgspec

from schemas.assets import Template
from stages.render.inputs import Message, Shape
from stages.render.renderer import FAILURES, Renderer, renderer
from stages.render.settings import Render

_ROLES: Final = {"s": "system", "u": "user", "a": "assistant"}
_SPELLED: Final = "u a s ua uu au aa us as su sa ss uau sua suau suaua suu uaua uauau uua uaa usua uaus"
CONVERSATIONS: Final = tuple(tuple(map(_ROLES.__getitem__, word)) for word in _SPELLED.split(" "))
"""Sequences of roles that are rendered to learn from; a template may refuse some."""
_MARK: Final = "Qv7z{}Kx3"
_EXCERPT: Final = 40


class Markers(msgspec.Struct, frozen=True):
    """What a template writes of its own around contents, in as many forms as it was seen to."""

    first: tuple[tuple[str, str], ...]
    """(role, text before the first content); the longest text first, and of equal ones the system's last."""
    between: dict[str, tuple[tuple[str, str], ...]]
    """Role to (role of the next message, text between the two contents), ordered likewise."""
    last: dict[str, tuple[str, ...]]
    """Role to what comes after the last content, the longest first."""

    def texts(self) -> frozenset[str]:
        """Return every text that tells the contents apart."""
        between = (text for pairs in self.between.values() for _, text in pairs)
        return frozenset(
            (*(text for _, text in self.first), *between, *(t for texts in self.last.values() for t in texts))
        )


def parse(text: str, template: Template) -> list[dict[str, str]]:
    """Return the messages, as {"role", "content"}, that `template` renders to just this text.

    A content ends where the first text that may follow it begins, so contents must not hold such texts; those that
    the template strips come back stripped. What a template writes without being told, like a default system text, is no
    message. Where system and user text share a turn (Gemma, Mistral), they come back as one user message. Raises
    ValueError, saying where the text does not fit.
    """
    compiled = renderer(template, Render())
    known = markers(template)
    furthest = _Furthest()
    for roles, contents in _splits(text, known, furthest):
        messages = [Message(role, content) for role, content in zip(roles, contents, strict=True)]
        if _render(compiled, messages) == text:
            return [{"role": message.role, "content": message.content or ""} for message in messages]
        furthest.reach(len(text), "the template renders what was found there otherwise")
    raise ValueError(
        f"template {template.name}: character {furthest.at}, {text[furthest.at : furthest.at + _EXCERPT]!r}: "
        f"{furthest.problem}"
    )


class _Furthest:
    """The place that the most promising attempt came to, and what it missed there."""

    def __init__(self) -> None:
        self.at, self.problem = 0, "the text begins like no conversation of this template"

    def reach(self, at: int, problem: str) -> None:
        if at >= self.at:
            self.at, self.problem = at, problem


def _splits(text: str, known: Markers, furthest: _Furthest) -> Iterator[tuple[list[str], list[str]]]:
    """Yield roles and contents into which the markers cut `text`, one for each way to begin."""
    for role, opening in known.first:
        if text.startswith(opening):
            yield from _split(text, len(opening), role, known, furthest)


def _split(text: str, at: int, role: str, known: Markers, furthest: _Furthest) -> Iterator[tuple[list[str], list[str]]]:
    roles, contents = [role], []
    while True:
        found = [
            (place, -len(marker), order, following)
            for order, (following, marker) in enumerate(known.between.get(role, ()))
            if (place := text.find(marker, at)) >= 0
        ]
        if not found:
            break
        place, length, _, following = min(found)
        contents.append(text[at:place])
        if text[place:] in known.last.get(role, ()):  # it may also be the end: a question that nobody answered yet
            yield roles, contents
        role, at = following, place - length
        roles.append(role)
    for closing in known.last.get(role, ()):
        if text.endswith(closing) and len(text) - len(closing) >= at:
            yield roles, [*contents, text[at : len(text) - len(closing)]]
    expected = " or ".join(repr(closing) for closing in known.last.get(role, ()))
    furthest.reach(
        at, f"this {role} message has no end: expected {expected or 'another message'} at the end of the text"
    )


@lru_cache(maxsize=64)
def _learned_from(source: str, variables: tuple[tuple[str, str], ...], name: str) -> Markers:
    compiled = renderer(Template(name=name, source=source, variables=dict(variables)), Render())
    first: set[tuple[str, str]] = set()
    between: dict[str, set[tuple[str, str]]] = {}
    last: dict[str, set[str]] = {}
    for roles in CONVERSATIONS:
        marks = [_MARK.format(i) for i in range(len(roles))]
        text = _render(compiled, [Message(role, mark) for role, mark in zip(roles, marks, strict=True)])
        places = [text.find(mark) for mark in marks] if text else [-1]
        if min(places) < 0 or places != sorted(places):
            continue
        ends = [place + len(mark) for place, mark in zip(places, marks, strict=True)]
        first.add((roles[0], text[: places[0]]))
        for (role, _, end), (following, place, _) in pairwise(zip(roles, places, ends, strict=True)):
            if end < place:  # where a template writes nothing between two contents, nothing tells them apart
                between.setdefault(role, set()).add((following, text[end:place]))
        last.setdefault(roles[-1], set()).add(text[ends[-1] :])
    if not first:
        raise ValueError(f"template {name}: no content can be found in what it writes, so nothing can be parsed back")
    return Markers(
        tuple(sorted(first, key=_order)),
        {role: tuple(sorted(pairs, key=_order)) for role, pairs in between.items()},
        {role: tuple(sorted(texts, key=len, reverse=True)) for role, texts in last.items()},
    )


def markers(template: Template) -> Markers:
    """Return what `template` writes around contents. Raises ValueError for one that writes none of them unchanged."""
    return _learned_from(template.source, tuple(sorted(template.variables.items())), template.name)


def _order(marker: tuple[str, str]) -> tuple[int, bool, str, str]:
    role, text = marker
    return -len(text), role == "system", role, text


def _render(compiled: Renderer, messages: list[Message]) -> str:
    """Return what the template writes of `messages`, nothing where it refuses them."""
    n_chars = sum(len(message.content or "") for message in messages)
    try:
        return compiled.render(messages, Render(), n_chars=n_chars, shape=Shape())[0]
    except FAILURES:
        return ""
