"""The environment in which templates meet symbols instead of texts."""

from collections.abc import Callable, Iterable
from datetime import date
from functools import wraps
from typing import Any, Final

from jinja2.runtime import Context

from stages.render.sandbox import TracingEnvironment
from stages.render.symbol import METHODS, Inquiry, ObservedError, Symbol, joined, literals_of

STRING_TESTS: Final = ("iterable", "sequence", "string")
"""Tests that a text passes."""


class SymbolicEnvironment(TracingEnvironment):
    """The tracing environment, where a Symbol passes for text as far as nobody looks into it.

    Whatever would treat a Symbol otherwise than the text it stands for raises ObservedError, or an error of Python's: then
    nothing is known of this way through the template.
    """

    def __init__(self, *, today: date) -> None:
        super().__init__(today=today)
        self.inquiry = Inquiry({})
        for name in ("trim", "replace"):
            self.filters[name] = _method(name.replace("trim", "strip"), self.filters[name])
        self.filters["string"] = _kept(self.filters["string"])
        self.filters["attr"] = _unless_symbol(self.filters["attr"], at=1)
        for name in STRING_TESTS:
            self.tests[name] = _passed(self.tests[name])
        self.tests["sameas"] = _unless_symbol(self.tests["sameas"], at=0)

    def text(self, value: Any) -> Any:
        """Return `str(value)`, or a symbol as it is."""
        return value if type(value) is Symbol else super().text(value)

    def add(self, parts: tuple[Any, ...]) -> Any:
        """Return the sum of `parts`, from the left."""
        return self.concat(parts) if _has_symbol(parts) else super().add(parts)

    def concat(self, pieces: Iterable[Any]) -> Any:
        """Return texts and symbols end to end."""
        pieces = tuple(pieces)
        self.meter.charge(sum(len(piece.parts) for piece in pieces if type(piece) is Symbol))
        self.meter.made(sum(len(part) for piece in pieces for part in literals_of(piece)))
        return joined(pieces, self.inquiry)

    def cut(self, value: Any, key: slice) -> Any:
        """Return `value[key]`, which needs a real text."""
        return value.refuse() if type(value) is Symbol else super().cut(value, key)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Run an operator, which needs real texts."""
        if _has_symbol((left, right)):
            raise ObservedError
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look up an attribute; of a symbol only the methods that it answers."""
        if type(obj) is Symbol:
            return getattr(obj, attribute) if attribute in METHODS else obj.refuse()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up an item, which a symbol does not have."""
        return obj.refuse() if type(obj) is Symbol else super().getitem(obj, argument)


def _has_symbol(values: Iterable[Any]) -> bool:
    return any(type(value) is Symbol for value in values)


def _method(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter that is a method of a symbol, and of anything else what it was."""
    at = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        if type(args[at]) is not Symbol:
            return filter_(*args, **kwargs)
        if at and args[0].autoescape:
            raise ObservedError
        return getattr(args[at], name)(*args[at + 1 :], **kwargs)

    return filtered


def _kept(filter_: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value: value if type(value) is Symbol else filter_(value)


def _passed(test: Any) -> Callable[..., bool]:
    return lambda value: type(value) is Symbol or bool(test(value))


def _unless_symbol(function: Any, *, at: int) -> Callable[..., Any]:
    """Return the filter or test that sees no symbol from argument `at` on."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if _has_symbol((*args[at:], *kwargs.values())):
            raise ObservedError
        return function(*args, **kwargs)

    return guarded
