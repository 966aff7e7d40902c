"""The bytes of a file, wherever it lies, from the first to the last or from the middle."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, Self

import pyarrow as pa

from pipeline.source.chunk import SourceError
from pipeline.source.urls import is_url

COMPRESSED: Final = (".gz", ".zst")


def kinds_of(suffixes: tuple[str, ...]) -> str:
    """Return the kinds of files in words, and how each may be packed."""
    plain = [suffix for suffix in suffixes if not suffix.endswith(COMPRESSED)]
    packed = [suffix for suffix in COMPRESSED if plain[0] + suffix in suffixes]
    return ", ".join(plain) + (f", each plain, {' or '.join(packed)}" if packed else "")


class File(Protocol):
    """An open file."""

    def read(self, n: int, /) -> bytes:
        """Return the next bytes, at most n; none at the end."""

    def seek(self, position: int, /) -> int:
        """Go to a position."""

    def close(self) -> None:
        """Close it."""


def open_file(place: str, *, from_start: bool = True) -> tuple[File, int]:
    """Return (the open file at a path or URL, its size in bytes); one that is read from its start need not be able to seek.

    Raises OSError; SourceError for what is no file, and would block.
    """
    if is_url(place):
        from pipeline.source.remote import open_anywhere, open_stream

        return open_stream(place) if from_start else open_anywhere(place)
    path = Path(local(place))
    if not stat.S_ISREG(path.stat().st_mode):
        raise SourceError(
            f"{place}: not a file whose bytes lie on disk (a pipe, a socket or a device); save it to a file first"
        )
    return path.open("rb"), path.stat().st_size


def open_columns(place: str) -> pa.NativeFile:
    """Return the open file at a path or URL, for reading here and there. Raises OSError.

    One on disk is not mapped into memory: if somebody shortens it meanwhile, the system would end the process.
    """
    if is_url(place):
        from pipeline.source.remote import open_anywhere

        return open_anywhere(place)[0]
    return pa.OSFile(local(place))


def local(place: str) -> str:
    """Return the path of a file on disk, which may be one of the hub's cache."""
    if not place.startswith("hf://"):
        return place
    from pipeline.source.hub import place_of

    return place_of(place)


class Counted:
    """An open file that knows how far it has been read, and remembers why it could not be."""

    def __init__(self, file: File, watch: Callable[[int], None] | None = None) -> None:
        self._file, self._watch = file, watch
        self.done = 0
        self.closed = False  # as pyarrow asks
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, n: int = -1, /) -> bytes:
        """Return the next bytes, at most n."""
        try:
            data = self._file.read(n)
            self.done += len(data)
            if self._watch is not None:
                self._watch(self.done)
        except BaseException as error:  # else what reads through pyarrow would take it for the end of the data
            self.error = error
            raise
        return data

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._file.close()


class Ahead:
    """A stream of bytes whose beginning can be looked at before it is read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._head = b""

    def peek(self, n: int) -> bytes:
        """Return the first bytes, at least n unless there are fewer; only before any are read."""
        parts = [self._head]
        size = len(self._head)
        while size < n and (block := self._read(n - size)):
            parts.append(block)
            size += len(block)
        self._head = b"".join(parts)
        return self._head

    def read(self, n: int) -> bytes:
        """Return the next bytes, at most n."""
        if not self._head:
            return self._read(n)
        data, self._head = self._head[:n], self._head[n:]
        return data
