"""What filters, tests and methods cost beyond walking their arguments: charged before they run."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final

from stages.render.codegen import MAX_CONST
from stages.render.formatting import check_percent
from stages.render.meter import VIEWS, Lazy, LimitError, Meter

Function = Callable[..., Any]

FREE: Final = frozenset({"count", "d", "default", "first", "last", "length"})
"""Filters that neither walk nor make anything."""
LAZY: Final = frozenset({"items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr"})
"""Filters that take the items of their input as they are: charged by their number."""
GENERATING: Final = frozenset(
    {"batch", "items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "unique"}
)
"""Filters that make their items one by one."""
COMPARING: Final = frozenset(
    {"!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan", "lt", "ne"}
)
"""Tests that walk two values."""
LOOKING: Final = frozenset({"filter", "lower", "test", "upper"})
"""Tests that walk one."""
DIVIDING: Final = frozenset({"divisibleby", "even", "odd"})
"""Tests that use `%`, which formats if the value is a text."""
ATTRIBUTE_AT: Final = {
    "groupby": 0,
    "join": 1,
    "max": 1,
    "min": 1,
    "rejectattr": 0,
    "selectattr": 0,
    "sort": 2,
    "sum": 0,
    "unique": 1,
    "map": 99,  # by name only
}
"""Where filters take the dotted name of an attribute, after the value."""
MAX_ATTRIBUTES: Final = 32
"""Most parts of such a name, all of which are looked up for every item."""
JINJAS: Final = frozenset({"_block_vars", "_loop_vars"})
"""Arguments that Jinja adds to every call and takes off again."""
WALKED_OWNERS: Final[tuple[type[Any], ...]] = (list, tuple, range, *VIEWS)
"""Kinds whose methods walk them; those of a dictionary only hash."""


def charged_filters(meter: Meter, filters: dict[str, Function]) -> dict[str, Function]:
    """Return the filters, each paying its price before it runs and for what it makes."""
    return {name: _charged(meter, name, filter_) for name, filter_ in filters.items()}


def _charged(meter: Meter, name: str, filter_: Function) -> Function:
    if name in FREE:
        return filter_
    first = 1 if hasattr(filter_, "jinja_pass_arg") else 0
    price, attribute_at = FILTERS.get(name), ATTRIBUTE_AT.get(name)
    look = meter.each if name in LAZY else meter.walked
    walked, result, generates = meter.walked, meter.result, name in GENERATING

    @wraps(filter_)
    def charged(*args: Any, **kwargs: Any) -> Any:
        subject, sources = args[first], args
        if isinstance(subject, str):
            look(subject)
        elif isinstance(subject, Iterator):
            subject = meter.each(subject) if name in LAZY else map(walked, meter.each(subject))
            if name == "join":
                subject = walked(tuple(subject))
            args = (*args[:first], subject, *args[first + 1 :])
        else:
            look(subject)
        if kwargs or len(args) > first + 1:
            given = args[first + 1 :]
            for value in (*given, *kwargs.values()):
                walked(value)
            if isinstance(subject, str):
                _search(meter, subject, given, kwargs)
            if attribute_at is not None:
                _check_attribute(kwargs.get("attribute", given[attribute_at] if attribute_at < len(given) else None))
        if price is not None:
            price(meter, *args[first:], **kwargs)
        value = result(filter_(*args, **kwargs))
        if generates and isinstance(value, Iterator):
            return Lazy(value, (*sources, *kwargs.values()))
        return value

    return charged


def _check_attribute(path: Any) -> None:
    if isinstance(path, str) and path.count(".") + path.count(",") >= MAX_ATTRIBUTES:
        raise LimitError(f"the template looks up an attribute of more than {MAX_ATTRIBUTES} parts")


def charged_tests(meter: Meter, tests: dict[str, Function]) -> dict[str, Function]:
    """Return the tests, those that walk or format their arguments paying for it."""
    return {name: _charged_test(meter, name, test) for name, test in tests.items()}


def _charged_test(meter: Meter, name: str, test: Function) -> Function:
    walked, look = meter.walked, meter.searched if name == "in" else meter.walked
    first = 1 if hasattr(test, "jinja_pass_arg") else 0

    @wraps(test)
    def compared(left: Any, right: Any) -> Any:
        if type(right) is str and len(right) <= MAX_CONST:
            return test(left, right)  # nothing is walked beyond the end of the shorter one
        return test(walked(left), look(right))

    @wraps(test)
    def divided(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            check_percent(meter, value, (*args, *kwargs.values()))
        return test(value, *args, **kwargs)

    @wraps(test)
    def looked(*args: Any) -> Any:
        walked(args[first])
        return test(*args)

    return compared if name in COMPARING else divided if name in DIVIDING else looked if name in LOOKING else test


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def pay_method(meter: Meter, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Charge for calling the method of a text; return the arguments to call it with.

    In the worst case a search compares all that is sought with the text at every character.
    """
    args, kwargs = _walked_all(meter, args, kwargs)
    _search(meter, text, args, kwargs)
    price = METHODS.get(name)
    if price is not None:
        price(meter, text, *args, **kwargs)
    return args, kwargs


