"""Two texts beside each other, with the words that differ marked."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice
from typing import Final, NamedTuple

MAX_WORDS: Final = 2000
"""Words of each text that are compared, counted from the first that differs: the worst case takes the square of it."""
CONTEXT: Final = 25
"""Words that are shown at either end of a long stretch in which the texts agree."""

_UNSPACED: Final = (
    r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]"
)
_WORD: Final = re.compile(rf"(?:{_UNSPACED}|(?:(?!{_UNSPACED})\w)+|[^\w\s])\s*|\s+")

Piece = tuple[str, bool]
"""A stretch of text, and whether it differs."""


class Turn(NamedTuple):
    """What stands in one line of the comparison: a message of either text, or several where they are not in step."""

    left: tuple[Piece, ...]
    right: tuple[Piece, ...]


class _Token(NamedTuple):
    text: str
    key: str
    """What is compared: the word without the space behind it, or the role with which a message begins."""
    is_start: bool = False


def side_by_side(left: Sequence[tuple[str, str]], right: Sequence[tuple[str, str]]) -> list[Turn]:
    """Compare two lists of (role, text) word by word; characters are words in scripts without spaces.

    A new line begins where both texts begin a message at the same place of the comparison. Long stretches that agree are
    shortened, and of what differs at most MAX_WORDS are compared.
    """
    a, b = list(_tokens(left)), list(_tokens(right))
    turns: list[tuple[list[Piece], list[Piece]]] = [([], [])]
    for ours, theirs, is_same in _stretches(a, b):
        if not is_same:
            turns[-1][0].append((_text(ours), True))
            turns[-1][1].append((_text(theirs), True))
            continue
        for chunk_a, chunk_b in _at_starts(ours, theirs):
            if chunk_a[0].is_start and turns[-1] != ([], []):
                turns.append(([], []))
            for column, chunk in zip(turns[-1], (chunk_a, chunk_b), strict=True):
                column.append((_shortened(chunk), False))
    return [Turn(*(tuple(piece for piece in column if piece[0]) for column in turn)) for turn in turns]


def _tokens(messages: Sequence[tuple[str, str]]) -> Iterator[_Token]:
    for i, (role, text) in enumerate(messages):
        name = f"{role}: " if role else ""
        yield _Token(name if i == 0 else f"\n{name}", f"\0{role}", is_start=True)
        for match in _WORD.finditer(text):
            yield _Token(match[0], match[0].strip())


def _stretches(a: list[_Token], b: list[_Token]) -> Iterator[tuple[list[_Token], list[_Token], bool]]:
    """Yield (tokens of a, tokens of b, whether they are the same), in order; together they are all tokens."""
    keys_a, keys_b = [token.key for token in a], [token.key for token in b]
    shorter = min(len(a), len(b))
    head = next((i for i in range(shorter) if keys_a[i] != keys_b[i]), shorter)
    tail = next((i for i in range(shorter - head) if keys_a[-1 - i] != keys_b[-1 - i]), shorter - head)
    end_a, end_b = len(a) - tail, len(b) - tail
    if head:
        yield a[:head], b[:head], True
    until_a, until_b = min(end_a, head + MAX_WORDS), min(end_b, head + MAX_WORDS)
    matcher = SequenceMatcher(None, keys_a[head:until_a], keys_b[head:until_b], autojunk=False)
    for tag, first_a, last_a, first_b, last_b in matcher.get_opcodes():
        yield a[head + first_a : head + last_a], b[head + first_b : head + last_b], tag == "equal"
    if until_a < end_a or until_b < end_b:
        note_a, note_b = (
            _Token(f" … {n:,} more words, not compared … ", "") for n in (end_a - until_a, end_b - until_b)
        )
        yield [note_a], [note_b], False
    if tail:
        yield a[end_a:], b[end_b:], True


def _at_starts(ours: list[_Token], theirs: list[_Token]) -> Iterator[tuple[list[_Token], list[_Token]]]:
    """Cut a stretch in which both agree where messages begin."""
    cuts = [0, *(i for i in range(1, len(ours)) if ours[i].is_start), len(ours)]
    for first, last in zip(cuts, islice(cuts, 1, None), strict=False):
        yield ours[first:last], theirs[first:last]


def _shortened(tokens: list[_Token]) -> str:
    left_out = len(tokens) - 2 * CONTEXT
    if left_out <= CONTEXT:
        return _text(tokens)
    return f"{_text(tokens[:CONTEXT])}… {left_out:,} words alike … {_text(tokens[-CONTEXT:])}"


def _text(tokens: Sequence[_Token]) -> str:
    return "".join(token.text for token in tokens)
