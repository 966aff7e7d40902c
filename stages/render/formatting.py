"""`%` and `format` over traced strings."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter

from stages.render.meter import MAX_WIDTH, LimitError
from stages.render.traced import concat, spans_of, whole

_FIELD: Final = re.compile(
    r"%(?:\((?P<key>[^)]*)\))?(?P<spec>[#0\- +]*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?[hlL]?)(?P<kind>.)", re.S
)
_NUMBER: Final = re.compile(r"\d+")


def refuse_wide(spec: str) -> None:
    """Raise LimitError for a format specification whose width or precision would fill the memory."""
    for number in _NUMBER.findall(spec):
        if len(number) > 9 or int(number) > MAX_WIDTH:
            raise LimitError(f"the template formats to a width of {number[:20]}; at most {MAX_WIDTH} is allowed")


def percent(template: str, values: Any) -> str:
    """Format as `template % values`; what `%s` inserts keeps its origin.

    Raises LimitError for a width taken from the values (`%*d`), and whatever `str.__mod__` raises.
    """
    fields = list(_FIELD.finditer(template))
    for field in fields:
        refuse_wide(field["spec"])
        if "*" in field["spec"]:
            raise LimitError("the template takes the width of a format from its values (`%*d`); write the width out")
    plain = str.__mod__(template, values)
    pieces: list[str] = []
    at = taken = 0
    arguments = values if isinstance(values, tuple) else (values,)
    for field in fields:
        pieces.append(template[at : field.start()])
        at = field.end()
        if field["kind"] == "%":
            pieces.append("%")
            continue
        if field["key"] is not None:
            value = values[field["key"]]
        else:
            value = arguments[taken]
            taken += 1
        if field["kind"] == "s" and not field["spec"]:
            pieces.append(str(value))
        else:
            pieces.append(str.__mod__("%" + field["spec"] + field["kind"], (value,)))
    tracked = concat((*pieces, template[at:]))
    return tracked if tracked == plain else plain  # never a wrong text for the sake of an origin


class TracingFormatter(SandboxedFormatter):
    """`str.format` with the attribute rules of the sandbox, joining its pieces with their origins."""

    def __init__(self, environment: SandboxedEnvironment) -> None:
        super().__init__(environment)

    def format_field(self, value: Any, format_spec: str) -> Any:
        """Format one value, within the width limit."""
        refuse_wide(format_spec)
        return super().format_field(value, format_spec)

    def vformat(self, format_string: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Format as `string.Formatter` does, one nesting level of fields included."""
        return self._write(format_string, args, kwargs, depth=2, numbered=[0])

    def _write(
        self, template: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, depth: int, numbered: list[int]
    ) -> str:
        if depth < 0:
            raise ValueError("Max string recursion exceeded")
        pieces: list[str] = []
        spans = spans_of(template)
        for literal, name, spec, conversion in self.parse(template):
            pieces.append(whole(literal, spans[0][2]) if spans else literal)  # a message's text, for it was the format
            if name is None:
                continue
            value, _ = self.get_field(self._number(name, numbered), args, kwargs)
            value = self.convert_field(value, conversion)
            nested = self._write(spec or "", args, kwargs, depth=depth - 1, numbered=numbered)
            pieces.append(self.format_field(value, nested))
        return concat(pieces)

    @staticmethod
    def _number(name: str, numbered: list[int]) -> str:
        """Number an unnamed field: `numbered` holds the next number, or -1 once the template numbers by hand."""
        if name == "":
            if numbered[0] < 0:
                raise ValueError("cannot switch from manual field specification to automatic field numbering")
            numbered[0] += 1
            return str(numbered[0] - 1)
        if name.isdigit():
            if numbered[0] > 0:
                raise ValueError("cannot switch from automatic field numbering to manual field specification")
            numbered[0] = -1
        return name
