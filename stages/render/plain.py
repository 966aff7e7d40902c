"""What transformers gives to chat templates: options and globals, sealed, with a clock that stands still."""

from datetime import date, datetime, time
from typing import Any, Final, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_eval_context

from stages.render.containers import tojson


class GenerationBlock(Extension):
    """Accept `{% generation %}` blocks and render their body, as transformers does."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Turn the block into a call whose result is its body."""
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        block = nodes.CallBlock(self.call_method("body_"), [], [], body)
        return block.set_lineno(lineno)

    @pass_eval_context
    def body_(self, _: nodes.EvalContext, caller: Macro) -> str:
        """Return the rendered body."""
        return caller()


OPTIONS: Final[dict[str, Any]] = {
    "trim_blocks": True,
    "lstrip_blocks": True,
    "optimized": False,
    "extensions": [GenerationBlock, loopcontrols],
}
"""As transformers has them; `optimized` changes no output."""


class TemplateDict:
    """What templates see as `dict`: it makes dictionaries and offers nothing else."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Make a dictionary."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Make a dictionary from keys."""
        return dict.fromkeys(*args, **kwargs)


class TemplateNamespace(Namespace):
    """A namespace without underscore attributes, as transformers has it since such names led out of sandboxes."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            TemplateNamespace._check(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        TemplateNamespace._check(name)
        Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(
                f"a chat template cannot store {name!r} on a namespace: names that begin with an underscore are"
                " refused; rename the attribute"
            )


def furnish(environment: ImmutableSandboxedEnvironment, *, today: date) -> None:
    """Give `environment` the globals of transformers, less what is random, and a clock that stands still."""

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(format: str) -> str:  # noqa: A002  # the name templates may use
        return datetime.combine(today, time()).strftime(format)

    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name)
    environment.filters.pop("random")
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": TemplateDict(),
        "namespace": TemplateNamespace,
    }
