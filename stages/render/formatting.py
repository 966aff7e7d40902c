"""`%` and `format` over traced strings."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2.sandbox import SandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter

from stages.render.meter import MAX_WIDTH, LimitError, Meter
from stages.render.traced import concat, spans_of, whole

_FIELD: Final = re.compile(
    r"%(?:\((?P<key>[^)]*)\))?(?P<spec>[#0\- +]*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?[hlL]?)(?P<kind>.)", re.S
)
_NUMBER: Final = re.compile(r"\d+")


def refuse_wide(spec: str) -> int:
    """Return the width and precision of a format specification; raise LimitError where they would fill the memory."""
    numbers = _NUMBER.findall(spec)
    for number in numbers:
        if len(number) > 9 or int(number) > MAX_WIDTH:
            raise LimitError(f"the template formats to a width of {number[:20]}; at most {MAX_WIDTH} is allowed")
    return sum(map(int, numbers))


def check_percent(meter: Meter, template: str, values: Any) -> None:
    """Charge for `template % values`; raise LimitError for what would fill the memory, or hides how wide it is."""
    meter.charge(template.count("%(") * len(template) >> 12)  # a key that never closes is sought to the end
    meter.weigh(values)
    size = len(template)
    for field in _FIELD.finditer(template):
        size += refuse_wide(field["spec"])
        if "*" in field["spec"]:
            raise LimitError("the template takes the width of a format from its values (`%*d`); write the width out")
        if field["key"] is not None:
            if "(" in field["key"]:
                raise LimitError("the template formats by a key that holds brackets; rename the key")
            if isinstance(values, dict):
                size += meter.weigh(values.get(field["key"]))
    meter.made(size)


def percent(template: str, values: Any) -> str:
    """Format as `template % values`, which has been checked; what `%s` inserts keeps its origin."""
    fields = list(_FIELD.finditer(template))
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


class MeteredFormatter(SandboxedFormatter):
    """`str.format` with the attribute rules of the sandbox, paying for every field."""

    def __init__(self, environment: SandboxedEnvironment, meter: Meter, **options: Any) -> None:
        super().__init__(environment, **options)
        self._meter = meter
        self._size = 0

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """Convert one value, which writes it out."""
        self._meter.walked(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        """Format one value, within the limits on one width and on all fields together."""
        self._meter.width(refuse_wide(format_spec))
        self._meter.walked(value)
        text = super().format_field(value, format_spec)
        self._size += len(text)
        self._meter.made(len(text) if self._size <= self._meter.size else self._size)
        return text


class EscapingFormatter(MeteredFormatter, SandboxedEscapeFormatter):
    """The same for text marked safe, which escapes what it is given."""


class TracingFormatter(MeteredFormatter):
    """The same, joining its pieces with their origins."""

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
