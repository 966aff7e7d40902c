"""The strict lane: one record after another, decoded alone and read by the adapters; what they say is the law."""

from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas import fields as f
from schemas.reasons import EXPLANATIONS, DropReason
from stages.ingest.conversation import Outcome, adapt
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Message
from stages.ingest.ranking import Ranking
from stages.ingest.rules import Rules, rules_of
from stages.ingest.settings import Ingest
from stages.ingest.strings import is_plain, read_plain, strings_of

EXCERPT_CHARS: Final = 200


def read_strictly(frame: pl.DataFrame, config: Ingest) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return (what becomes of each record of `frame`, see stages.ingest.ingest_lines; of each row, which record it is of)."""
    reader = _Reader(config)
    found: list[Outcome] = []
    at: list[int] = []  # of each outcome, its record
    parts: list[int] = []  # and its number among the conversations of the record; 0 for the only one
    # A loop over rows, because strictness is per line: one bad line must never cost its neighbours anything.
    sources, raws = frame["source"].to_list(), frame["raw"].to_list()
    for i, (source, raw, skip, rules) in enumerate(
        zip(sources, raws, frame["skip"].to_list(), frame["rules"].to_list(), strict=True)
    ):
        outcomes = reader.read(source, raw, skip, rules_of(rules))
        found += map(_forgetful, outcomes)
        at += [i] * len(outcomes)
        parts += range(1, len(outcomes) + 1) if len(outcomes) > 1 else [0]
    lines = frame["line"].to_list()
    ids = [
        f"{sources[i]}:{lines[i]}.{part}" if part else f"{sources[i]}:{lines[i]}"
        for i, part in zip(at, parts, strict=True)
    ]
    errors = [one if isinstance(one, LineError) else None for one in found]
    rows = [None if isinstance(one, LineError) else one for one in found]
    columns = {
        "id": pa.array(ids, pa.string()),
        "record_id": pa.array([row.record_id if row else None for row in rows], pa.string()),
        "source": frame["source"].to_arrow().take(pa.array(at, pa.int64())),
        "line": frame["line"].to_arrow().take(pa.array(at, pa.int64())),
        "offset": frame["offset"].to_arrow().take(pa.array(at, pa.int64())),
        "shape": pa.array([row.shape if row else None for row in rows], pa.string()),
        "tags": pa.array([row.tags if row else [] for row in rows], f.TAGS.type),
        "score": pa.array([row.score if row else None for row in rows], f.SCORE.type),
        "created": pa.array([row.created if row else None for row in rows], pa.int64()).cast(f.CREATED.type),
        "messages": _message_column(found),
        "tools": pa.array([row.tools if row else None for row in rows], pa.string()),
        "rejected": pa.array([row.rejected if row else None for row in rows], pa.string()),
        "repairs": pa.array([row.repairs if row else [] for row in rows], f.REPAIRS.type),
        "detail": pa.array([error.detail if error else None for error in errors], pa.string()),
        "excerpt": pa.array(
            [_excerpt(raws[i]) if error else None for i, error in zip(at, errors, strict=True)], pa.string()
        ),
        "drop_reason": pa.array([error.reason if error else None for error in errors], pa.string()),
    }
    return pa.table(columns), np.array(at, np.int64)


def _forgetful(outcome: Outcome) -> Outcome:
    """Return an outcome that does not know where it was raised: that would keep all that was at hand there, a whole shard."""
    if isinstance(outcome, LineError):
        outcome.__traceback__ = outcome.__context__ = None
    return outcome


class _Reader:
    """Reads one record after another under one config."""

    def __init__(self, config: Ingest) -> None:
        self._config, self._policies = config, config.policies
        self._ranking = Ranking(config.score, config.created)

    def read(self, source: str, raw: bytes | None, skip: str | None, rules: Rules) -> list[Outcome]:
        """Return the outcomes of a record, at least one."""
        if raw is None or skip:
            name, _, detail = (skip or DropReason.LINE_TOO_LONG).partition(": ")
            reason = DropReason(name)
            return [LineError(reason, detail or EXPLANATIONS[reason])]
        config = self._config
        try:
            if config.unknown == "text" and is_plain(source):
                return [read_plain(raw)]
            return self._conversations(raw, rules)
        except LineError as error:
            return [error]

    def _conversations(self, raw: bytes, rules: Rules) -> list[Outcome]:
        config = self._config
        line = Line(raw, config.max_depth, rules.mapping or config.mapping, config.input_border)
        try:
            outcomes = adapt(line, config.shape, self._policies, rules)
        except LineError as error:
            outcomes = [error]
        if config.unknown == "text" and any(isinstance(one, LineError) for one in outcomes):
            text = strings_of(line.value)
            return outcomes if text is None else [text]
        score, created = self._ranking.of(line.value)
        return [one if isinstance(one, LineError) else one._replace(score=score, created=created) for one in outcomes]


def _message_column(outcomes: list[Outcome]) -> pa.Array:
    offsets = [0]
    flat: list[Message] = []
    for row in outcomes:
        if not isinstance(row, LineError):
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
    text = raw[: EXCERPT_CHARS * 4].decode("utf-8", "replace")[:EXCERPT_CHARS].rstrip("\r\n")
    if text.isprintable():  # as nearly all are; one by one takes longer than all else that is done for a line
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
