"""What to keep of a conversation that is too long: choices over turns, made on token counts alone."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, Literal, NamedTuple

Policy = Literal["drop", "keep_turns", "windows", "truncate_head"]


class Ending(IntEnum):
    """Where in a span a turn may be cut."""

    NOWHERE = 0
    INSIDE = 1
    """Behind any of its tokens: the assistant's own text, which then has no stop."""
    BEHIND = 2
    """Behind its last token: the assistant's stop."""


class Turn(NamedTuple):
    """A user's message, all that follows it, up to the end of the assistant's last stop; as indices of spans."""

    first: int
    last: int
    """One past its last span."""


class Outline(NamedTuple):
    """One conversation: its turns, and how many tokens lie before each span."""

    tokens: Sequence[int]
    """First token of each span, and at the end the number of all tokens."""
    turns: Sequence[Turn]
    endings: Sequence[Ending] = ()
    """Of each span; none where answers are never cut."""

    @property
    def n_tokens(self) -> int:
        """Return the tokens of the whole conversation."""
        return self.tokens[-1]

    @property
    def head(self) -> int:
        """Return the tokens before the first user's first character; every part of the conversation begins with them."""
        return self.tokens[self.turns[0].first]

    def cost(self, first: int, last: int) -> int:
        """Return the tokens from the beginning of turn `first` to the end of the turn before `last`."""
        return self.tokens[self.turns[last - 1].last] - self.tokens[self.turns[first].first]

    def share(self, first: int, last: int) -> int:
        """Return `cost`, with what leads to turn `last` where there is one: these add up to the whole."""
        end = self.turns[last].first if last < len(self.turns) else self.turns[-1].last
        return self.tokens[end] - self.tokens[self.turns[first].first]


class Window(NamedTuple):
    """The head, and turns `first` to `last` (exclusive); those before `new` are context."""

    first: int
    new: int
    last: int
    cut: int = 0
    """Tokens to leave out at the beginning of turn `first`."""
    rest: int = 0
    """Tokens to leave out at the end of turn `last - 1`, which alone is too long."""
    is_unfinished: bool = False
    """What is left of it ends inside an answer, without a stop."""


class Cut(NamedTuple):
    """Where a turn is cut."""

    n_tokens: int
    """Tokens before it."""
    n_spans: int
    """Spans that begin before it."""
    is_unfinished: bool
    """It is inside an answer, so that no stop is left where it ends."""


class Loss(NamedTuple):
    """What no window holds as new."""

    conversations: int
    turns: int
    tokens: int
    answers: int = 0
    """Answers of which only the beginning is kept; their turns are not lost."""


def outline(
    roles: Sequence[str], messages: Sequence[int], tokens: Sequence[int], endings: Sequence[Ending] = ()
) -> Outline:
    """Find the turns in the spans of a conversation.

    A turn begins with a user's message that follows the assistant's; what else a user, a tool or a system message adds
    belongs to the turn before. Trailing messages that nobody answers belong to none. There is no turn at all where no
    cut is safe: nobody asks, nobody answers, or the template writes an earlier message behind a later one (Mistral's
    system prompt stands in the last question), so that a part would lack what belongs to it.
    """
    firsts: list[int] = []
    ends: list[int] = []  # one past the assistant's last span in each turn, 0 while there is none
    previous, newest, heard = "", -1, 0
    for span, (role, message) in enumerate(zip(roles, messages, strict=True)):
        if message < 0:
            continue
        if message < newest:
            return Outline(tokens, (), endings)
        if role == "user" and (not firsts or previous == "assistant"):
            firsts.append(span)
            ends.append(0)
        elif role == "assistant" and firsts:
            ends[-1] = span + 1
        previous, newest, heard = role, message, span + 1
    turns = [Turn(first, last) for first, last in zip(firsts, ends, strict=True) if last]
    if turns and turns[-1].last == heard:  # nobody speaks after it: what the template closes with is its own
        turns[-1] = Turn(turns[-1].first, len(roles))
    return Outline(tokens, turns, endings)


def keep_turns(conversation: Outline, limit: int) -> list[Window]:
    """Keep the longest beginning of whole turns that fits, and the beginning of the next if that alone is too long."""
    last = _furthest(conversation, 0, limit)
    if last < len(conversation.turns) and conversation.head + conversation.cost(last, last + 1) > limit:
        begun = _begun(conversation, 0, last, limit)
        if begun:
            return [begun]
    return [Window(0, 0, last)] if last else []


