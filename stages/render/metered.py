"""Plain Jinja that counts what it spends: the oracle, and what the tracing environment is made of."""

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, Final

from jinja2 import nodes
from jinja2.environment import Environment
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import pass_environment

from stages.render import prices
from stages.render.codegen import MeteredGenerator, metered
from stages.render.formatting import EscapingFormatter, MeteredFormatter, check_percent
from stages.render.meter import MAX_BITS, VIEWS, LimitError, Meter
from stages.render.plain import OPTIONS, TemplateNamespace, furnish

FORBIDDEN: Final = frozenset({"encode", "maketrans", "striptags", "to_bytes", "translate", "unescape"})
"""Methods of texts and numbers that no chat template needs: bytes grow in ways that are not counted, and what is decoded may
be a control token."""


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which gives what Jinja gives while `meter` counts every step and bounds every text.

    Raises LimitError for what costs too much, and SecurityError for the little that can be neither counted nor repeated:
    bytes, and sets, whose order is chance.
    """

    code_generator_class = MeteredGenerator
    intercepted_binops = frozenset({"*", "**", "%", "-"})

    def __init__(self, *, today: date) -> None:
        super().__init__(**OPTIONS)
        furnish(self, today=today)
        self.meter = Meter()
        self.filters["sum"] = self._sum()
        self._replace_filters()
        self.filters = prices.charged_filters(self.meter, self.filters)
        self.tests = prices.charged_tests(self.meter, self.tests)  # type: ignore[assignment,arg-type]
        self.globals["range"] = self._range

    def _replace_filters(self) -> None:
        """Change what filters do, before they are charged."""

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(metered(source), *args, **kwargs)

    def _range(self, *args: int) -> range:
        numbers = safe_range(*args)
        self.meter.charge(len(numbers))
        return numbers

    def text(self, value: Any) -> str:
        """Return `str(value)`, charged for before it is made."""
        return value if type(value) is str else str(self.meter.walked(value))

    def concat(self, pieces: Iterable[str]) -> str:
        """Return texts end to end."""
        return "".join(self.meter.pieces(pieces))

    def escaped(self, join: Callable[[Any], str], parts: tuple[Any, ...]) -> str:
        """Return `join(parts)`, Jinja's own way to join texts that may have to be escaped."""
        self.meter.weigh(parts)
        return self.meter.result(join(parts))  # type: ignore[no-any-return]

    def add(self, parts: tuple[Any, ...]) -> Any:
        """Return the sum of `parts`, from the left."""
        total = parts[0]
        for part in parts[1:]:
            total = self.meter.result(total + part)
        return total

    def cut(self, value: Any, key: slice) -> Any:
        """Return `value[key]`; steps through a text are taken one by one."""
        if isinstance(value, str) and key.step is not None:
            self.meter.charge(len(value))
        return self.meter.result(value[key])

    def repeated(self, value: Any, times: int) -> Any:
        """Return a text or list a number of times, which has been paid for."""
        return value * times

    def percent(self, template: str, values: Any) -> str:
        """Return `template % values`, which has been paid for."""
        return template % values  # type: ignore[no-any-return]

    def formatter(self, text: str) -> MeteredFormatter:
        """Return what formats `text`."""
        if hasattr(text, "__html__"):
            return EscapingFormatter(self, self.meter, escape=text.escape)  # type: ignore[attr-defined]
        return MeteredFormatter(self, self.meter)

    def call_binop(self, _: Context, operator: str, left: Any, right: Any) -> Any:
        """Run an operator that can make much out of little."""
        if operator == "%":
            if not isinstance(left, str):
                return left % right
            check_percent(self.meter, left, right)
            return self.meter.result(self.percent(left, right))
        if operator == "*":
            return self._times(left, right)
        if operator == "-":
            if isinstance(left, VIEWS):
                raise SecurityError("a chat template cannot make a set, whose order is chance")
            return self.meter.result(left - right)
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
            raise LimitError(f"the template raises to the power of {str(right)[:20]}; numbers end at {MAX_BITS} bits")
        return left**right

    def _times(self, left: Any, right: Any) -> Any:
        if isinstance(right, (str, list, tuple)):
            left, right = right, left
        if isinstance(left, (str, list, tuple)) and isinstance(right, int):
            self.meter.made(len(left) * max(0, right))
            return self.repeated(left, right)
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS + 1:
            raise LimitError(f"the template makes a number of more than {MAX_BITS} bits")
        return left * right

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call as the sandbox does; macros pay in their body, all else for what it is given and what it makes."""
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):  # which is safe, and asks for no context
            args, kwargs = prices.pay_method(self.meter, owner, obj.__name__, args, kwargs)
            return self.meter.result(obj(*args, **kwargs))
        if not self.is_safe_callable(obj):
            raise SecurityError(f"a {type(obj).__name__} is not safely callable")
        if type(obj) is not Macro and (args or obj is not TemplateNamespace):
            args, kwargs = prices.pay_call(self.meter, obj, args, kwargs)
        return self.meter.result(context.call(obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., Any] | None:
        """Return a bounded stand-in for a method, or None where none is needed."""
        owner = getattr(value, "__self__", None)
        if not isinstance(owner, (str, int)) or not callable(value):
            return None
        if value.__name__ in FORBIDDEN:
            raise SecurityError(f"a chat template cannot call {value.__name__}")
        return self._format(owner, value.__name__) if isinstance(owner, str) else None

    def _format(self, text: str, name: str) -> Callable[..., str] | None:
        def format_(*args: Any, **kwargs: Any) -> str:
            if name == "format_map":
                if len(args) != 1 or kwargs:
                    raise TypeError(f"format_map() takes exactly one argument ({len(args) + len(kwargs)} given)")
                kwargs = args[0]
                args = ()
            formatted = self.formatter(text).vformat(text, args, kwargs)
            return type(text)(formatted) if hasattr(text, "__html__") else formatted

        return format_ if name in ("format", "format_map") else None

    def _sum(self) -> Callable[..., Any]:
        """Return a `sum` that pays for every list on the way to a sum of lists."""
        plain = FILTERS["sum"]

        @pass_environment
        def sum_(environment: Environment, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
            if not isinstance(start, (list, tuple)):
                return plain(environment, iterable, attribute, start)
            items = iterable if attribute is None else map(make_attrgetter(environment, attribute), iterable)
            for item in items:
                start = self.meter.result(start + item)
            return start

        return sum_
