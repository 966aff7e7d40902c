"""Raw records of input files, each under its own field names, as they stand in the file."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.source import Source, expand, identity, read_chunk, scan
from schemas.reasons import DropReason
from schemas.settings import ConfigError
from stages.ingest.decode import BOM, MAX_DEPTH, LineError, decode_line

_STEP: Final = re.compile(r"[^.\[\]]+")
_LINE_ENDS: Final = re.compile(rb"[\r\n]+")


class Record(NamedTuple):
    """One record that can be read, or what is wrong with it."""

    row: int
    """0-based, over all files; a record that cannot be read has a number too, so that it shifts no other's."""
    id: str
    """<path as given>:<line>; in an array, the number of the element, from 1."""
    raw: bytes
    value: Any
    """An object, or a list for lines that are conversations of themselves; None if it cannot be read."""
    problem: str | None


def read_records(inputs: Sequence[str]) -> Iterator[Record]:
    """Yield every record of the files in order; in memory is one chunk of a file at a time.

    Raises ConfigError or SourceError for a file that cannot be read.
    """
    config = Source()
    row = 0
    with tempfile.TemporaryDirectory(prefix="chatloom-") as spool:
        for path in expand(inputs)[0]:
            for chunk in scan(path, config, Path(spool)):
                lines = read_chunk(chunk, config).select("source", "line", "raw", "skip")
                for source, line, raw, skip in lines.iter_rows():
                    value, problem = _decoded(raw, skip, config)
                    yield Record(row, f"{source}:{line}", raw or b"", value, problem)
                    row += 1


def _decoded(raw: bytes | None, skip: str | None, config: Source) -> tuple[Any, str | None]:
    if skip == DropReason.LINE_TOO_LONG:
        return None, f"longer than {config.max_line_bytes:,} bytes"
    if raw is None or skip is not None:
        return None, skip
    try:
        value = decode_line(raw, max_depth=MAX_DEPTH)
    except LineError as error:
        return None, str(error)
    if not isinstance(value, dict | list):
        return None, f"not a record: expected a JSON object or list, got {type(value).__name__}"
    return value, None


def at(record: Any, field: str) -> tuple[bool, Any]:
    """Return (whether the record has the field, its value): a key of its own, or a path such as messages[0].content."""
    if isinstance(record, dict) and field in record:
        return True, record[field]
    value: Any = record
    for step in _STEP.findall(field):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return False, None
    return True, value


def text_paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every text in a record, in order."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from text_paths(member, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for position, member in enumerate(value):
            yield from text_paths(member, f"{path}[{position}]")


def joined(raws: Sequence[bytes], name: str) -> bytes:
    """Return records as one file of the kind that its name says: an array for .json, lines for .jsonl and .ndjson.

    Records keep their bytes; only line ends inside a record, which can stand between its parts alone, become spaces where
    a record must be one line.
    """
    records = [raw.removeprefix(BOM).strip(b" \t\r\n") for raw in raws]
    if name.endswith(".json"):
        return b"[\n" + b",\n".join(records) + b"\n]\n"
    return b"".join(_LINE_ENDS.sub(b" ", record) + b"\n" for record in records)


def check_output(output: str, inputs: Sequence[str]) -> None:
    """Raise ConfigError unless records can be written to `output` without touching an input."""
    path = Path(output)
    if not output.endswith((".json", ".jsonl", ".ndjson")):
        raise ConfigError(f"--output {output}: expected a name that ends with .json, .jsonl or .ndjson")
    if not path.parent.is_dir():
        raise ConfigError(f"--output {output}: there is no directory {path.parent}; make it first")
    if path.is_dir():
        raise ConfigError(f"--output {output}: this is a directory; name a file in it")
    if path.exists() and any(identity(output) == identity(name) for name in expand(inputs)[0]):
        raise ConfigError(f"--output {output}: this is an input, which is never overwritten; name another file")


__all__ = ["Record", "at", "check_output", "joined", "read_records", "text_paths"]
