"""The file of predictions: one JSON object a line, continued where it was left, in the order of the records."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pipeline.prompts import Record
from schemas.files import write_whole
from schemas.settings import ConfigError
from stages.ingest.messages import Message


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line."""

    id: str
    """Of the record: <file as given>:<line>."""
    messages: list[dict[str, Any]] = []
    """The prompt."""
    tools: msgspec.Raw | None = None
    prediction: str | None = None
    """What the model wrote, without the stop token."""
    expected: str | dict[str, Any] | None = None
    """The answer that the record had: its text, or the whole message where that is more."""
    finish: str | None = None
    """stop: it ended on a stop token; length: at the longest answer, or where the model's positions end."""
    n_prompt_tokens: int | None = None
    n_tokens: int | None = None
    """Of the prediction, without the stop token."""
    notes: tuple[str, ...] = ()
    """What the chat template left out of the prompt."""
    error: str | None = None
    """Why there is no prediction."""
    settings: str
    """Hash of the model and of how it was asked: a file is continued with the same alone."""


class _Line(NamedTuple):
    """Where a prediction stands in the file, and to what prompt."""

    prompt: bytes
    start: int
    end: int


class _Read(msgspec.Struct):
    """What is read of a line to continue."""

    id: str
    settings: str
    messages: msgspec.Raw = msgspec.Raw(b"[]")
    tools: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


class Predictions:
    """The file at `path`, open for more; what is in it from the same `settings` is kept.

    Raises ConfigError where it holds something else.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self.path, self.settings = path, settings
        self._lines: dict[str, _Line] = {}
        self._file = path.open("ab+")
        try:
            self._end = self._read()
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(self._end)  # what a killed process had begun to write

    def _read(self) -> int:
        """Note every line with a prediction; return where the last whole line ends."""
        self._file.seek(0)
        at = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                found = msgspec.json.decode(line, type=_Read)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise ConfigError(
                    f"{self.path}:{number}: no prediction of this command; name another file (--output), or give --fresh to "
                    "write this one anew"
                ) from None
            if found.settings != self.settings:
                raise ConfigError(
                    f"{self.path}:{number}: the predictions in this file are of another model or other settings "
                    f"({found.settings}, now {self.settings}); name another file (--output), or give --fresh to write this "
                    "one anew"
                )
            end = at + len(line)
            if found.error is None:
                self._lines[found.id] = _Line(_digest(bytes(found.messages), bytes(found.tools)), at, end)
            at = end
        return at

    def holds(self, record: Record) -> bool:
        """Tell whether the file has a prediction for a record, prompt and all."""
        line = self._lines.get(record.id)
        return line is not None and line.prompt == _digest(*_prompt_of(record))

    def add(self, record: Record, **values: Any) -> None:
        """Append the line of `record`; it is in the file when this returns."""
        messages, tools = [plain(said) for said in record.messages], record.tools
        line = msgspec.json.encode(
            Prediction(
                id=record.id,
                messages=messages,
                tools=None if tools is None else _on_one_line(tools),
                expected=None if record.expected is None else _expectation(record.expected),
                settings=self.settings,
                **values,
            )
        )
        self._file.write(line + b"\n")
        self._file.flush()
        end = self._end + len(line) + 1
        self._lines[record.id] = _Line(_digest(*_prompt_of(record)), self._end, end)
        self._end = end

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def put_in_order(self, ids: Sequence[str]) -> None:
        """Bring the lines into the order of `ids`, those of other records behind them, and leave out what was replaced."""
        wanted = [self._lines[id_] for id_ in dict.fromkeys((*ids, *self._lines)) if id_ in self._lines]
        at = 0
        for line in wanted:
            if line.start != at:
                break
            at = line.end
        if at == self._end:
            return
        data = self.path.read_bytes()
        write_whole(self.path, b"".join(data[line.start : line.end] for line in wanted))


def plain(said: Message) -> dict[str, Any]:
    """Return a message with the keys that it has; calls as they were written."""
    values = {key: value for key, value in said._asdict().items() if value is not None and key != "weight"}
    if said.tool_calls is not None:
        values["tool_calls"] = _on_one_line(said.tool_calls)
    return values


def _expectation(said: Message) -> str | dict[str, Any]:
    values = plain(said)
    return said.content if said.content is not None and set(values) == {"role", "content"} else values


def _prompt_of(record: Record) -> tuple[bytes, bytes]:
    tools = b"null" if record.tools is None else bytes(_on_one_line(record.tools))
    return msgspec.json.encode([plain(said) for said in record.messages]), tools


def _on_one_line(text: str) -> msgspec.Raw:
    """Return JSON text without white space between its parts; numbers and strings stay as they were written."""
    return msgspec.Raw(msgspec.json.format(text.encode(), indent=-1))


def _digest(messages: bytes, tools: bytes) -> bytes:
    return hashlib.sha256(messages + b"\0" + tools).digest()[:16]
