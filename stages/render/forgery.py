"""Control tokens that a template makes of a conversation's own words, by writing them anew instead of passing them on."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from stages.render.inputs import Message
from stages.render.renderer import FAILURES
from stages.render.traced import Span

Write = Callable[[Sequence[Message], str | None], tuple[str, Sequence[Span]]]
"""Renders messages and tools; returns the text and who wrote it."""

_HARMLESS: Final = "\ufdd0"
"""A character that no template asks for, for Unicode has none there."""


def forged(
    messages: Sequence[Message],
    tools: str | None,
    text: str,
    written: Sequence[Span],
    tokens: tuple[str, ...],
    write: Write,
) -> str | None:
    """Return a control token that stands in the template's own text only because the conversation spells it, or None.

    Where the conversation spells one, in any case, it is rendered once more with other letters in its place: what is then
    missing from the template's text was the conversation's. So a user's `</S>` that a template puts in lower case is found.
    Where the template refuses those other letters, every token in its text is taken for the conversation's.
    """
    if not tokens or not _spells(messages, tools, tokens):
        return None
    harmless, rest = _defused(messages, tools, tokens)
    own = _of_template(text, written, tokens)
    try:
        expected = _of_template(*write(harmless, rest), tokens)
    except FAILURES:
        expected = Counter()
    return next(iter(own - expected), None)


@lru_cache(maxsize=32)
def _pattern(tokens: tuple[str, ...], flags: int = 0) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))), flags)


def spelled(texts: Iterable[str], tokens: tuple[str, ...]) -> bool:
    """Tell whether one of `texts` spells a control token, in any case."""
    if not tokens:
        return False
    # Folded text and a plain pattern: one that ignores case is searched ten times slower.
    pattern = _folded_pattern(tokens)
    return any(pattern.search(_folded(text)) for text in texts)


@lru_cache(maxsize=32)
def _folded_pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return _pattern(tuple(map(_folded, tokens)))


def _folded(text: str) -> str:
    """Return what texts have in common that become equal by `upper`, `lower` or `title`: long s and s, dotless i and i."""
    return text.upper().casefold()


def _spells(messages: Sequence[Message], tools: str | None, tokens: tuple[str, ...]) -> bool:
    plain = (field for message in messages for field in (message.content, message.reasoning, message.name) if field)
    packed = (text for text in (tools, *(message.tool_calls for message in messages)) if text)
    return spelled(plain, tokens) or spelled(
        (json.dumps(json.loads(text), ensure_ascii=False) for text in packed), tokens
    )


def _defused(
    messages: Sequence[Message], tools: str | None, tokens: tuple[str, ...]
) -> tuple[list[Message], str | None]:
    pattern = _pattern(tokens, re.IGNORECASE)

    def plain(text: str | None) -> str | None:
        if not text or not spelled((text,), tokens):
            return text
        defused = pattern.sub(lambda match: _HARMLESS * len(match.group()), text)
        return _HARMLESS * len(text) if spelled((defused,), tokens) else defused

    def deep(value: Any) -> Any:
        if isinstance(value, str):
            return plain(value)
        if isinstance(value, list):
            return [deep(item) for item in value]
        return {plain(key): deep(item) for key, item in value.items()} if isinstance(value, dict) else value

    def packed(text: str | None) -> str | None:
        return text and json.dumps(deep(json.loads(text)), ensure_ascii=False)

    harmless = [
        message._replace(
            content=plain(message.content),
            reasoning=plain(message.reasoning),
            name=plain(message.name),
            tool_calls=packed(message.tool_calls),
        )
        for message in messages
    ]
    return harmless, packed(tools)


def _of_template(text: str, written: Sequence[Span], tokens: tuple[str, ...]) -> Counter[str]:
    """Count the control tokens that lie in the template's own text."""
    pieces = []
    at = 0
    for start, end, _ in written:
        pieces.append(text[at:start])
        at = end
    pieces.append(text[at:])
    return Counter(_pattern(tokens).findall("\0".join(pieces)))
