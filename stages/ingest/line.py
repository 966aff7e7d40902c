"""One line of input: its JSON value, and the very text that any part of it was written with."""

from typing import Any, Final, TypeAlias

import msgspec

from stages.ingest.decode import BOM, decode_line
from stages.ingest.mapping import Mapping

Path: TypeAlias = tuple[str | int, ...]
"""Keys and positions that lead from a record to a value in it."""

_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Line:
    """A strictly decoded line; raises LineError (see decode_line) when made of one that cannot be."""

    def __init__(self, raw: bytes, max_depth: int, mapping: Mapping | None = None, input_border: str = "\n") -> None:
        self.max_depth = max_depth
        self.input_border = input_border
        """What stands between an instruction and its input, where a record keeps them apart."""
        self.mapping = mapping
        """Where the user says that the parts of records stand."""
        self.value: Any = decode_line(raw, max_depth=max_depth)
        self._raw = raw.removeprefix(BOM)
        self._names: dict[Path, Path] = {}
        self._opened: dict[Path, dict[str, msgspec.Raw] | list[msgspec.Raw]] = {}

    @property
    def size(self) -> int:
        """Return how many bytes it has."""
        return len(self._raw)

    def verbatim(self, *path: str | int) -> str:
        """Return the JSON text at `path`, byte for byte: `1.10`, `1E5` and escapes stay as they were written.

        The path leads through objects (keys) and arrays (positions) that are there. Every container on the way is
        opened once, so a line of many calls is not read again for each.
        """
        return bytes(self._at(path)).decode()

    def name(self, path: Path, real: Path) -> None:
        """Let `path` stand for `real`, where a reader knows a key by another name."""
        if path != real:
            self._names[path] = real

    def _at(self, path: Path) -> bytes | msgspec.Raw:
        if not path:
            return self._raw
        if path in self._names:
            return self._at(self._names[path])
        parent, step = path[:-1], path[-1]
        opened = self._opened.get(parent)
        if opened is None:
            inside = self._at(parent)
            opened = self._opened[parent] = _object(inside) if isinstance(step, str) else _array(inside)
        return opened[step]  # type: ignore[index]  # a step fits what it leads through


def where(path: Path) -> str:
    """Return `path` as users read it: messages[3].tool_calls."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def members(text: str) -> dict[str, str]:
    """Return the members of the JSON object in `text`, each as it is written."""
    return {key: bytes(value).decode() for key, value in _object(text).items()}


def elements(text: str) -> list[str]:
    """Return the elements of the JSON array in `text`, each as it is written."""
    return [bytes(value).decode() for value in _array(text)]
