"""What a template may spend on one conversation: counted, never timed, so that a build stays deterministic."""

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary

from jinja2.exceptions import TemplateRuntimeError

MAX_WIDTH: Final = 10_000
"""Most characters that one padding, indent or number format may ask for."""
MAX_DEPTH: Final = 100
"""Most filters that walk each other's results."""
MAX_BITS: Final = 4_096
"""Most bits of an integer that `*` or `**` may make."""


SIZED: Final = (str, bytes, list, tuple, dict)


class LimitError(TemplateRuntimeError):
    """The template asked for more steps, characters or digits than one conversation is granted."""


class Meter:
    """Count the steps and bound the characters of one render.

    A step is one loop iteration, call, filter or operation, plus one for every 16 characters or items that it makes. No
    text or list may grow past `size`. Both together bound the time and the memory of a render.
    """

    __slots__ = ("_depths", "granted", "size", "steps")

    def __init__(self) -> None:
        self._depths: WeakKeyDictionary[Iterator[Any], int] = WeakKeyDictionary()
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

    def weigh(self, value: Any) -> None:
        """Charge for the text that `value` becomes when written out, however deeply it repeats itself."""
        total = steps = 0
        stack = [value]
        while stack and total <= self.size and steps <= self.steps:
            item = stack.pop()
            if isinstance(item, str):
                total += len(item)
            elif isinstance(item, dict):
                stack += item
                stack += item.values()
            elif isinstance(item, (list, tuple, set, frozenset)):
                stack += item
            else:
                total += 1
                continue
            steps += 1
        self.charge(steps)
        self.made(total)

    def result(self, value: Any) -> Any:
        """Return `value`, charged for its size where it has one."""
        size = len(value) if isinstance(value, SIZED) else 0
        self.steps -= (size >> 4) + 1
        if size > self.size or self.steps < 0:
            self.made(size)
        return value

    def each(self, iterable: Any) -> Any:
        """Return `iterable`, charged by its length, or item by item where that is unknown."""
        if isinstance(iterable, (list, tuple, dict, str, range)):
            self.charge(len(iterable))
            return iterable
        return iterable if not isinstance(iterable, Iterator) else self._counted(iterable)

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.charge(1)
            yield item

    def lazily(self, source: Any, made: Any) -> Any:
        """Return `made`, which a filter took from `source`; refuse iterators in iterators, which overflow the stack."""
        if isinstance(source, Iterator) and isinstance(made, Generator):
            depth = self._depths[made] = self._depths.get(source, 0) + 1
            if depth > MAX_DEPTH:
                raise LimitError(
                    f"the template puts more than {MAX_DEPTH} filters one on another without making a list"
                )
        return made

    def width(self, width: Any) -> None:
        """Refuse a padding or precision that no chat needs."""
        if isinstance(width, int) and abs(width) > MAX_WIDTH:
            raise LimitError(f"the template asked for a width of {width}; at most {MAX_WIDTH} is allowed")
