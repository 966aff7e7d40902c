"""Jinja's filters, as far as they would lose who wrote a text; what they cost is in stages.render.prices."""

from collections.abc import Callable, Iterable
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.utils import pass_eval_context
from markupsafe import Markup

from stages.render.formatting import percent
from stages.render.traced import Span, concat, join, replace, spans_of, traced

Filter = Callable[..., Any]


class TracedMarkup(Markup):
    """Text marked safe: written out it is traced; any operation on it escapes as Markup does and forgets the origin."""

    __slots__ = ("_spans",)
    _spans: tuple[Span, ...]

    def __str__(self) -> str:
        return traced(str.__str__(self), getattr(self, "_spans", ()))  # Markup's own operations set none


def tracing(text: Callable[[Any], str]) -> dict[str, Filter]:
    """Return the filters to use in place of Jinja's; `text` is the environment's `str`."""
    return {
        "format": _format,
        "indent": _indent,
        "join": _join(text),
        "replace": _replace(text),
        "safe": _safe,
        "string": _string(text),
        "striptags": _striptags,
        "trim": _trim(text),
    }


def _safe(value: Any) -> Markup:
    """Mark as safe."""
    marked = TracedMarkup(value)
    marked._spans = spans_of(value)
    return marked


def _string(text: Callable[[Any], str]) -> Filter:
    def string(value: Any) -> str:
        return value if isinstance(value, str) else text(value)

    return string


def _striptags(value: Any) -> str:
    if spans_of(value):
        raise SecurityError("a chat template cannot call striptags on a message: it decodes, be it a control token")
    return FILTERS["striptags"](value)  # type: ignore[no-any-return]


def _trim(text: Callable[[Any], str]) -> Filter:
    def trim(value: Any, chars: str | None = None) -> str:
        return (value if isinstance(value, str) else text(value)).strip(chars)

    return trim


def _join(text: Callable[[Any], str]) -> Filter:
    plain = FILTERS["join"]

    @pass_eval_context
    def join_(eval_ctx: EvalContext, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
        if eval_ctx.autoescape:
            return plain(eval_ctx, value, d, attribute)  # type: ignore[no-any-return]
        if attribute is not None:
            value = map(make_attrgetter(eval_ctx.environment, attribute), value)
        separator = text(d)
        parts = map(text, value)
        return separator.join(parts) if hasattr(separator, "__html__") else join(separator, parts)

    return join_


def _replace(text: Callable[[Any], str]) -> Filter:
    plain = FILTERS["replace"]

    @pass_eval_context
    def replace_(eval_ctx: EvalContext, s: Any, old: Any, new: Any, count: int | None = None) -> str:
        if eval_ctx.autoescape:
            return plain(eval_ctx, s, old, new, count)  # type: ignore[no-any-return]
        return replace(text(s), text(old), text(new), -1 if count is None else count)

    return replace_


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    plain = FILTERS["indent"]
    if not isinstance(s, str) or hasattr(s, "__html__"):
        return plain(s, width, first, blank)  # type: ignore[no-any-return]
    step = width if isinstance(width, str) else " " * width
    lines = concat((s, "\n")).splitlines()
    head, rest = lines[0], lines[1:]
    moved = [line if not line and not blank else concat((step, line)) for line in rest]
    return concat((step if first else "", join("\n", [head, *moved])))


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if (args and kwargs) or not isinstance(value, str) or hasattr(value, "__html__"):
        return FILTERS["format"](value, *args, **kwargs)  # type: ignore[no-any-return]
    return percent(value, kwargs or args)
