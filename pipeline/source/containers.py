"""What a text file consists of, as its beginning shows: lines, one array, records over several lines, or one record."""

import json
from typing import Any, Final

from pipeline.source.chunk import SourceError
from pipeline.source.cutting import BLANK, BLOCK, BOM, Container
from pipeline.source.elements import Elements

_SPEAKERS: Final = (("role", "content"), ("from", "value"))
_WIDE: Final = (
    (b"\xff\xfe\0\0", "UTF-32LE"),
    (b"\0\0\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
)
_NULS: Final = {
    "UTF-16LE": (False, True) * 4,
    "UTF-16BE": (True, False) * 4,
    "UTF-32LE": (False, True, True, True) * 2,
    "UTF-32BE": (True, True, True, False) * 2,
}
"""Which of the first bytes are NUL in a text that begins with ASCII characters, as JSON does."""
_DECODER: Final = json.JSONDecoder(parse_int=str)
"""Leaves whole numbers as they are: Python refuses to read long ones, which are JSON all the same."""
_NEAR_THE_END: Final = 8
"""Characters before the end of a text in which what is cut off there may be found wrong."""


def enough(head: bytes, cap: int) -> bool:
    """Return whether `head` is all that container_of asks for: two lines, or more than a record may have."""
    return len(head) > cap + BLOCK or (len(head) >= BLOCK and head.count(b"\n") > 1)


def container_of(head: bytes, name: str) -> Container:
    """Return what the file that begins with `head` consists of.

    A file that begins with a bracket is an array, unless its first line is a list of its own and more lines follow; an
    array of turns is one conversation. A file that begins with a brace is a document if its first value goes on over
    several lines. In a file whose name says lines (.jsonl, .ndjson) one broken first line must not decide: there, what goes
    on over several lines must be right as far as it can be seen.
    """
    text = head.removeprefix(BOM).lstrip(BLANK)
    if text[:1] not in (b"[", b"{"):
        return "lines"
    first, second = _two_lines(text)
    says_lines = ".json." not in f"{name}." or name.endswith((".jsonl", ".ndjson"))
    if _is_json(first):
        if second or text[:1] == b"{":
            return "lines"
        return "whole" if _holds_turns(text) else "array"
    if text[:1] == b"{":
        return "document" if _goes_on(text, second, says_lines=says_lines) else "lines"
    is_array = not second or not says_lines or (not _is_json(second) and _begins_well(text)) or _is_element(second)
    if not is_array:
        return "lines"
    return "whole" if _holds_turns(text) else "array"


def refuse_wide(head: bytes, path: str) -> None:
    """Raise SourceError for a text of two or four bytes a character."""
    nul = tuple(not byte for byte in head[: len(_NULS["UTF-16LE"])])
    found = next((name for mark, name in _WIDE if head.startswith(mark)), None)
    found = found or next((name for name, nuls in _NULS.items() if nul == nuls), None)
    if found:
        name, _, kind = path.rpartition(".")  # the ending says how the converted file is read, too
        raise SourceError(
            f"{path}: its text is {found}; expected UTF-8. Convert it: iconv -f {found} -t UTF-8 {path} > {name}-utf8.{kind}"
        )


def _two_lines(text: bytes) -> tuple[bytes, bytes]:
    found: list[bytes] = []
    position = 0
    while len(found) < 2 and position < len(text):
        end = text.find(b"\n", position) + 1 or len(text)
        if line := text[position:end].strip(BLANK):
            found.append(line)
        position = end
    return (*found, b"", b"")[0], (*found, b"", b"")[1]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return True


def _is_element(line: bytes) -> bool:
    """Tell whether a line is an element of an array, with the comma after it."""
    return line.endswith(b",") and _is_json(line[:-1])


def _goes_on(text: bytes, second: bytes, *, says_lines: bool) -> bool:
    """Tell whether the value at the beginning goes on over several lines, and is right as far as it can be seen."""
    characters = text.decode("utf-8", "replace")
    try:
        _, end = _DECODER.raw_decode(characters)
    except json.JSONDecodeError as error:
        is_cut = error.pos >= len(error.doc.rstrip()) - _NEAR_THE_END or error.msg.startswith("Unterminated string")
        return is_cut and bool(second) and not _is_json(second)
    except RecursionError:
        return False
    return "\n" in characters[:end] and not (says_lines and _is_json(second))


def _begins_well(text: bytes) -> bool:
    try:
        _DECODER.decode(text.decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc.rstrip()) - _NEAR_THE_END or error.msg.startswith("Unterminated string")
    except RecursionError:
        return False
    return True


def _holds_turns(text: bytes) -> bool:
    """Tell whether the elements of an array are the turns of one conversation, as the first shows."""
    inside = text[1:]
    first = next(iter(Elements(inside[:BLOCK], "array", None, BLOCK)), None)
    try:
        value: Any = json.loads(inside[first.begin : first.end], parse_int=str) if first else None
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and any(key in value and said in value for key, said in _SPEAKERS)


__all__ = ["container_of", "enough", "refuse_wide"]
