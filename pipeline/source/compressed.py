"""Compressed files, unpacked as they are read: nothing is held of them but the bytes asked for."""

import zlib
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from pipeline.source.opening import Counted

_PACKED: Final = 1 << 17
_MAGIC: Final = b"\x1f\x8b"


class Gzip:
    """The bytes in a gzip file of any number of members.

    Where the file is cut off or damaged, the bytes before are given, and then `broken` says what is wrong.
    """

    def __init__(self, raw: Counted) -> None:
        self._raw = raw
        self._packed = b""
        self._member = zlib.decompressobj(31)
        self._is_begun = False
        self.broken: str | None = None

    def read(self, n: int) -> bytes:
        """Return the next bytes, at most n; none at the end."""
        while self.broken is None:
            if self._member.eof:
                self._member, self._is_begun = zlib.decompressobj(31), False
            if not self._packed:
                self._packed = self._raw.read(_PACKED)
            if not self._is_begun:
                self._packed = self._packed.lstrip(b"\0")  # padding, which gzip lets pass too
            if not self._packed:
                # at the end of its input, inflate may still hold bytes that did not fit the last answer
                data = self._member.decompress(b"", n) if self._is_begun else b""
                if not data and self._is_begun and not self._member.eof:
                    self.broken = "the gzip file ends too early: it was cut off"
                return data
            self._is_begun = True
            if data := self._unpacked(n):
                return data
        return b""

    def _unpacked(self, n: int) -> bytes:
        before = self._member.copy()
        try:
            data = self._member.decompress(self._packed, n)
        except zlib.error as error:
            self.broken = f"the gzip file is damaged: {_words(error)}"
            return self._up_to_the_error(before)
        self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return data

    def _up_to_the_error(self, member: "zlib._Decompress") -> bytes:
        """Return what can be had of a stretch that holds an error: a packed byte at a time."""
        found = []
        try:
            for i in range(len(self._packed)):
                found.append(member.decompress(self._packed[i : i + 1]))  # noqa: PERF401 - what came before an error counts
        except zlib.error:
            pass
        return b"".join(found)


class Zstd:
    """The bytes in a zstd file of any number of frames; `broken` as of Gzip."""

    def __init__(self, raw: Counted, reopen: Callable[[], Counted]) -> None:
        self._raw, self._reopen = raw, reopen
        self._stream = _zstd(raw)
        self._given = 0
        self._last = b""
        self.broken: str | None = None

    def read(self, n: int) -> bytes:
        """Return the next bytes, at most n; none at the end."""
        if self.broken is None:
            try:
                data: bytes = self._stream.read(n)
            except OSError as error:
                if self._raw.error is not None:
                    raise self._raw.error from None
                self.broken = f"the zstd file is cut off or damaged: {error}"
                self._last = self._up_to_the_error(n)
            else:
                self._given += len(data)
                return data
        data, self._last = self._last[:n], self._last[n:]
        return data

    def _up_to_the_error(self, n: int) -> bytes:
        """Return the bytes that the call which failed had already unpacked: what it read is read again, in sips."""
        with self._reopen() as raw:
            stream = _zstd(_Sips(raw, self._raw.done - 2 * _PACKED))
            found = bytearray()
            try:
                while self._given:
                    self._given -= len(stream.read(min(self._given, 1 << 20)))
                while len(found) < n and (byte := stream.read(1)):
                    found += byte
            except OSError:
                if raw.error is not None:
                    raise raw.error from None
            return bytes(found)


class _Sips:
    """A file that gives few bytes at a time from somewhere on, so that an error costs few."""

    def __init__(self, raw: Counted, start: int) -> None:
        self._raw, self._start = raw, start
        self.closed = False

    def read(self, n: int) -> bytes:
        """Return the next bytes, at most n."""
        return self._raw.read(min(n, max(self._start - self._raw.done, 16)))

    def close(self) -> None:
        """Close nothing: who opened the file does, and pyarrow writes to the terminal where it cannot ask for it."""
        self.closed = True


def _zstd(raw: Counted | _Sips) -> pa.CompressedInputStream:
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")


def _words(error: zlib.error) -> str:
    """Return what zlib found, without its number."""
    return str(error).rpartition(": ")[2]