def windows(conversation: Outline, limit: int) -> list[Window]:
    """Cover the conversation: each turn is new in one window, and the room that is left shows turns before it.

    As few windows as possible, filled from the beginning. A turn that fits in none is in none, or its beginning in one of
    its own.
    """
    found = []
    new = 0
    while new < len(conversation.turns):
        last = _furthest(conversation, new, limit)
        if last == new:
            if begun := _begun(conversation, new, new, limit):
                found.append(begun)
            new += 1
            continue
        first = new
        while first and conversation.head + conversation.cost(first - 1, last) <= limit:
            first -= 1
        found.append(Window(first, new, last))
        new = last
    return found


def truncate_head(conversation: Outline, limit: int) -> list[Window]:
    """Keep the end: leave out the oldest turns, and of the last one, if need be, the beginning of its question.

    Of a turn whose answer alone is too long the beginning is kept, with as much of the question as half the room holds.
    """
    n = len(conversation.turns)
    for first in range(n):
        if conversation.head + conversation.cost(first, n) <= limit:
            return [Window(first, first, n)]
    if not n:
        return []
    cut = conversation.head + conversation.cost(n - 1, n) - limit
    question = conversation.turns[-1].first
    n_question = conversation.tokens[question + 1] - conversation.tokens[question]
    if cut < n_question:
        return [Window(n - 1, n - 1, n, cut)]
    cut = max(0, n_question - max(0, limit - conversation.head) // 2)
    begun = _begun(conversation, n - 1, n - 1, limit, cut) if cut < n_question else None
    return [begun] if begun else []


def drop(conversation: Outline, limit: int) -> list[Window]:  # noqa: ARG001
    """Keep nothing."""
    return []


POLICIES: Final[dict[Policy, Callable[[Outline, int], list[Window]]]] = {
    "drop": drop,
    "keep_turns": keep_turns,
    "windows": windows,
    "truncate_head": truncate_head,
}
"""Policy to the windows it makes of a conversation, ascending; each fits `limit`, none means that it is lost."""


def lost(conversation: Outline, kept: Sequence[Window]) -> Loss:
    """Return what `kept` lacks of the conversation; head and context count once."""
    n_turns = len(conversation.turns)
    if not kept:
        return Loss(1, n_turns, conversation.n_tokens)
    n_kept = sum(window.last - window.new for window in kept)
    tokens = conversation.head + sum(conversation.share(w.new, w.last) - w.cut - w.rest for w in kept)
    return Loss(0, n_turns - n_kept, conversation.n_tokens - tokens, sum(w.is_unfinished for w in kept))


def cut_before(tokens: Sequence[int], endings: Sequence[Ending], turn: Turn, end: int) -> Cut | None:
    """Return where to cut a turn, with at most `end` tokens before the cut; None if nothing of an answer would be left.

    As late as possible: inside the assistant's text, or behind a stop.
    """
    found = None
    for span in range(turn.first, turn.last):
        first, last = tokens[span], tokens[span + 1]
        if first > end:
            break
        if endings[span] == Ending.INSIDE and min(last, end) > first:
            found = Cut(min(last, end), span + 1, True)
        elif endings[span] == Ending.BEHIND and last <= end:
            found = Cut(last, span + 1, False)
    return found


def _begun(conversation: Outline, first: int, last: int, limit: int, cut: int = 0) -> Window | None:
    """Return the window of turns `first` to `last` (exclusive) and the beginning of turn `last`, None if it has none."""
    if not conversation.endings:
        return None
    turn = conversation.turns[last]
    end = conversation.tokens[conversation.turns[first].first] + cut + limit - conversation.head
    found = cut_before(conversation.tokens, conversation.endings, turn, end)
    if found is None:
        return None
    return Window(first, first, last + 1, cut, conversation.tokens[turn.last] - found.n_tokens, found.is_unfinished)


def _furthest(conversation: Outline, first: int, limit: int) -> int:
    """Return the last `last` for which head and turns `first` to `last` (exclusive) fit; `first` if not even one does."""
    last = first
    while last < len(conversation.turns) and conversation.head + conversation.cost(first, last + 1) <= limit:
        last += 1
    return last
