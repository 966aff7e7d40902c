"""A message's text of which a template may know only what it asks: how conversations of one form come to share one render."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeAlias

Field: TypeAlias = Literal["content", "reasoning"]


class View(NamedTuple):
    """A message's field, less the white space that the template strips."""

    field: Field
    strips: tuple[tuple[str, str | None], ...] = ()
    """Methods of `str` and their argument, in order."""

    def of(self, text: str) -> str:
        """Return what the template sees of `text`."""
        for method, chars in self.strips:
            text = STRIPS[method](text, chars)
        return text


class Slot(NamedTuple):
    """A place in a rendered text where a message's own text stands."""

    message: int
    view: View


class Question(NamedTuple):
    """What a template asked about a text before it decided how to go on."""

    kind: Literal["equals", "contains", "startswith", "endswith"]
    slot: Slot
    literal: str = ""

    @property
    def decide(self) -> Callable[[str, str], bool]:
        """Return the function of (text, literal) that answers."""
        return ANSWERS[self.kind]


STRIPS: Final[dict[str, Callable[[str, str | None], str]]] = {
    "strip": str.strip,
    "lstrip": str.lstrip,
    "rstrip": str.rstrip,
}
MAX_STRIPS: Final = 8
"""Strips of a text, one after another, that are followed; each view costs a pass over a shard's messages."""
ANSWERS: Final[dict[str, Callable[[str, str], bool]]] = {
    "equals": str.__eq__,
    "contains": str.__contains__,
    "startswith": str.startswith,
    "endswith": str.endswith,
}


class ObservedError(BaseException):
    """The template wants to know more of a text than a yes or no; no handler of Jinja's may swallow that."""


class Inquiry:
    """The questions that one render asked, and how one conversation answered them."""

    def __init__(self, texts: dict[tuple[int, str], str]) -> None:
        self.path: list[tuple[Question, bool]] = []
        self._known: dict[Question, bool] = {}
        self._texts = texts
        """By message and field; none of them is blank."""

    def ask(self, question: Question) -> bool:
        """Return the conversation's answer, and remember that it mattered."""
        if question not in self._known:
            message, view = question.slot
            text = view.of(self._texts[message, view.field])
            self._known[question] = question.decide(text, question.literal)
            self.path.append((question, self._known[question]))
        return self._known[question]


class Symbol:
    """Text made of literals and slots, of which neither characters nor length can be seen; it is never empty.

    It is no `str`: whatever is not defined here fails, in Python as in Jinja, and the conversation is then rendered with its
    real text. What is defined answers as the real text would, and leaves a question behind if the answer depends on it.
    """

    __slots__ = ("inquiry", "parts")

    def __init__(self, parts: tuple[str | Slot, ...], inquiry: Inquiry) -> None:
        self.parts = parts
        self.inquiry = inquiry

    def __bool__(self) -> bool:
        return True  # no text in a slot is blank, and only white space is stripped

    def __eq__(self, other: object) -> bool:
        if type(other) is not str:
            if other is self or other is None:
                return other is self
            self.refuse()
        return bool(other) and self._ask("equals", self._only(), other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, literal: object) -> bool:
        if type(literal) is not str:
            self.refuse()
        if any(type(part) is str and literal in part for part in self.parts):
            return True
        return self._ask("contains", self._only(), literal)

    def startswith(self, literal: object, *bounds: object) -> bool:
        """Answer as `str` does."""
        return self._affix("startswith", 0, literal, bounds)

    def endswith(self, literal: object, *bounds: object) -> bool:
        """Answer as `str` does."""
        return self._affix("endswith", -1, literal, bounds)

    def strip(self, chars: str | None = None, /) -> "Symbol":
        """Strip as `str` does."""
        if len(self.parts) == 1:
            return self._stripped("strip", 0, chars)
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> "Symbol":
        """Strip as `str` does."""
        return self._stripped("lstrip", 0, chars)

    def rstrip(self, chars: str | None = None, /) -> "Symbol":
        """Strip as `str` does."""
        return self._stripped("rstrip", -1, chars)

    def split(self, separator: str, maxsplit: int = -1, /) -> list["Symbol"]:
        """Split as `str` does, where there is nothing to split at."""
        if type(separator) is not str or type(maxsplit) is not int:
            self.refuse()
        return [self] if separator and separator not in self else self.refuse()

    def replace(self, old: str, new: str, count: int = -1, /) -> "Symbol":
        """Replace as `str` does, where there is nothing to replace."""
        if type(old) is not str or type(new) is not str or type(count) is not int:
            self.refuse()
        return self if old and old not in self else self.refuse()

    def _affix(self, kind: Literal["startswith", "endswith"], at: int, literal: object, bounds: object) -> bool:
        if type(literal) is not str or bounds:
            self.refuse()
        part = self.parts[at]
        if type(part) is str:
            return ANSWERS[kind](part, literal) if len(part) >= len(literal) else self.refuse()
        if len(self.parts) > 1:
            self.refuse()
        return self._ask(kind, part, literal)

    def _stripped(self, method: str, at: int, chars: str | None) -> "Symbol":
        if chars is not None and (type(chars) is not str or not chars.isspace()):
            self.refuse()
        part = self.parts[at]
        kept: str | Slot
        if isinstance(part, str):
            kept = STRIPS[method](part, chars)
        else:
            strips = part.view.strips
            if (method, chars) in strips[-1:]:
                return self  # stripped so already
            if len(strips) == MAX_STRIPS:
                self.refuse()
            kept = Slot(part.message, View(part.view.field, (*strips, (method, chars))))
        if not kept:
            self.refuse()  # the next part would be stripped as well
        return Symbol((kept, *self.parts[1:]) if at == 0 else (*self.parts[:-1], kept), self.inquiry)

    def _only(self) -> Slot:
        part = self.parts[0]
        return part if len(self.parts) == 1 and type(part) is Slot else self.refuse()

    def _ask(self, kind: Any, slot: Any, literal: str = "") -> bool:
        return self.inquiry.ask(Question(kind, slot, literal))

    def refuse(self, *_: object, **__: object) -> NoReturn:
        """Raise ObservedError."""
        raise ObservedError

    __hash__ = refuse
    __str__ = __repr__ = __format__ = refuse
    __len__ = __iter__ = __getitem__ = __reversed__ = refuse
    __int__ = __index__ = __float__ = __complex__ = __round__ = __abs__ = refuse
    __lt__ = __le__ = __gt__ = __ge__ = refuse
    __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __rmod__ = refuse


METHODS: Final = frozenset({"strip", "lstrip", "rstrip", "startswith", "endswith", "split", "replace"})


def literals_of(piece: Any) -> tuple[str, ...]:
    """Return the texts of a piece that are the template's own."""
    if type(piece) is Symbol:
        return tuple(part for part in piece.parts if type(part) is str)
    return (piece,) if type(piece) is str else ()


def joined(pieces: Iterable[str | Symbol], inquiry: Inquiry) -> str | Symbol:
    """Return pieces end to end: text where all are text."""
    parts: list[str | Slot] = []
    literal: list[str] = []
    for piece in pieces:
        for part in piece.parts if type(piece) is Symbol else (piece,):
            if type(part) is str:
                literal.append(part)
            elif type(part) is Slot:
                if any(literal):
                    parts.append("".join(literal))
                literal = []
                parts.append(part)
            else:
                raise ObservedError  # markup, numbers: their rules are their own
    if not parts:
        return "".join(literal)
    if any(literal):
        parts.append("".join(literal))
    return Symbol(tuple(parts), inquiry)
