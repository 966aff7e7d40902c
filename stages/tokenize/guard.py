"""The safe path: content that spells a control token is encoded as the text it is."""

import functools
import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any, Final

from stages.tokenize.engine import Engine, load

MARKS: Final = tuple(map(chr, range(0x1F030, 0x1F094)))
"""Domino tiles: no letter, no space, the same under every normaliser; one that the text lacks marks an alias."""
_LETTERS: Final = ("\ua4d0", "\ua4f2")
"""Of the Lisu script, without case: an alias begins or ends with one where its token does with a letter."""

Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class Guard:
    """A tokenizer that knows each control token under an alias alone, with all its flags, and no text spells an alias.

    So text that spells a control token is text to it, and it cuts at an alias as the plain one cuts at the token. Its
    ids are its own: `ids` holds the plain ones where they differ, and `forbidden` what content must not become: a token
    of the base vocabulary that spells a control token whole.
    """

    tokenizer: Any
    aliases: dict[str, str]
    alias_ids: frozenset[int]
    ids: dict[int, int]
    forbidden: frozenset[int]


@dataclass
class Guards:
    """The guards of one engine, made when first needed."""

    engine: Engine
    made: dict[str, Guard | None] = field(default_factory=dict)

    def for_text(self, text: str) -> Guard | None:
        """Return a guard none of whose aliases `text` can spell; which one it is does not change the ids."""
        mark = next((mark for mark in MARKS if mark not in text), None)
        if mark is None:
            return None
        if mark not in self.made:
            while len(self.made) > 1:  # each holds a whole vocabulary
                del self.made[next(iter(self.made))]
            self.made[mark] = _guard(self.engine, mark)
        return self.made[mark]

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """What the plain tokenizer would cut at: control tokens, and added tokens that one of them is part of."""
        controls = self.engine.controls
        others = (text for text in self.engine.definition.added_tokens if text not in controls)
        longer = [text for text in others if any(control in text for control in controls)]
        return re.compile("|".join(map(re.escape, sorted((*controls, *longer), key=len, reverse=True))))


def is_clean(
    engine: Engine, text: str, ids: list[int], offsets: Offsets, edges: list[int], is_written: list[bool]
) -> bool:
    """Return whether every control token of an encoded row is spelled wholly in what the template wrote."""
    ends = [*edges[1:], len(text)]
    spelled = {engine.controls[content]: content for content in engine.controls}
    for i, (first, last) in zip(ids, offsets, strict=True):
        if engine.is_control[i]:
            # a token may also take the spaces beside it, whoever wrote them: that spells nothing
            at = text.find(spelled[i], first, last)
            bounds = (first, last) if at < 0 else (at, at + len(spelled[i]))
            if any(is_written[span] for span in _touched(edges, ends, *bounds)):
                return False
    return True


def encode_guarded(
    engine: Engine, text: str, edges: list[int], is_written: list[bool]
) -> tuple[list[int], Offsets] | None:
    """Return (ids, first and last character of each token), control tokens only where the template wrote them whole.

    The text is encoded once, with the template's control tokens under aliases, by a tokenizer that knows no other name
    for them; so the ids are those of the plain path wherever the content spells none, flags of added tokens included.
    `edges` are the span starts and `is_written` says which spans a message wrote. Returns None if a control id still
    comes out (a token of the base vocabulary that spells one whole), or if no alias can be told from the text.
    """
    guards = guards_of(engine)
    guard = guards.for_text(text)
    if guard is None:
        return None
    places = _controls_of_template(engine, guards.pattern, text, edges, is_written)
    while True:
        encoding, begins, ends = _encode_under_aliases(guard, text, places)
        taken = [first for i, (first, _) in zip(encoding.ids, encoding.offsets, strict=True) if i in guard.alias_ids]
        if len(taken) == len(places):
            break
        # A token that must stand alone, or is looked for after normalisation, is text to the plain tokenizer too.
        lasts = [last for i, (_, last) in zip(encoding.ids, encoding.offsets, strict=True) if i in guard.alias_ids]
        spots = list(zip(taken, lasts, strict=True))
        places = [
            place
            for place, begin, end in zip(places, begins, ends, strict=True)
            if any(first <= begin and end <= last for first, last in spots)
        ]
    if not guard.forbidden.isdisjoint(encoding.ids):
        return None

    def in_text(position: int) -> int:
        before = bisect_right(ends, position)
        return position - (ends[before - 1] - places[before - 1][1]) if before else position

    offsets = [(in_text(first), in_text(last)) for first, last in encoding.offsets]
    return [guard.ids.get(i, i) for i in encoding.ids], offsets


def guards_of(engine: Engine) -> Guards:
    """Return the guards of `engine`."""
    if engine.guards is None:
        engine.guards = Guards(engine)
    guards = engine.guards
    assert isinstance(guards, Guards)
    return guards


def _guard(engine: Engine, mark: str) -> Guard | None:
    """Return the guard whose aliases hold `mark`; None if this tokenizer does not know its tokens under an alias."""
    aliases = {content: _alias(content, number, mark) for number, content in enumerate(engine.controls)}
    tokenizer = load(engine.definition.to_json(renamed=aliases))
    base = set(engine.oracle.get_vocab(with_added_tokens=False).values())
    ids: dict[int, int] = {}
    alias_ids = set()
    for content, token in engine.definition.added_tokens.items():
        i = tokenizer.token_to_id(aliases.get(content, content))
        ids[i] = token.id
        if content in aliases:
            alias_ids.add(i)
            if (i in base and i != token.id) or tokenizer.encode(aliases[content], add_special_tokens=False).ids != [i]:
                return None
    return Guard(
        tokenizer=tokenizer,
        aliases=aliases,
        alias_ids=frozenset(alias_ids),
        ids={i: plain for i, plain in ids.items() if i != plain},
        forbidden=frozenset(base & set(engine.controls.values()) - alias_ids),
    )


def _alias(content: str, number: int, mark: str) -> str:
    """Return a text that holds `mark`, no start of another alias, and at both ends a letter where `content` has one."""
    left = _LETTERS[0] if _is_word(content[0]) else ""
    right = _LETTERS[1] if _is_word(content[-1]) else ""
    return f"{left}{mark}{number}{mark}{right}"


def _is_word(character: str) -> bool:
    return re.match(r"\w", character) is not None


def _encode_under_aliases(guard: Guard, text: str, places: Offsets) -> tuple[Any, list[int], list[int]]:
    """Return the encoding of `text` with aliases at `places`, and where these begin and end in it."""
    pieces: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    position = length = 0
    for first, last in places:
        alias = guard.aliases[text[first:last]]
        pieces += (text[position:first], alias)
        begins.append(length + first - position)
        length = begins[-1] + len(alias)
        ends.append(length)
        position = last
    pieces.append(text[position:])
    return guard.tokenizer.encode("".join(pieces), add_special_tokens=False), begins, ends


def _controls_of_template(
    engine: Engine, pattern: re.Pattern[str], text: str, edges: list[int], is_written: list[bool]
) -> Offsets:
    ends = [*edges[1:], len(text)]
    found = []
    position = 0
    while match := pattern.search(text, position):
        first, last = match.span()
        if match.group() not in engine.controls:
            position = last  # a longer token, which may stand anywhere
        elif any(is_written[span] for span in _touched(edges, ends, first, last)):
            position = first + 1
        else:
            found.append((first, last))
            position = last
    return found


def _touched(edges: list[int], ends: list[int], first: int, last: int) -> range:
    """Return the spans that share a character with [first, last)."""
    return range(bisect_right(edges, first) - 1, bisect_left(ends, max(last, first + 1)) + 1)
