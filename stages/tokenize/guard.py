"""The safe path: content that spells a control token is encoded as the text it is."""

import re
from bisect import bisect_left, bisect_right

from stages.tokenize.engine import Engine


def is_clean(
    engine: Engine, text: str, ids: list[int], starts: list[int], edges: list[int], is_written: list[bool]
) -> bool:
    """Return whether every control token of an encoded row lies wholly in what the template wrote."""
    ends = [*edges[1:], len(text)]
    for token, (i, first) in enumerate(zip(ids, starts, strict=True)):
        if engine.is_control[i]:
            last = starts[token + 1] if token + 1 < len(starts) else len(text)
            if any(is_written[span] for span in _touched(edges, ends, first, last)):
                return False
    return True


def encode_guarded(
    engine: Engine, text: str, edges: list[int], is_written: list[bool]
) -> tuple[list[int], list[int]] | None:
    """Return (ids, first character of each token), control tokens only where the template wrote them whole.

    The text is cut at those, as the tokenizer itself cuts it, and the stretches between are encoded without control
    tokens; so the ids are those of the plain path wherever the content spells none. `edges` are the span starts and
    `is_written` says which spans a message wrote. Returns None if a control id still comes out (a token of the base
    vocabulary that spells one whole).
    """
    ids: list[int] = []
    starts: list[int] = []
    controls = set(engine.controls.values())
    position = 0
    for first, last in [*_controls_of_template(engine, text, edges, is_written), (len(text), len(text))]:
        if first > position:
            encoding = engine.without_controls.encode(text[position:first], add_special_tokens=False)
            if not controls.isdisjoint(encoding.ids):
                return None
            ids += encoding.ids
            starts += [position + start for start, _ in encoding.offsets]
        if last > first:
            ids.append(engine.controls[text[first:last]])
            starts.append(first)
        position = last
    return ids, starts


def _controls_of_template(engine: Engine, text: str, edges: list[int], is_written: list[bool]) -> list[tuple[int, int]]:
    pattern = re.compile("|".join(re.escape(token) for token in sorted(engine.controls, key=len, reverse=True)))
    ends = [*edges[1:], len(text)]
    found = []
    position = 0
    while match := pattern.search(text, position):
        first, last = match.span()
        if any(is_written[span] for span in _touched(edges, ends, first, last)):
            position = first + 1
        else:
            found.append((first, last))
            position = last
    return found


def _touched(edges: list[int], ends: list[int], first: int, last: int) -> range:
    """Return the spans that share a character with [first, last)."""
    return range(bisect_right(edges, first) - 1, bisect_left(ends, max(last, first + 1)) + 1)
