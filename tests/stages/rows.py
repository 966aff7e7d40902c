"""Small tables for the stage tests, written as people read them."""

from typing import Any

import polars as pl

from stages.ingest.conversation import adapt
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Conversation

Segment = tuple[str, str, str, int]
"""(text, class, role, message)"""

TEXT_SPAN = pl.Struct(
    {
        "start": pl.Int32,
        "end": pl.Int32,
        "class": pl.String,
        "role": pl.String,
        "message": pl.Int32,
        "weight": pl.Float32,
    }
)


def chatml(*turns: tuple[str, str]) -> list[Segment]:
    """Return the segments of a ChatML conversation, as the renderer classes them."""
    segments: list[Segment] = []
    for message, (role, content) in enumerate(turns):
        segments.append((f"<|im_start|>{role}\n", "template", "", -1))
        segments.append((content, "content", role, message))
        if role == "assistant":
            segments += [("<|im_end|>", "stop", role, message), ("\n", "template", "", -1)]
        else:
            segments.append(("<|im_end|>\n", "template", "", -1))
    return [segment for segment in segments if segment[0]]


def rendered(*rows: list[Segment]) -> pl.DataFrame:
    """Return RENDERED rows made of segments."""
    columns: dict[str, list[Any]] = {"id": [], "split": [], "text": [], "spans": []}
    for i, segments in enumerate(rows):
        spans, position = [], 0
        for text, name, role, message in segments:
            end = position + len(text)
            spans.append(
                {"start": position, "end": end, "class": name, "role": role, "message": message, "weight": None}
            )
            position = end
        columns["id"].append(f"a:{i + 1}")
        columns["split"].append("train")
        columns["text"].append("".join(segment[0] for segment in segments))
        columns["spans"].append(spans)
    schema = {"id": pl.String, "split": pl.String, "text": pl.String, "spans": pl.List(TEXT_SPAN)}
    return pl.DataFrame(columns, schema=schema)


def tokenized(*rows: list[tuple[int, str, str, int]], weight: dict[int, float] | None = None) -> pl.DataFrame:
    """Return TOKENIZED rows from (number of tokens, class, role, message) spans; ids count up from 0."""
    columns: dict[str, list[Any]] = {"id": [], "split": [], "input_ids": [], "spans": []}
    for i, parts in enumerate(rows):
        spans, position = [], 0
        for n, name, role, message in parts:
            own = (weight or {}).get(message)
            spans.append(
                {"start": position, "end": position + n, "class": name, "role": role, "message": message, "weight": own}
            )
            position += n
        columns["id"].append(f"a:{i + 1}")
        columns["split"].append("train")
        columns["input_ids"].append(list(range(position)))
        columns["spans"].append(spans)
    schema = {"id": pl.String, "split": pl.String, "input_ids": pl.List(pl.Int32), "spans": pl.List(TEXT_SPAN)}
    return pl.DataFrame(columns, schema=schema)


def records(
    *raws: bytes | None, source: str = "f.jsonl", skip: str | None = None, rules: str | None = None
) -> pl.DataFrame:
    """Return LINES rows of these records, at line 1, 2, ..."""
    columns = {
        "source": [source] * len(raws),
        "line": range(1, len(raws) + 1),
        "offset": [100 * i for i in range(len(raws))],
        "raw": list(raws),
        "skip": [skip if raw is None else None for raw in raws],
        "rules": [rules] * len(raws),
    }
    kinds = {
        "source": pl.String,
        "line": pl.Int64,
        "offset": pl.Int64,
        "raw": pl.Binary,
        "skip": pl.String,
        "rules": pl.String,
    }
    return pl.DataFrame(columns, schema=kinds)


def strict(raw: bytes) -> Conversation:
    """Return the one conversation that the strict lane reads in a line; raises its LineError."""
    (found,) = adapt(Line(raw, 64), "auto")
    if isinstance(found, LineError):
        raise found
    return found
