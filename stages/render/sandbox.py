"""Where chat templates run: metered, and keeping who wrote what."""

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, Final

from jinja2.runtime import LoopContext

from stages.render import filters
from stages.render.containers import TracedDict
from stages.render.formatting import MeteredFormatter, TracingFormatter, percent
from stages.render.metered import MeteredEnvironment
from stages.render.plain import TemplateNamespace
from stages.render.traced import Span, Traced, concat, join, replace, traced

DICT_ATTRIBUTES: Final = frozenset(dir(dict))
HARMLESS: Final = frozenset({"endswith", "lower", "lstrip", "rstrip", "split", "startswith", "strip", "title", "upper"})
"""Methods of a string that neither leave the sandbox nor need a stand-in."""
TRACKED: Final[dict[str, Callable[..., str]]] = {"join": join, "replace": replace}


class TracingEnvironment(MeteredEnvironment):
    """The same environment, in which traced strings stay traced."""

    def _replace_filters(self) -> None:
        self.filters |= filters.tracing(self.text)

    def text(self, value: Any) -> str:
        """Return `str(value)`, charged for before it is made."""
        return value if type(value) is str or type(value) is Traced else str(self.meter.walked(value))

    def concat(self, pieces: Iterable[str]) -> str:
        """Return texts end to end."""
        return concat(self.meter.pieces(pieces))

    def add(self, parts: tuple[Any, ...]) -> Any:
        """Return the sum of `parts`, from the left."""
        spans: list[Span] = []  # as in `gather`, which a call more would make a tenth slower for every message
        at = 0
        for part in parts:
            kind = type(part)
            if kind is Traced:
                for first, last, who in part._spans:
                    spans.append((first + at, last + at, who))
            elif kind is not str:
                return super().add(parts)
            at += len(part)
        self.meter.made(at)
        return traced("".join(parts), tuple(spans))

    def repeated(self, value: Any, times: int) -> Any:
        """Return a text or list a number of times."""
        return concat((value,) * times) if type(value) is Traced else value * times

    def percent(self, template: str, values: Any) -> str:
        """Return `template % values`."""
        return super().percent(template, values) if hasattr(template, "__html__") else percent(template, values)

    def formatter(self, text: str) -> MeteredFormatter:
        """Return what formats `text`."""
        return super().formatter(text) if hasattr(text, "__html__") else TracingFormatter(self, self.meter)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look up an attribute as the sandbox does, faster for the names of a dictionary's items."""
        kind = type(obj)
        if (kind is dict or kind is TracedDict) and attribute not in DICT_ATTRIBUTES:
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        # What follows is the sandbox's verdict, known beforehand: these kinds have no unsafe public attributes.
        if (kind is LoopContext or kind is TemplateNamespace) and attribute[0] != "_":
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        if (kind is Traced or kind is str) and attribute in HARMLESS:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., Any] | None:
        """Return a tracked or bounded stand-in for a method, or None where none is needed."""
        found = super().wrap_str_format(value)
        owner = getattr(value, "__self__", None)
        if found is not None or not isinstance(owner, str) or hasattr(owner, "__html__") or not callable(value):
            return found
        return MethodType(TRACKED[value.__name__], owner) if value.__name__ in TRACKED else None
