"""Arrays and documents: cut into chunks as they go by, and the records of a chunk."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.source.cutting import BLANK, BLOCK, BOM, Cut, Held, Read, most_held
from pipeline.source.elements import Between, Element, Elements

SMALL: Final = 1 << 18
"""Bytes that are walked sooner than the compiled walk is loaded."""
NO_BRACKET: Final = "the array ends without its closing bracket"


def cut_values(
    read: Read, between: Between, indent: bytes | None, shard_bytes: int, cap: int, *, is_small: bool
) -> Iterator[Cut]:
    """Yield stretches of whole values; each begins where it was known that the one before ended.

    `is_small` says that `read` gives all at once, and little: then nothing compiled is loaded.
    """
    start, block = _inside(read, between)
    walk = _plain_walk if is_small else _compiled_walk
    yield from walk(read, block, start, between, indent, shard_bytes, cap)


def _inside(read: Read, between: Between) -> tuple[int, bytes]:
    """Return (where the values begin, the rest of the first block): behind a byte order mark and an array's bracket."""
    start = 0
    block = read(BLOCK)
    if block.startswith(BOM):
        start, block = len(BOM), block[len(BOM) :]
    while between == "array" and block and not block.lstrip(BLANK):
        start, block = start + len(block), read(BLOCK)
    if between == "array":
        skip = block.find(b"[") + 1
        start, block = start + skip, block[skip:]
    return start, block


def _plain_walk(
    read: Read, block: bytes, start: int, between: Between, indent: bytes | None, shard_bytes: int, cap: int
) -> Iterator[Cut]:
    data = block + b"".join(iter(lambda: read(BLOCK), b""))
    elements = Elements(data, between, indent, cap)
    line, low, count = 1, 0, 0
    for element in elements:
        count += 1
        if element.decided - low >= shard_bytes and element.decided < len(data):
            yield _held(data, start, low, element.decided, shard_bytes, cap).cut(line, count)
            line, low, count = line + count, element.decided, 0
    torn = NO_BRACKET if elements.is_torn else None
    if count or torn:
        yield _held(data, start, low, len(data), shard_bytes, cap).cut(line, count, torn, is_last=True)


def _held(data: bytes, start: int, low: int, high: int, shard_bytes: int, cap: int) -> Held:
    held = Held(start + low, most_held(shard_bytes, cap))
    held.add(data[low:high])
    return held


def _compiled_walk(
    read: Read, block: bytes, start: int, between: Between, indent: bytes | None, shard_bytes: int, cap: int
) -> Iterator[Cut]:
    from pipeline.source.elements_kernel import Walk

    walk = Walk(between, indent, cap)
    held, line, count = Held(start, most_held(shard_bytes, cap)), 1, 0
    base = start  # of the block
    while block:
        at = 0
        while at < len(block):
            found, came = walk.feed(block, at, base, held.start + shard_bytes)
            held.add(memoryview(block)[at:came])
            at = came
            count += len(found)
            if len(found) and int(found[-1, 2]) >= held.start + shard_bytes:
                yield held.cut(line, count)
                line += count
                held, count = Held(base + at, most_held(shard_bytes, cap)), 0
                walk.begin_anew()
        base += len(block)
        block = read(BLOCK)
    count += walk.finish(base) is not None
    torn = NO_BRACKET if walk.is_torn else None
    if count or torn:
        yield held.cut(line, count, torn, is_last=True)


def find_values(data: bytes, between: Between, indent: bytes | None, cap: int, *, is_last: bool) -> NDArray[np.int64]:
    """Return where the values of a chunk begin and end, as rows of two."""
    if len(data) <= SMALL:
        elements: list[Element] = list(Elements(data, between, indent, cap, is_last=is_last))
        return np.array([element[:2] for element in elements], np.int64).reshape(-1, 2)
    from pipeline.source.elements_kernel import Walk

    walk = Walk(between, indent, cap, is_last=is_last)
    parts: list[NDArray[Any]] = []
    at = 0
    while at < len(data):
        found, at = walk.feed(data, at, 0, np.iinfo(np.int64).max)
        parts.append(found[:, :2].copy())
    if (last := walk.finish(len(data))) is not None:
        parts.append(np.array([last[:2]], np.int64))
    return np.concatenate(parts)
