"""What a template may spend on one conversation: counted, never timed, so that a build stays deterministic."""

from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError
from jinja2.utils import Namespace

MAX_WIDTH: Final = 10_000
"""Most characters that one padding, indent or number format may ask for."""
MAX_BITS: Final = 4_096
"""Most bits of an integer that arithmetic may make."""
MAX_DEPTH: Final = 500
"""Most containers in one another that may be walked: hashing a deeper tuple overflows the stack."""
MAX_LAZY: Final = 100
"""Most filters that may take their items from one another."""

VIEWS: Final[tuple[type[Any], ...]] = (type({}.keys()), type({}.values()), type({}.items()))
MAPPINGS: Final[tuple[type[Any], ...]] = (dict, MappingProxyType)
SEQUENCES: Final[tuple[type[Any], ...]] = (list, tuple, *VIEWS)
SIZED: Final[tuple[type[Any], ...]] = (str, list, tuple, dict)
COUNTED: Final[tuple[type[Any], ...]] = (*SIZED, range, MappingProxyType, *VIEWS)


class LimitError(TemplateRuntimeError):
    """The template asked for more steps, characters or digits than one conversation is granted."""


class Lazy:
    """What a filter that makes its items one by one returns.

    `sources` are what it takes them from. A generator that holds a generator, and so on twenty thousand times, overflows
    the stack when it is freed. Raises LimitError for more than MAX_LAZY in one another.
    """

    __slots__ = ("_items", "depth")

    def __init__(self, items: Iterator[Any], sources: Iterable[Any]) -> None:
        self._items = items
        self.depth: int = 1 + max((source.depth for source in sources if type(source) is Lazy), default=0)
        if self.depth > MAX_LAZY:
            raise LimitError(f"the template puts more than {MAX_LAZY} filters on one another without making a list")

    def __iter__(self) -> Iterator[Any]:
        return self._items

    def __next__(self) -> Any:
        return next(self._items)


class Meter:
    """Count the steps and bound the characters of one render.

    A step is one loop iteration, call, filter or operation, plus one for every 16 characters or items that it makes or
    walks. No text or list may grow past `size`. Both together bound the time and the memory of a render.

    A container may hold another twice, which holds another twice: walking it takes 2^40 steps where it was made in 40. So
    nothing is charged for making one, and whatever walks a value (comparing, hashing, writing, sorting) weighs it first.
    """

    __slots__ = ("granted", "size", "steps")

    def __init__(self) -> None:
        self.grant(steps=200_000, size=100_000)

    def grant(self, *, steps: int, size: int) -> None:
        """Start a new account."""
        self.granted = self.steps = steps
        self.size = size

    def charge(self, steps: int) -> None:
        """Take `steps` off; raise LimitError when none are left."""
        self.steps -= steps
        if self.steps < 0:
            raise LimitError(f"the template took more than {self.granted} steps; see [render] max_steps")

    def made(self, size: int) -> None:
        """Charge for a text or list of `size`, before it is made where that can be known."""
        if size > self.size:
            raise LimitError(
                f"the template would make {size} characters or items where {self.size} are allowed;"
                " see [render] max_output_ratio and max_output_floor"
            )
        self.charge((size >> 4) + 1)

    def pieces(self, pieces: Iterable[str]) -> tuple[str, ...]:
        """Return `pieces` as a tuple, charged for the text they are about to become."""
        pieces = tuple(pieces)
        self.made(sum(map(len, pieces)))
        return pieces

    def weigh(self, value: Any, *, per_item: int = 0, per_level: int = 0) -> int:
        """Charge for walking `value` to the end, however often it repeats itself; return its weight.

        That is its characters, and one for every value in it: close to its size when written out. `per_item` is added for
        each value, and `per_level` for each container around it.
        """
        total = depth = 0
        level = [value]
        while level:
            steps = 0
            total += len(level) * (1 + per_item + per_level * depth)
            inner: list[Any] = []
            for item in level:
                if isinstance(item, str):
                    total += len(item)
                    continue
                if isinstance(item, MAPPINGS):
                    inner += item
                    inner += item.values()
                elif isinstance(item, SEQUENCES):
                    inner += item
                elif isinstance(item, range):
                    total += len(item)
                elif isinstance(item, Namespace):
                    inner.append(item._Namespace__attrs)
                else:
                    continue
                steps += 1
                if total + len(inner) > self.size:
                    self.made(total + len(inner))
            self.charge(steps)
            depth += 1
            if depth > MAX_DEPTH:
                raise LimitError(f"the template nests containers more than {MAX_DEPTH} deep")
            level = inner
        self.made(total)
        return total

    def walked(self, value: Any) -> Any:
        """Return `value`, charged for being looked at from end to end."""
        if isinstance(value, str):
            self.steps -= len(value) >> 4
            if self.steps < 0:
                self.charge(0)
        elif value is not None and not isinstance(value, (int, float)):
            self.weigh(value)
        return value

    def searched(self, value: Any) -> Any:
        """Return `value`, charged for what `in` walks of it."""
        if isinstance(value, MAPPINGS):
            return value
        return map(self.walked, self.each(value)) if isinstance(value, Iterator) else self.walked(value)

    def result(self, value: Any) -> Any:
        """Return `value`, charged for its size where it has one."""
        size = 0
        if isinstance(value, SIZED):
            size = len(value)
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise LimitError(f"the template makes a number of more than {MAX_BITS} bits")
        self.steps -= (size >> 4) + 1
        if size > self.size or self.steps < 0:
            self.made(size)
        return value

    def each(self, iterable: Any, weight: int = 1) -> Any:
        """Return `iterable`, charged `weight` for each item: at once, or one by one where their number is unknown."""
        if isinstance(iterable, COUNTED):
            self.charge(len(iterable) * weight)
            return iterable
        return self._counted(iterable, weight) if isinstance(iterable, Iterator) else iterable

    def _counted(self, items: Iterator[Any], weight: int) -> Iterator[Any]:
        for item in items:
            self.charge(weight)
            yield item

    def width(self, width: Any) -> None:
        """Charge for a padding or precision; refuse one that no chat needs."""
        if isinstance(width, int):
            if abs(width) > MAX_WIDTH:
                raise LimitError(f"the template asked for a width of {width:.3g}; at most {MAX_WIDTH} is allowed")
            self.made(abs(width))
