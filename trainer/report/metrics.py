"""metrics.jsonl and samples.jsonl: append-only while a run lives, cut back to the checkpoint when it resumes."""

import errno
import os
from pathlib import Path
from typing import Any

import msgspec

from schemas.files import write_whole
from schemas.metrics import Metrics


def append(path: Path, record: msgspec.Struct | dict[str, Any]) -> None:
    """Add one JSON line, in a single write. Raises OSError if not all of it could be written."""
    line = msgspec.json.encode(record) + b"\n"
    with path.open("ab", buffering=0) as stream:
        if stream.write(line) != len(line):  # as much as there was room for
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def read_metrics(path: Path) -> list[Metrics]:
    """Return the lines of `path` in order; none if it is not there. What a crash or a hand has spoilt is passed over."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    decoder = msgspec.json.Decoder(Metrics)
    try:
        return decoder.decode_lines(data)
    except msgspec.DecodeError:
        pass
    lines = []
    for line in data.splitlines():
        try:
            lines.append(decoder.decode(line))
        except msgspec.DecodeError:
            continue
    return lines


def replace_last(path: Path, record: msgspec.Struct) -> None:
    """Put `record` in the place of the last line, so that a crash leaves either."""
    before = path.read_bytes().splitlines(keepends=True)[:-1]
    write_whole(path, b"".join(before) + msgspec.json.encode(record) + b"\n")


def cut_after(path: Path, step: int) -> None:
    """Remove every line whose step is later than `step`, and a line that a crash left unfinished."""
    if not path.exists():
        return
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            at = msgspec.json.decode(line)["step"]
        except (msgspec.DecodeError, KeyError, TypeError):
            continue
        if line.endswith(b"\n") and at <= step:
            kept.append(line)
    write_whole(path, b"".join(kept))
