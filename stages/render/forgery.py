"""Control tokens that a template makes of a conversation's own words, by writing them anew instead of passing them on."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from stages.render.inputs import Message
from stages.render.traced import Span

Write = Callable[[Sequence[Message], str | None], tuple[str, Sequence[Span]]]
"""Renders messages and tools; returns the text and who wrote it."""


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
    """
    if not tokens or not _spells(messages, tools, _pattern(tuple(token.lower() for token in tokens))):
        return None
    harmless, rest = _defused(messages, tools, _pattern(tokens, re.IGNORECASE))
    own = _of_template(text, written, tokens)
    expected = _of_template(*write(harmless, rest), tokens)
    return next(iter(own - expected), None)


@lru_cache(maxsize=32)
def _pattern(tokens: tuple[str, ...], flags: int = 0) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))), flags)


def _spells(messages: Sequence[Message], tools: str | None, pattern: re.Pattern[str]) -> bool:
    # Lower case and a plain pattern: one that ignores case is searched ten times slower.
    plain = (field for message in messages for field in (message.content, message.reasoning, message.name) if field)
    if any(pattern.search(text.lower()) for text in plain):
        return True
    packed = (tools, *(message.tool_calls for message in messages))
    return any(pattern.search(json.dumps(json.loads(text), ensure_ascii=False).lower()) for text in packed if text)


def _defused(
    messages: Sequence[Message], tools: str | None, pattern: re.Pattern[str]
) -> tuple[list[Message], str | None]:
    def plain(text: str | None) -> str | None:
        return text and pattern.sub(lambda match: "x" * len(match.group()), text)

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
