"""Jinja's filters, as far as they would lose who wrote a text or spend without count."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.utils import pass_eval_context
from markupsafe import Markup

from stages.render.codegen import METERED
from stages.render.containers import tojson
from stages.render.formatting import percent
from stages.render.meter import Meter
from stages.render.traced import Span, concat, join, replace, spans_of, traced

Filter = Callable[..., Any]

CHEAP: Final = frozenset({"count", "d", "default", "first", "items", "last", "length", "safe"})
"""Filters that make nothing; they stay as they are."""
LAZY: Final = frozenset({"list", "map", "reject", "rejectattr", "reverse", "select", "selectattr"})
"""Filters that walk their input once; charged by its length."""
WIDE: Final = frozenset({"batch", "center", "round", "slice", "wordwrap"})
"""Filters that make as much as a number, or the length of what stands between lines, asks for."""
LINES: Final = 100
"""A text between lines may be so many times shorter than a width."""


class TracedMarkup(Markup):
    """Text marked safe: written out it is traced; any operation on it escapes as Markup does and forgets the origin."""

    __slots__ = ("_spans",)
    _spans: tuple[Span, ...]

    def __str__(self) -> str:
        return traced(str.__str__(self), getattr(self, "_spans", ()))  # Markup's own operations set none


def tracing(meter: Meter, text: Callable[[Any], str]) -> dict[str, Filter]:
    """Return the filters to use in place of Jinja's; `text` is the metered `str`."""
    chosen = {name: _bounded(meter, name, filter_) for name, filter_ in FILTERS.items() if name != "random"}
    return chosen | {
        METERED: meter.each,
        "format": _format(meter),
        "indent": _indent(meter),
        "join": _join(meter, text),
        "replace": _replace(meter, text),
        "safe": _safe,
        "string": _string(text),
        "striptags": _striptags(chosen["striptags"]),
        "tojson": _tojson(meter),
        "trim": _trim(meter, text),
    }


def _bounded(meter: Meter, name: str, filter_: Filter) -> Filter:
    """Return Jinja's own filter, charged for what goes in and for what comes out."""
    if name in CHEAP:
        return filter_
    first = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        if name in LAZY:
            source = args[first]
            made = filter_(*args[:first], meter.each(source), *args[first + 1 :], **kwargs)
            return meter.result(meter.lazily(source, made))
        meter.weigh((args[first:], kwargs))
        if name in WIDE:
            for width in (*args[first + 1 :], *kwargs.values()):
                meter.width(len(width) * LINES if isinstance(width, str) else width)
        return meter.result(filter_(*args, **kwargs))

    return bounded


def _safe(value: Any) -> Markup:
    """Mark as safe."""
    marked = TracedMarkup(value)
    marked._spans = spans_of(value)
    return marked


def _string(text: Callable[[Any], str]) -> Filter:
    def string(value: Any) -> str:
        return value if isinstance(value, str) else text(value)

    return string


def _striptags(bounded: Filter) -> Filter:
    def striptags(value: Any) -> str:
        if spans_of(value):
            raise SecurityError("a chat template cannot call striptags on a message: it decodes, be it a control token")
        return bounded(value)  # type: ignore[no-any-return]

    return striptags


def _tojson(meter: Meter) -> Filter:
    def tojson_(x: Any, *args: Any, **kwargs: Any) -> str:
        meter.weigh(x)
        return meter.result(tojson(x, *args, **kwargs))  # type: ignore[no-any-return]

    return tojson_


def _trim(meter: Meter, text: Callable[[Any], str]) -> Filter:
    def trim(value: Any, chars: str | None = None) -> str:
        return meter.result((value if isinstance(value, str) else text(value)).strip(chars))  # type: ignore[no-any-return]

    return trim


def _join(meter: Meter, text: Callable[[Any], str]) -> Filter:
    plain = FILTERS["join"]

    @pass_eval_context
    def join_(eval_ctx: EvalContext, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
        if eval_ctx.autoescape:
            return plain(eval_ctx, value, d, attribute)  # type: ignore[no-any-return]
        if attribute is not None:
            value = map(make_attrgetter(eval_ctx.environment, attribute), value)
        separator = text(d)
        parts = meter.pieces(map(text, meter.each(value)))
        meter.made(len(separator) * len(parts))
        return separator.join(parts) if hasattr(separator, "__html__") else join(separator, parts)

    return join_


def _replace(meter: Meter, text: Callable[[Any], str]) -> Filter:
    plain = FILTERS["replace"]

    @pass_eval_context
    def replace_(eval_ctx: EvalContext, s: Any, old: Any, new: Any, count: int | None = None) -> str:
        if eval_ctx.autoescape:
            return plain(eval_ctx, s, old, new, count)  # type: ignore[no-any-return]
        s, old, new = text(s), text(old), text(new)
        count = -1 if count is None else count
        hits = s.count(old)
        meter.made(len(s) + len(new) * (hits if count < 0 else min(count, hits)))
        return replace(s, old, new, count)

    return replace_


def _indent(meter: Meter) -> Filter:
    plain = FILTERS["indent"]

    def indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        meter.width(width)
        step = width if isinstance(width, str) else " " * width
        if not isinstance(s, str):
            return plain(s, step, first, blank)  # type: ignore[no-any-return]  # fails as Jinja's does
        meter.made(len(s) + len(step) * (len(s.splitlines()) + 1))
        if hasattr(s, "__html__"):
            return plain(s, step, first, blank)  # type: ignore[no-any-return]
        lines = concat((s, "\n")).splitlines()
        head, rest = lines[0], lines[1:]
        moved = [line if not line and not blank else concat((step, line)) for line in rest]
        return concat((step if first else "", join("\n", [head, *moved])))

    return indent


def _format(meter: Meter) -> Filter:
    plain = FILTERS["format"]

    def format_(value: Any, *args: Any, **kwargs: Any) -> str:
        meter.weigh((value, args, kwargs))
        if (args and kwargs) or not isinstance(value, str) or hasattr(value, "__html__"):
            return plain(value, *args, **kwargs)  # type: ignore[no-any-return]
        return percent(value, kwargs or args)

    return format_
