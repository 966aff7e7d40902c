"""Where a stream of bytes can be cut into chunks, as it goes by: after lines, or between values."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from pipeline.source.elements import BLANK

BLOCK: Final = 1 << 20
BOM: Final = b"\xef\xbb\xbf"
PARTS: Final = 16
"""Of a shard: the smallest that the end of a file is cut into is one of so many."""

Container = Literal["lines", "array", "document", "whole"]
"""Lines; one array of records; records one after the other, over any number of lines; or one record that is all of the file."""
Read = Callable[[int], bytes]
"""Gives the next bytes of a stream, at most so many; none at the end."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A stretch of a file: whole lines, or whole records."""

    start: int
    end: int
    line: int
    """Number of its first line or record, from 1."""
    sha256: str
    n_elements: int
    """Its records, or lines, blank ones too."""
    held: bytes | bytearray
    """Its first bytes, as many as are ever read of it: see most_held."""
    torn: str | None = None
    """Why the file ends here though it should not."""
    is_last: bool = False


def most_held(shard_bytes: int, cap: int) -> int:
    """Return how many bytes are read of a chunk at most: a shard, one record that is not too long, and a line end."""
    return shard_bytes + cap + 2


class Held:
    """The bytes of a chunk as they come: all of them are counted and hashed, the first `limit` are kept."""

    def __init__(self, start: int, limit: int) -> None:
        self.start, self.size = start, 0
        self.data = bytearray()
        self._limit = limit
        self._state = hashlib.sha256()

    @property
    def end(self) -> int:
        """Return where it ends by now."""
        return self.start + self.size

    def add(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._state.update(data)
        self.size += len(data)
        if (room := self._limit - len(self.data)) > 0:
            self.data += data[:room]

    def cut(self, line: int, n_elements: int, torn: str | None = None, *, is_last: bool = False) -> Cut:
        """Return the stretch that its bytes are."""
        return Cut(
            start=self.start,
            end=self.end,
            line=line,
            sha256=self._state.hexdigest(),
            n_elements=n_elements,
            held=self.data,
            torn=torn,
            is_last=is_last,
        )


def cut_lines(read: Read, shard_bytes: int, cap: int) -> Iterator[Cut]:
    """Yield stretches that cover the file and end with lines, each with the first that ends at or beyond `shard_bytes`.

    What follows the last of these is cut, by the same rule, after a half, a quarter, an eighth and a sixteenth of that, as
    far as it goes: so what is appended to a file changes little of what was there, and a file has four chunks more at most.
    """
    start, line = 0, 1
    block, at = b"", 0
    while True:
        held = Held(start, most_held(shard_bytes, cap))
        borders: list[tuple[int, int]] = []  # (bytes, lines) up to the end of a line at or beyond each sixteenth
        n_lines, last = 0, b"\n"
        while len(borders) < PARTS:
            if at == len(block):
                block, at = read(BLOCK), 0
            if not block:
                break
            counted, offset = at, at - held.size  # of the chunk's first byte in the block
            while len(borders) < PARTS:
                goal = shard_bytes * (len(borders) + 1) // PARTS
                found = block.find(b"\n", max(at, goal - 1 + offset))
                if found < 0:
                    break
                n_lines += block.count(b"\n", counted, found + 1)
                counted = found + 1
                borders.append((found + 1 - offset, n_lines))
            end = counted if len(borders) == PARTS else len(block)
            n_lines += block.count(b"\n", counted, end)
            held.add(memoryview(block)[at:end])
            at, last = end, block[end - 1 : end]
        if not held.size:
            return
        n_lines += last != b"\n"
        if len(borders) < PARTS and held.size < shard_bytes:
            yield from cut_tail(held, borders, n_lines, line)
        else:
            yield held.cut(line, n_lines)
        start += held.size
        line += n_lines


def cut_tail(held: Held, borders: list[tuple[int, int]], n_lines: int, line: int) -> Iterator[Cut]:
    """Yield the end of a file, less than a shard, in parts of a half, a quarter, an eighth and a sixteenth, as far as it goes.

    `borders` are the bytes and lines up to where it could be cut, at or beyond each of as many PARTS as it has.
    """
    cuts = [(0, 0)]
    part = PARTS // 2
    place = 0
    while part:
        if len(borders) & part:
            place += part
            cuts.append(borders[place - 1])
        part //= 2
    cuts.append((held.size, n_lines))
    for (low, before), (high, after) in pairwise(cuts):
        if high > low:
            data = held.data[low:high]
            yield Cut(
                start=held.start + low,
                end=held.start + high,
                line=line + before,
                sha256=hashlib.sha256(data).hexdigest(),
                n_elements=after - before,
                held=data,
            )


def cut_whole(read: Read, shard_bytes: int, cap: int) -> Iterator[Cut]:
    """Yield the file as one stretch that is one record."""
    held = Held(0, most_held(shard_bytes, cap))
    while block := read(BLOCK):
        held.add(block)
    yield held.cut(1, 1, is_last=True)


__all__ = [
    "BLANK",
    "BLOCK",
    "BOM",
    "PARTS",
    "Container",
    "Cut",
    "Held",
    "Read",
    "cut_lines",
    "cut_tail",
    "cut_whole",
    "most_held",
]
