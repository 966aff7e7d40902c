"""One chat template, compiled: conversations in, text and spans out."""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Final

from jinja2.exceptions import TemplateError

from schemas.assets import Template
from stages.render.inputs import Message, Shape, build, symbols, tools_of
from stages.render.plain import plain_environment
from stages.render.sandbox import TracingEnvironment
from stages.render.settings import Render, RenderError
from stages.render.symbol import Inquiry, ObservedError, Symbol
from stages.render.symbolic import SymbolicEnvironment
from stages.render.traced import Span, gather

MAX_SOURCE: Final = 1_000_000
FAILURES: Final = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a template can make Python raise."""


class Renderer:
    """A compiled template with its tracing and its plain environment."""

    def __init__(self, source: str, variables: Mapping[str, str], name: str, today: date) -> None:
        if len(source) > MAX_SOURCE:
            raise RenderError(f"template {name}: {len(source)} characters of Jinja, at most {MAX_SOURCE} are read")
        self.name = name
        self.variables = dict(variables)
        self.environment = TracingEnvironment(today=today)
        try:
            self.tracing = self.environment.from_string(source)
            self.plain = plain_environment(today=today).from_string(source)
            self.symbolic_environment = SymbolicEnvironment(today=today)
            self.symbolic = self.symbolic_environment.from_string(source)
        except (*FAILURES, SyntaxError) as error:  # Python's own, of loops too deep in each other
            line = getattr(error, "lineno", None)
            where = f"template {name}" + (f", line {line}" if line else "")
            raise RenderError(
                f"{where}: does not compile: {describe(error)}; it must be a chat template that transformers accepts"
            ) from error

    def render(
        self,
        messages: Sequence[Message],
        config: Render,
        *,
        n_chars: int,
        shape: Shape,
        tools: str | None = None,
        generation_prompt: bool = False,
    ) -> tuple[str, tuple[Span, ...]]:
        """Return the rendered text and who wrote it; raise one of FAILURES where the template refuses.

        `n_chars` is the size of the input, which the limits depend on.
        """
        self.environment.meter.grant(
            steps=config.max_steps + 16 * n_chars,
            size=config.max_output_floor + int(config.max_output_ratio * n_chars),
        )
        schemas = None if tools is None else tools_of(tools, tracing=True)
        return gather(self._pieces(self._context(build(messages, shape, tracing=True), schemas, generation_prompt)))

    def _pieces(self, context: dict[str, Any]) -> tuple[str, ...]:
        return self.environment.meter.pieces(self.tracing.root_render_func(self.tracing.new_context(context)))

    def render_symbols(
        self, roles: Sequence[str], reasons: Sequence[bool], inquiry: Inquiry, config: Render
    ) -> str | Symbol:
        """Return the rendered form of all conversations with these roles that answer the template's questions alike.

        `reasons` says which messages have reasoning. Raises ObservedError, or one of FAILURES, where there is no such form.
        """
        environment = self.symbolic_environment
        environment.inquiry = inquiry
        environment.meter.grant(steps=config.max_steps, size=config.max_output_floor)
        context = self._context(symbols(roles, reasons, inquiry), None, generation_prompt=False)
        return environment.concat(self.symbolic.root_render_func(self.symbolic.new_context(context)))

    def line_that_looks(self, roles: Sequence[str], config: Render) -> int | None:
        """Return the line on which the template first looks into a text, other than by a yes-or-no question; None if none."""
        inquiry = Inquiry({(message, "content"): "text" for message in range(len(roles))})
        try:
            self.render_symbols(roles, [False] * len(roles), inquiry, config)
        except (ObservedError, *FAILURES) as error:
            trace, line = error.__traceback__, None
            while trace is not None:
                if trace.tb_frame.f_code.co_filename == "<template>":
                    line = self.symbolic.get_corresponding_lineno(trace.tb_lineno)
                trace = trace.tb_next
            return line
        return None

    def plain_text(
        self, messages: Sequence[Message], *, shape: Shape, tools: str | None = None, generation_prompt: bool = False
    ) -> str:
        """Return what the template makes of plain strings: the oracle for `text`, without its limits."""
        return self.plain.render(self._plain_context(messages, shape, tools, generation_prompt))

    def rehearse(
        self, messages: Sequence[Message], config: Render, *, n_chars: int, shape: Shape, tools: str | None
    ) -> None:
        """Do what `plain_text` does, within four times the limits of `render`; raise what it raises, or why it should not."""
        steps, size = config.max_steps + 16 * n_chars, config.max_output_floor + int(config.max_output_ratio * n_chars)
        self.environment.meter.grant(steps=4 * steps, size=4 * size)
        self._pieces(self._plain_context(messages, shape, tools, generation_prompt=False))

    def _plain_context(
        self, messages: Sequence[Message], shape: Shape, tools: str | None, generation_prompt: bool
    ) -> dict[str, Any]:
        schemas = None if tools is None else tools_of(tools, tracing=False)
        return self._context(build(messages, shape, tracing=False), schemas, generation_prompt)

    def _context(self, messages: list[dict[str, Any]], tools: Any, generation_prompt: bool) -> dict[str, Any]:
        return {
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": generation_prompt,
            **self.variables,
        }


def renderer(template: Template, config: Render) -> Renderer:
    """Compile a template, once per process."""
    return _compiled(template.source, tuple(sorted(template.variables.items())), template.name, config.date)


@lru_cache(maxsize=32)
def _compiled(source: str, variables: tuple[tuple[str, str], ...], name: str, today: str) -> Renderer:
    try:
        day = date.fromisoformat(today)
    except ValueError as error:
        raise RenderError(f"[render] date={today!r} is no date; write it as YYYY-MM-DD") from error
    return Renderer(source, dict(variables), name, day)


def describe(error: BaseException) -> str:
    """Return an error as one bounded line."""
    kind = type(error).__name__
    message = " ".join(str(error).split())[:500]
    return f"{kind}: {message}" if message else kind
