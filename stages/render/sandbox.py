"""Where chat templates run: metered, and keeping who wrote what."""

import operator
from collections.abc import Callable
from datetime import date
from typing import Any, Final

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages.render import filters
from stages.render.codegen import TracingGenerator, metered
from stages.render.containers import TracedDict
from stages.render.formatting import TracingFormatter, percent
from stages.render.meter import MAX_BITS, SIZED, LimitError, Meter
from stages.render.plain import OPTIONS, TemplateDict, TemplateNamespace, furnish
from stages.render.traced import Span, Traced, concat, join, replace, traced

CONTAINERS: Final = (list, tuple, dict)
DICT_ATTRIBUTES: Final = frozenset(dir(dict))
PADDING: Final = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
HARMLESS: Final = frozenset({"endswith", "lower", "lstrip", "rstrip", "split", "startswith", "strip", "title", "upper"})
"""Methods of a string that neither leave the sandbox nor make much out of little."""
TRACKED: Final = frozenset({"join", "replace"})
FORBIDDEN: Final = frozenset({"maketrans", "translate"})


class TracingEnvironment(ImmutableSandboxedEnvironment):
    """The same environment, in which traced strings stay traced and every step is counted by `meter`."""

    code_generator_class = TracingGenerator
    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, *, today: date) -> None:
        super().__init__(**OPTIONS)
        furnish(self, today=today)
        self.meter = Meter()
        self.concat = lambda pieces: concat(self.meter.pieces(pieces))  # type: ignore[method-assign]
        self.filters |= filters.tracing(self.meter, self.text)
        for name in ("in", "lower", "upper"):
            self.tests[name] = self._searching(self.tests[name])
        self.globals["range"] = self._range

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(metered(source), *args, **kwargs)

    def _range(self, *args: int) -> range:
        numbers = range(*args)
        self.meter.charge(len(numbers))
        return numbers

    def text(self, value: Any) -> str:
        """Return `str(value)`, charged for before it is made."""
        if type(value) is str or type(value) is Traced:
            return value
        if isinstance(value, (dict, list, tuple, set)):
            self.meter.weigh(value)
        return str(value)

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
                return self._add_any(parts)
            at += len(part)
        self.meter.made(at)
        return traced("".join(parts), tuple(spans))

    def _add_any(self, parts: tuple[Any, ...]) -> Any:
        total = parts[0]
        for part in parts[1:]:
            total = self.meter.result(total + part)
        return total

    def cut(self, value: Any, key: slice) -> Any:
        """Return `value[key]`."""
        return self.meter.result(value[key])

    def nested(self, value: Any) -> Any:
        """Return a new container, charged for all that is in it if that holds containers.

        One that held another twice could otherwise double with every step, and what compares or hashes it walks it all.
        """
        for item in value if type(value) is not dict else (*value, *value.values()):
            if isinstance(item, CONTAINERS):
                return self._weighed(value)
        return value

    def searched(self, value: Any) -> Any:
        """Return `value`, charged for being searched."""
        if isinstance(value, SIZED):
            self.meter.charge(len(value) >> 4)
        return value

    def _searching(self, test: Any) -> Callable[..., Any]:
        def searching(*values: Any) -> Any:
            return test(*map(self.searched, values))

        return searching

    def call_binop(self, _: Context, operator: str, left: Any, right: Any) -> Any:
        """Run an operator that can make much out of little."""
        if operator == "%":
            return percent(self._weighed(left), self._weighed(right)) if isinstance(left, str) else left % right
        if operator == "*":
            return self._times(left, right)
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
            raise LimitError(f"the template raises to the power of {str(right)[:20]}; numbers end at {MAX_BITS} bits")
        return left**right

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call as the sandbox does, charging for the result."""
        if not self.is_safe_callable(obj):
            raise SecurityError(f"{obj!r} is not safely callable")
        if type(obj) is Macro:
            if obj.catch_varargs or obj.catch_kwargs:
                self.nested((*args, *kwargs.values()))
            return self.meter.result(context.call(obj, *args, **kwargs))
        owner = self.searched(getattr(obj, "__self__", obj))
        value = self.meter.result(context.call(obj, *args, **kwargs))
        return self.nested(value) if type(owner) is TemplateDict else value

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
        """Return a tracked or bounded stand-in for a method of a string, or None where none is needed."""
        text = getattr(value, "__self__", None)
        if not isinstance(text, (str, bytes)) or not callable(value):
            return None
        name = value.__name__
        if name in PADDING:
            return self._padding(text, value)
        if name in FORBIDDEN or isinstance(text, bytes):
            raise SecurityError(f"a chat template cannot call {name} on text")
        if hasattr(text, "__html__"):
            return super().wrap_str_format(value)
        if name in TRACKED:
            return self._join(text) if name == "join" else self._replace(text)
        return self._format(text, name) if name in ("format", "format_map") else None

    def _times(self, left: Any, right: Any) -> Any:
        if isinstance(right, (str, list, tuple)):
            left, right = right, left
        if isinstance(left, (str, list, tuple)) and isinstance(right, int):
            self.meter.made(len(left) * max(0, right))
            return concat((left,) * right) if type(left) is Traced else left * right
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
            raise LimitError(f"the template makes a number of more than {MAX_BITS} bits")
        return operator.mul(left, right)

    def _weighed(self, value: Any) -> Any:
        self.meter.weigh(value)
        return value

    def _padding(self, text: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        def pad(*args: Any, **kwargs: Any) -> Any:
            for width in (*args, *kwargs.values()):
                self.meter.width(width)
                if isinstance(width, int):
                    self.meter.made(len(text) + width * max(1, text.count("\t")))
            return method(*args, **kwargs)

        return pad

    def _join(self, separator: str) -> Callable[..., str]:
        def join_(parts: Any, /) -> str:
            parts = self.meter.pieces(self.meter.each(parts))
            self.meter.made(len(separator) * len(parts))
            return join(separator, parts)

        return join_

    def _replace(self, text: str) -> Callable[..., str]:
        def replace_(old: str, new: str, count: int = -1, /) -> str:
            self.meter.made(len(text) + len(new) * (text.count(old) if count < 0 else min(count, text.count(old))))
            return replace(text, old, new, count)

        return replace_

    def _format(self, text: str, name: str) -> Callable[..., str]:
        def format_(*args: Any, **kwargs: Any) -> str:
            self.meter.weigh((args, kwargs))
            if name == "format_map":
                if len(args) != 1 or kwargs:
                    raise TypeError(f"format_map() takes exactly one argument ({len(args) + len(kwargs)} given)")
                return TracingFormatter(self).vformat(text, (), args[0])
            return TracingFormatter(self).vformat(text, args, kwargs)

        return format_
