"""The values in an array, or one after the other in a file: where each begins and ends, and where a broken one ends.

This is the definition; pipeline.source.elements_kernel walks large files by the same rules, and a test holds it to them.
"""

import re
from collections.abc import Generator, Iterator
from typing import Final, Literal, NamedTuple

BLANK: Final = b" \t\r\n"
DEEPEST: Final = 1024
"""Levels of brackets whose kinds are remembered; below them, any closing bracket closes any opening one."""
_OTHER: Final = rb'|[\[\]{},]|[^ \t\r\n\[\]{},"]+'
_ON_A_LINE: Final = re.compile(rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+("?)' + _OTHER)
_ON_LINES: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)' + _OTHER, re.DOTALL)
_OPENING: Final = {b"]": b"[", b"}": b"{"}

Between = Literal["array", "document"]
"""What stands between values: commas, until a bracket closes the array; or blanks."""


class Element(NamedTuple):
    """One value, whether it can be read or not."""

    begin: int
    end: int
    decided: int
    """Up to where one had to read to know that it ends. A walk that begins there finds all that follows; one that ends there, all
    up to it."""


class Elements:
    """The values in `data`, in order; after the last, `is_torn` says whether an array lacks its closing bracket.

    Values of an array are what stands between commas outside all brackets; of a document, what stands between blanks. A
    bracket of the wrong kind, or one too many, does not carry over into the next value.

    `indent` is what stands before values that begin a line, None if they do not. A value that cannot be JSON, because a
    line ends inside a string, or a bracket opens where none can, ends where the next line begins with just that and a
    bracket, after a line that ends with a closing bracket, or with one and a comma. So does a value of more than `cap`
    bytes, which is not read anyway. All others are never parted, whatever their lines look like.

    `is_last` says that `data` ends where the file does; else a bracket at its end does not close the array.
    """

    def __init__(self, data: bytes, between: Between, indent: bytes | None, cap: int, *, is_last: bool = True) -> None:
        self._data, self._is_array, self._indent, self._cap = data, between == "array", indent, cap
        self._may_close = self._is_array and is_last
        self.is_torn = False

    def __iter__(self) -> Iterator[Element]:
        position: int | None = 0
        while position is not None:
            position = yield from self._walk(position)

    def _walk(self, position: int) -> Generator[Element, None, int | None]:  # noqa: C901 - one state machine
        """Yield values from `position` on; return where the one after a broken one begins, None at the end."""
        data, pattern = self._data, _ON_LINES if self._indent is None else _ON_A_LINE
        stack: list[bytes] = []
        begin = end = closing = -1  # of the value under way, if begin >= 0; after a bracket that closes the array
        before = b""
        while match := pattern.search(data, position):
            start, position = match.span()
            token = match[0]
            if begin >= 0 and not stack and not self._is_array and (line := data.find(b"\n", end, start)) >= 0:
                yield Element(begin, end, line)
                begin = -1
            if closing >= 0:  # it closed nothing: something follows
                begin, end, closing = (begin if begin >= 0 else closing - 1), closing, -1
            if begin >= 0 and token in (b"[", b"{") and self._is_next(start):
                after = b":" if stack[-1:] == [b"{"] else b"[,"
                if not stack or (stack[-1] and before not in after) or start - begin > self._cap:
                    yield Element(begin, end, start)
                    return start
            if token == b"," and not stack:
                if begin >= 0:
                    yield Element(begin, end, start)
                begin = -1
                continue
            if token == b"]" and not stack and self._may_close:
                closing = position
                continue
            begin = begin if begin >= 0 else start
            if token[:1] == b'"' and not match[1]:
                after_it = self._next_value(position)
                yield Element(begin, self._content_end(after_it or len(data)), after_it or len(data))
                return after_it
            end, before = position, token[-1:]
            if token in (b"[", b"{"):
                stack.append(token if len(stack) < DEEPEST else b"")
            elif stack and token in _OPENING:
                _close(stack, _OPENING[token])
                if not stack and not self._is_array:
                    yield Element(begin, end, position)
                    begin = -1
        if begin >= 0:
            line = -1 if stack or self._is_array else data.find(b"\n", end)
            yield Element(begin, end, line if line >= 0 else len(data))
        self.is_torn = self._is_array and closing < 0 and not stack
        return None

    def _next_value(self, position: int) -> int | None:
        """Return where the first line at or after `position` begins that may be that of the next value."""
        if self._indent is None:
            return None
        for match in re.finditer(rb"\n" + re.escape(self._indent) + rb"(?=[\[{])", self._data[position:]):
            if self._is_next(position + match.end()):
                return position + match.end()
        return None

    def _is_next(self, start: int) -> bool:
        if self._indent is None or not self._data.endswith(b"\n" + self._indent, 0, start):
            return False
        last = self._content_end(start)
        if self._data[last - 1 : last] == b",":
            last = self._content_end(last - 1)
        return self._data[max(last - 1, 0) : last] in (b"]", b"}")

    def _content_end(self, end: int) -> int:
        while end and self._data[end - 1] in BLANK:
            end -= 1
        return end


def _close(stack: list[bytes], opening: bytes) -> None:
    """Take the bracket that a closing one closes off the stack, and those that were opened in it; nothing if there is none."""
    if not stack[-1]:
        stack.pop()
    elif opening in stack:
        while stack.pop() != opening:
            pass


def indent_of(head: bytes, between: Between) -> bytes | None:
    """Return what stands before values that begin a line, as the first or the second of them shows; None if they do not.

    `head` begins inside the array.
    """
    if between == "document":
        return b""
    position = 0
    for _ in range(2):
        match = re.compile(rb"[ \t\r\n]*\n([ \t]{0,64})[\[{]").match(head, position)
        if match:
            return match[1]
        first = next(iter(Elements(head, between, None, len(head))), None)
        if first is None or head[first.decided : first.decided + 1] != b",":
            return None
        position = first.decided + 1
    return None
