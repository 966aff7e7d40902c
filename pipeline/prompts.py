"""Records that wait for an answer: read as a build reads them, written and encoded as a build does."""

import itertools
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl
import pyarrow as pa

from pipeline.served import Served
from pipeline.source import Chunk, Source, expand, read_chunk, scan
from schemas import fields as f
from schemas.reasons import DropReason
from schemas.settings import ConfigError
from stages.ingest import Ingest
from stages.ingest.conversation import adapt_prompt
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Message
from stages.render.prompt import render_prompts
from stages.tokenize import encode_conversations

TOGETHER: Final = 64
"""Prompts that are rendered and encoded in one go."""
STANDARD_INPUT: Final = "stdin"
"""Stands for the file's name in the ids of records from standard input."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record of the input: a prompt, or why it is none."""

    id: str
    """<file as given>:<line>."""
    index: int = 0
    """Its place among all records, from 0."""
    messages: tuple[Message, ...] = ()
    """What comes before the answer."""
    tools: str | None = None
    expected: Message | None = None
    """The answer that the record has."""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A record as the model reads it, up to where it begins to write."""

    record: Record
    input_ids: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    """What the template left out."""
    error: str | None = None


def scan_inputs(inputs: Sequence[str], spool: Path) -> list[Chunk]:
    """Return the chunks of all `inputs`; none means standard input, which is kept in `spool`, as is what is unpacked."""
    if inputs:
        return [chunk for path in expand(inputs)[0] for chunk in scan(path, Source(), spool)]
    if sys.stdin.isatty():
        raise ConfigError("no prompts: name a file of conversations, --input prompts.jsonl, or pipe them in")
    copy = spool / f"{STANDARD_INPUT}.jsonl"
    with copy.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    chunks = scan(str(copy), Source(), spool)
    return [msgspec.structs.replace(chunk, path=STANDARD_INPUT, at=str(copy)) for chunk in chunks]


def count_records(chunks: Sequence[Chunk]) -> int:
    """Return how many records `chunks` hold, good or bad."""
    return sum(read_chunk(chunk, Source()).height for chunk in chunks)


def read_records(chunks: Sequence[Chunk], served: Served) -> Iterator[Record]:
    """Yield the records of `chunks` in order; one that cannot be read says why."""
    config = served.sections["ingest"]
    assert isinstance(config, Ingest)
    frames = (read_chunk(chunk, Source()) for chunk in chunks)
    lines = itertools.chain.from_iterable(frame.select("source", "line", "raw", "skip").iter_rows() for frame in frames)
    for index, (path, line, raw, skip) in enumerate(lines):
        yield _read(raw, skip, config, id_=f"{path}:{line}", index=index)


def _read(raw: bytes | None, skip: str | None, config: Ingest, *, id_: str, index: int) -> Record:
    try:
        if skip is not None and skip != DropReason.LINE_TOO_LONG:
            name, _, detail = skip.partition(": ")
            raise LineError(DropReason(name), detail)
        if raw is None:
            raise LineError(DropReason.LINE_TOO_LONG, f"the line has more than {Source().max_line_bytes:,} bytes")
        found = adapt_prompt(Line(raw, config.max_depth, config.mapping, config.input_border), config.shape)
    except LineError as error:
        return Record(id=id_, index=index, error=str(error))
    messages, expected = tuple(found.messages), None
    if messages and messages[-1].role == "assistant":
        messages, expected = messages[:-1], messages[-1]
    if not messages:
        return Record(id=id_, index=index, error="nothing is asked: there is no message before the answer")
    return Record(id=id_, index=index, messages=messages, tools=found.tools, expected=expected)


def encode_prompts(records: Iterator[Record], served: Served) -> Iterator[Prompt]:
    """Yield each record with its token ids, some at a time, or with the reason that it has none."""
    while some := list(itertools.islice(records, TOGETHER)):
        good = [record for record in some if record.error is None]
        encoded = iter(_encode(good, served))
        for record in some:
            yield Prompt(record=record, error=record.error) if record.error else next(encoded)


def encode_one(messages: Sequence[Message], served: Served) -> Prompt:
    """Return one conversation with its token ids, or the reason that it has none."""
    return _encode([Record(id="conversation", messages=tuple(messages))], served)[0]


def _encode(records: Sequence[Record], served: Served) -> list[Prompt]:
    """Render and encode as a build does: no text of a message becomes a control token."""
    rendered = render_prompts(_frame(records), served.sections["render"], template=served.assets.template)
    is_good = rendered["drop_reason"].is_null()
    tokens = encode_conversations(
        rendered.filter(is_good), served.sections["tokenize"], served.assets.vocabulary
    ).with_columns(notes=rendered.filter(is_good)["notes"])
    prompts: dict[int, Prompt] = {}
    for frame, rows in ((rendered.filter(~is_good), is_good.not_()), (tokens, is_good)):
        for row, values in zip(rows.arg_true(), frame.iter_rows(named=True), strict=True):
            prompts[row] = _prompt(records[row], values)
    return [prompts[row] for row in range(len(records))]


def _prompt(record: Record, values: dict[str, Any]) -> Prompt:
    if values["drop_reason"] is not None:
        detail = f": {values['detail']}" if values["detail"] else ""
        return Prompt(record=record, error=f"{values['drop_reason']}{detail}")
    return Prompt(record=record, input_ids=tuple(values["input_ids"]), notes=tuple(values["notes"]))


def _frame(records: Sequence[Record]) -> pl.DataFrame:
    columns = {
        "id": pa.array([record.id for record in records], pa.string()),
        "messages": pa.array([[said._asdict() for said in record.messages] for record in records], f.MESSAGES.type),
        "tools": pa.array([record.tools for record in records], pa.string()),
    }
    frame = pl.from_arrow(pa.table(columns))
    assert isinstance(frame, pl.DataFrame)
    return frame