def pay_call(meter: Meter, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Charge for calling anything else but a macro; return the arguments to call it with."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, WALKED_OWNERS):
        meter.weigh(owner)
    return _walked_all(meter, args, kwargs)


def _walked_all(meter: Meter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    for value in args:
        if isinstance(value, str):
            meter.walked(value)
        elif isinstance(value, Iterator):
            args = tuple(meter.walked(tuple(meter.each(arg))) if arg is value else arg for arg in args)
        else:
            meter.walked(value)
    if kwargs:
        kwargs = {name: meter.walked(value) for name, value in kwargs.items() if name not in JINJAS}
    return args, kwargs


def _search(meter: Meter, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    n_chars = sum([len(value) for value in (*args, *kwargs.values()) if isinstance(value, str)])
    meter.charge((len(text) >> 4) + (len(text) * n_chars >> 12))


def _size(meter: Meter, value: Any) -> int:
    return len(value) if isinstance(value, str) else meter.weigh(value)


def _center(meter: Meter, _: Any, width: Any = 80) -> None:
    meter.width(width)


def _round(meter: Meter, _: Any, precision: Any = 0, *_args: Any, **_kwargs: Any) -> None:
    meter.width(precision)


def _batch(meter: Meter, _: Any, linecount: Any, *_args: Any, **_kwargs: Any) -> None:
    meter.width(linecount)


def _slice(meter: Meter, _: Any, slices: Any, *_args: Any, **_kwargs: Any) -> None:
    meter.width(slices)


def _indent(meter: Meter, s: Any, width: Any = 4, *_args: Any, **_kwargs: Any) -> None:
    meter.width(width)
    if isinstance(s, str) and isinstance(width, (int, str)):
        step = len(width) if isinstance(width, str) else width
        meter.made(len(s) + step * (len(s.splitlines()) + 1))


def _wordwrap(
    meter: Meter, s: Any, width: Any = 79, _long: Any = True, wrapstring: Any = None, *_args: Any, **_kwargs: Any
) -> None:
    if isinstance(s, str) and isinstance(width, int):
        n_lines = len(s.splitlines()) + 2 * len(s) // max(width, 1)
        meter.made(len(s) + n_lines * (len(wrapstring) if isinstance(wrapstring, str) else 1))
        meter.charge(n_lines + (n_lines * len(s) >> 12))  # what is left of a long word is copied for every line


def _replace(meter: Meter, s: Any, old: Any, new: Any, count: Any = None) -> None:
    size = _size(meter, s)
    hits = s.count(old) if isinstance(s, str) and isinstance(old, str) else size + 1
    if isinstance(count, int) and count >= 0:
        hits = min(hits, count)
    meter.made(size + _size(meter, new) * hits)


def _join(meter: Meter, value: Any, d: Any = "", *_args: Any, **_kwargs: Any) -> None:
    if d != "" and hasattr(value, "__len__"):
        meter.made(_size(meter, d) * len(value))


def _format(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(value, str):
        check_percent(meter, value, kwargs or args)


def _tojson(
    meter: Meter, x: Any, _ascii: Any = False, indent: Any = None, separators: Any = None, *_args: Any, **_kwargs: Any
) -> None:
    if indent is not None or separators is not None:
        width = indent if isinstance(indent, int) else len(indent or "")
        meter.weigh(x, per_item=sum(map(len, separators or ())), per_level=width)


def _urlize(meter: Meter, value: Any, *_args: Any, **_kwargs: Any) -> None:
    meter.charge(_size(meter, value) ** 3 >> 12)  # its patterns go back and forth over a word


def _striptags(meter: Meter, value: Any) -> None:
    meter.charge(_size(meter, value) ** 2 >> 12)  # the text is copied for every comment


def _pprint(meter: Meter, value: Any) -> None:
    meter.charge(_size(meter, value))  # every value is written once for each container around it


FILTERS: Final[dict[str, Callable[..., None]]] = {
    "batch": _batch,
    "center": _center,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "pprint": _pprint,
    "replace": _replace,
    "round": _round,
    "slice": _slice,
    "striptags": _striptags,
    "tojson": _tojson,
    "urlize": _urlize,
    "wordwrap": _wordwrap,
}


def _join_by(meter: Meter, separator: str, parts: Any) -> None:
    _join(meter, parts, separator)


def _pad(meter: Meter, _: str, width: Any, *_fill: Any) -> None:
    meter.width(width)


def _expandtabs(meter: Meter, text: str, tabsize: Any = 8) -> None:
    if isinstance(tabsize, int):
        meter.width(tabsize)
        meter.made(len(text) + text.count("\t") * tabsize)


METHODS: Final[dict[str, Callable[..., None]]] = {
    "center": _pad,
    "expandtabs": _expandtabs,
    "join": _join_by,
    "ljust": _pad,
    "replace": _replace,
    "rjust": _pad,
    "zfill": _pad,
}
