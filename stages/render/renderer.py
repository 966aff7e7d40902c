"""One chat template, compiled: conversations in, text and spans out."""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Final

from jinja2 import Template as JinjaTemplate
from jinja2.exceptions import TemplateError

from schemas.assets import Template
from stages.render.inputs import Message, Shape, build, symbols, tools_of
from stages.render.meter import Meter
from stages.render.metered import MeteredEnvironment
from stages.render.sandbox import TracingEnvironment
from stages.render.settings import Render, RenderError
from stages.render.symbol import Inquiry, ObservedError, Symbol
from stages.render.symbolic import SymbolicEnvironment
from stages.render.traced import Span, gather

MAX_SOURCE: Final = 250_000
"""Characters of the longest template; one of so many takes a second to compile, and real ones have a tenth of them."""
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
COMPILING: Final = (*FAILURES, SyntaxError, MemoryError)
"""The same while it is compiled; the last two are of blocks too deep in each other."""


class Renderer:
    """A compiled template with its tracing and its plain environment."""

    def __init__(self, source: str, variables: Mapping[str, str], name: str, today: date) -> None:
        if len(source) > MAX_SOURCE:
            raise RenderError(f"template {name}: {len(source)} characters of Jinja, at most {MAX_SOURCE} are read")
        self.name = name
        self.variables = dict(variables)
        self.environment, self.symbolic_environment = TracingEnvironment(today=today), SymbolicEnvironment(today=today)
        oracle = MeteredEnvironment(today=today)
        try:
            code = oracle.compile(source)
        except COMPILING as error:
            line = getattr(error, "lineno", None)
            where = f"template {name}" + (f", line {line}" if line else "")
            raise RenderError(
                f"{where}: does not compile: {describe(error)}; it must be a chat template that transformers accepts"
            ) from error
        # The environments differ in what their methods do, not in the code that calls them.
        self.tracing, self.plain, self.symbolic = (
            JinjaTemplate.from_code(environment, code, environment.make_globals(None))
            for environment in (self.environment, oracle, self.symbolic_environment)
        )

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
        context = self._context(build(messages, shape, tracing=True), tools, generation_prompt, tracing=True)
        return gather(self._write(self.tracing, context, config, n_chars))

    def _write(
        self, template: JinjaTemplate, context: dict[str, Any], config: Render, n_chars: int, times: int = 1
    ) -> tuple[str, ...]:
        """Return the pieces of text that a compiled template makes, within `times` the limits for so large an input."""
        meter: Meter = template.environment.meter  # type: ignore[attr-defined]
        meter.grant(
            steps=times * (config.max_steps + 16 * n_chars),
            size=times * (config.max_output_floor + int(config.max_output_ratio * n_chars)),
        )
        return meter.pieces(template.root_render_func(template.new_context(context)))

    def render_symbols(
        self, roles: Sequence[str], reasons: Sequence[bool], inquiry: Inquiry, config: Render
    ) -> str | Symbol:
        """Return the rendered form of all conversations with these roles that answer the template's questions alike.

        `reasons` says which messages have reasoning. Raises ObservedError, or one of FAILURES, where there is no such form.
        """
        environment = self.symbolic_environment
        environment.inquiry = inquiry
        environment.meter.grant(steps=config.max_steps, size=config.max_output_floor)
        context = self._context(symbols(roles, reasons, inquiry), None, generation_prompt=False, tracing=True)
        rendered: str | Symbol = environment.concat(self.symbolic.root_render_func(self.symbolic.new_context(context)))
        return rendered

    def line_that_looks(self, roles: Sequence[str], config: Render) -> int | None:
        """Return the line on which the template first looks into a text, other than by a yes-or-no question; None if none."""
        inquiry = Inquiry({(message, "content"): "text" for message in range(len(roles))})
        try:
            self.render_symbols(roles, [False] * len(roles), inquiry, config)
        except (ObservedError, *FAILURES) as error:
            return self.line_of(error)
        return None

    def line_of(self, error: BaseException) -> int | None:
        """Return the line of the template on which an error was raised; None if it was none of the template's."""
        line = None
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<template>":
                line = self.tracing.get_corresponding_lineno(trace.tb_lineno)  # the same code runs in all environments
            trace = trace.tb_next
        return line

    def plain_text(
        self,
        messages: Sequence[Message],
        *,
        shape: Shape,
        tools: str | None = None,
        generation_prompt: bool = False,
        config: Render = Render(),  # noqa: B008  # immutable
    ) -> str:
        """Return what the template makes of plain strings, within four times the limits: the oracle for the text of `render`.

        So only a template that does other things to plain strings than to traced ones can find them too narrow.
        """
        n_chars = len(tools or "") + sum(len(field or "") for message in messages for field in message)
        context = self._context(build(messages, shape, tracing=False), tools, generation_prompt, tracing=False)
        return "".join(self._write(self.plain, context, config, n_chars, times=4))

    def _context(
        self, messages: list[dict[str, Any]], tools: str | None, generation_prompt: bool, *, tracing: bool
    ) -> dict[str, Any]:
        return {
            "messages": messages,
            "tools": None if tools is None else tools_of(tools, tracing=tracing),
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
