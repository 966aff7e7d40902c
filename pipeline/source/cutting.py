"""Where a file of records can be cut: after lines, or between the elements of one JSON array."""

import hashlib
import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, Literal

BLOCK: Final = 1 << 20
BLANK: Final = b" \t\r\n"
BOM: Final = b"\xef\xbb\xbf"
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]|,|[^\s"\[\]{},]+', re.DOTALL)
_OPENING: Final = {b"]": b"[", b"}": b"{"}

Container = Literal["lines", "array"]


@dataclass(frozen=True)
class Cut:
    """A stretch of a file: whole lines, or whole elements."""

    start: int
    end: int
    line: int
    """Number of its first line or element, from 1."""
    sha256: str
    n_elements: int = 0
    """Elements of an array, or lines, blank ones too."""
    is_torn: bool = False
    """The array ends here without its closing bracket."""


def container_of(file: IO[bytes], name: str, cap: int) -> Container:
    """Return whether `file` is lines or one array.

    A file that begins with a bracket is an array, unless its first line is a list of its own and more lines follow. In
    a file whose name says lines (.jsonl, .ndjson) one broken first line must not decide: it is an array only if the
    second line is no record of its own and the file ends with the closing bracket.
    """
    head = file.read(BLOCK).removeprefix(BOM).lstrip(BLANK)
    file.seek(0)
    if not head.startswith(b"["):
        return "lines"
    first, second = _two_lines(file, cap)
    if _is_json(first):
        return "lines" if second else "array"
    says_lines = ".json." not in f"{name}." or name.endswith((".jsonl", ".ndjson"))
    if says_lines and second and (_is_json(second) or not _ends_with_bracket(file)):
        return "lines"
    return "array"


def _two_lines(file: IO[bytes], cap: int) -> tuple[bytes, bytes]:
    found: list[bytes] = []
    while len(found) < 2 and (line := file.readline(cap)):
        if line.strip(BLANK + BOM):
            found.append(line.removeprefix(BOM))
    file.seek(0)
    return (*found, b"", b"")[0], (*found, b"", b"")[1]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _ends_with_bracket(file: IO[bytes]) -> bool:
    size = file.seek(0, 2)
    file.seek(max(0, size - BLOCK))
    tail = file.read()
    file.seek(0)
    return tail.rstrip(BLANK).endswith(b"]")


def cut_lines(file: IO[bytes], shard_bytes: int) -> Iterator[Cut]:
    """Yield stretches that end at the first line end at or after every `shard_bytes`, and cover the file."""
    start, line = 0, 1
    while True:
        state = hashlib.sha256()
        size = lines = 0
        last = b""
        while size < shard_bytes and (block := file.read(min(BLOCK, shard_bytes - size))):
            state.update(block)
            size += len(block)
            lines += block.count(b"\n")
            last = block[-1:]
        if not size:
            return
        while last != b"\n" and (rest := file.readline(BLOCK)):  # to the end of the line, however long
            state.update(rest)
            size += len(rest)
            last = rest[-1:]
            lines += last == b"\n"
        yield Cut(start, start + size, line, state.hexdigest(), lines + (last != b"\n"))
        start += size
        line += lines


def cut_array(file: IO[bytes], shard_bytes: int) -> Iterator[Cut]:
    """Yield stretches of whole elements; each begins where the one before ended."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(b"[") + 1
        line, count, end = 1, 0, start
        elements = Elements(data, start)
        for end in elements:
            count += 1
            if end - start >= shard_bytes:
                yield Cut(start, end, line, _sha256(data, start, end), count)
                start, line, count = end, line + count, 0
        if count or elements.is_torn:
            yield Cut(start, end, line, _sha256(data, start, end), count, elements.is_torn)


def _sha256(data: mmap.mmap, start: int, end: int) -> str:
    with memoryview(data) as view, view[start:end] as part:
        return hashlib.sha256(part).hexdigest()


class Elements:
    """The ends of the elements in the inside of an array; after the last, `is_torn` says whether its end is missing.

    Elements are what stands between commas outside all brackets. A broken one keeps its bytes, and ingest says what is
    wrong with it; a bracket of the wrong kind, or one too many, does not carry over into the next element.
    """

    def __init__(self, data: bytes | mmap.mmap, position: int) -> None:
        self._data, self._position = data, position
        self.is_torn = False

    def __iter__(self) -> Iterator[int]:
        stack: list[bytes] = []
        has_content = False
        closing: int | None = None  # end of a bracket that closes the array, unless something follows it
        end = self._position
        for match in _TOKEN.finditer(self._data, self._position):
            token = match[0]
            if closing is not None:
                has_content, end, closing = True, closing, None
            if not stack and token == b",":
                if has_content:
                    yield end
                has_content = False
                continue
            if not stack and token == b"]":
                closing = match.end()
                continue
            if token in (b"[", b"{"):
                stack.append(token)
            elif token in _OPENING and _OPENING[token] in stack:
                while stack.pop() != _OPENING[token]:
                    pass
            has_content, end = True, match.end()
        if has_content:
            yield end
        self.is_torn = closing is None and not stack
