"""Lines in, conversations out: each line becomes a canonical row, or a quarantined one with a reason."""

from typing import Annotated, Final, Literal

import msgspec
import polars as pl
import pyarrow as pa

from schemas import fields as f
from schemas.reasons import DropReason
from stages.ingest.decode import MAX_DEPTH, LineError
from stages.ingest.fast import read_fast
from stages.ingest.line import Line
from stages.ingest.messages import Conversation, Message
from stages.ingest.ranking import Ranking
from stages.ingest.shapes import SHAPES, adapt
from stages.ingest.strings import is_plain, read_plain, strings_of

EXCERPT_CHARS: Final = 200


class Ingest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records are read."""

    shape: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion"] = "auto"
    """Shape of every record, or auto: each record is recognised by its own keys."""
    max_depth: Annotated[int, msgspec.Meta(ge=4, le=MAX_DEPTH)] = 64
    """Deepest nesting of JSON that is accepted, in a line and in JSON text inside it."""
    unknown: Literal["quarantine", "text"] = "quarantine"
    """What becomes of a record that is no conversation: "text" makes one user message of all its strings. Nothing can be
    learned from that, but it can be compared with: so the files of [clusters] against and evaluations are read."""
    score: str | None = None
    """Key of a record that holds its score, a number, e.g. "score" or "meta.quality", for [clusters] keep = "score"."""
    created: str | None = None
    """Key of a record that says when it was made, for [clusters] keep = "newest" or "oldest": ISO 8601 text, or (milli)seconds
    since 1970."""

    def __post_init__(self) -> None:
        """Refuse a key that leads nowhere."""
        for name, key in (("score", self.score), ("created", self.created)):
            if key is not None and not all(key.split(".")):
                raise ValueError(
                    f"{name} = {key!r}: expected the name of a key of the records, or names joined by dots, "
                    'e.g. "meta.quality"'
                )


def ingest_lines(frame: pl.DataFrame, config: Ingest) -> pl.DataFrame:
    """Turn each line of `frame` (schemas.tables.LINES) into one row, in order.

    A line that cannot be read has `drop_reason`, `detail` and `excerpt` set and no messages; no line raises, and none
    is repaired in silence: what is kept is what the file says.
    """
    ranking = Ranking(config.score, config.created)
    sources, lines = frame["source"].to_list(), frame["line"].to_list()
    ids = [f"{source}:{line}" for source, line in zip(sources, lines, strict=True)]
    conversations: list[Conversation | None] = []
    reasons: list[str | None] = []
    details: list[str | None] = []
    excerpts: list[str | None] = []
    # A loop over rows, because strictness is per line: one bad line must never cost its neighbours anything.
    for source, raw in zip(sources, frame["raw"].to_list(), strict=True):
        try:
            if raw is None:
                raise LineError(DropReason.LINE_TOO_LONG, "the line is longer than [source] max_line_bytes")
            if config.unknown == "text" and is_plain(source):
                conversations.append(read_plain(raw))
            else:
                row = read_fast(raw, ranking) if config.shape in ("auto", "messages") else None
                conversations.append(row or _read_strictly(raw, ranking, config))
        except LineError as error:
            conversations.append(None)
            reasons.append(error.reason)
            details.append(error.detail)
            excerpts.append(_excerpt(raw))
        else:
            reasons.append(None)
            details.append(None)
            excerpts.append(None)
    columns = {
        "id": pa.array(ids, pa.string()),
        "source": pa.array(sources, pa.string()),
        "tags": pa.array([row.tags if row else [] for row in conversations], f.TAGS.type),
        "score": pa.array([row.score if row else None for row in conversations], f.SCORE.type),
        "created": pa.array([row.created if row else None for row in conversations], pa.int64()).cast(f.CREATED.type),
        "messages": _message_column(conversations),
        "tools": pa.array([row.tools if row else None for row in conversations], pa.string()),
        "line": pa.array(lines, pa.int64()),
        "offset": frame["offset"].to_arrow(),
        "detail": pa.array(details, pa.string()),
        "excerpt": pa.array(excerpts, pa.string()),
        "drop_reason": pa.array(reasons, pa.string()),
    }
    out = pl.from_arrow(pa.table(columns))
    assert isinstance(out, pl.DataFrame)
    return out


def _read_strictly(raw: bytes, ranking: Ranking, config: Ingest) -> Conversation:
    line = Line(raw, config.max_depth)
    try:
        conversation = adapt(line, config.shape)
    except LineError:
        if config.unknown == "quarantine" or (text := strings_of(line.value)) is None:
            raise
        return text
    score, created = ranking.of(line.value)
    return conversation._replace(score=score, created=created)


def _message_column(conversations: list[Conversation | None]) -> pa.Array:
    offsets = [0]
    flat: list[Message] = []
    for row in conversations:
        if row is not None:
            flat.extend(row.messages)
        offsets.append(len(flat))
    children = [
        pa.array([message[position] for message in flat], column.type) for position, column in enumerate(f.MESSAGE)
    ]
    structs = pa.StructArray.from_arrays(children, fields=list(f.MESSAGE))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)


def _excerpt(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    text = raw[: EXCERPT_CHARS * 4].decode("utf-8", "replace")[:EXCERPT_CHARS]
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text.rstrip("\r\n"))


__all__ = ["SHAPES", "Ingest", "ingest_lines"]
