"""Lines in, conversations out: each line becomes a canonical row, or a quarantined one with a reason."""

from collections import Counter
from typing import Annotated, Final, Literal

import msgspec
import polars as pl
import pyarrow as pa

from schemas import fields as f
from schemas.reasons import EXPLANATIONS, DropReason
from stages.ingest.conversation import Outcome, adapt
from stages.ingest.decode import MAX_DEPTH, LineError
from stages.ingest.fast import read_fast
from stages.ingest.line import Line
from stages.ingest.mapping import Mapping
from stages.ingest.messages import Message
from stages.ingest.policies import Policies
from stages.ingest.ranking import Ranking
from stages.ingest.rules import NO_RULES, Rules, rules_of
from stages.ingest.shapes.names import ShapeName
from stages.ingest.strings import is_plain, read_plain, strings_of

EXCERPT_CHARS: Final = 200


class Ingest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records are read."""

    shape: ShapeName = "auto"
    """Shape of every record, or auto: each record is recognised by its own keys (docs/formats.md)."""
    mapping: Mapping | None = None
    """Where in a record its parts stand, for records of no known shape."""
    input_border: str = "\n"
    """What is put between an instruction and its input (or context, or definition), where a record keeps them apart; the
    template of Stanford Alpaca has "\\n\\n### Input:\\n" there."""
    trailing: Literal["trim", "quarantine", "keep"] = "trim"
    """Turns after the assistant's last one, which nothing answers: left out and counted, refused, or kept untrained."""
    first_assistant: Literal["keep", "trim", "quarantine"] = "keep"
    """A conversation that the assistant opens: kept as it is, its opening left out, or refused."""
    same_role: Literal["quarantine", "merge", "keep"] = "quarantine"
    """User or assistant twice running: refused, joined into one message by `merge_with`, or kept as it is."""
    merge_with: str = "\n"
    """What is put between two messages that are joined."""
    empty: Literal["quarantine", "remove"] = "quarantine"
    """A message with neither text nor tool calls: the record is refused, or the message left out."""
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

    @property
    def policies(self) -> Policies:
        """Return what becomes of conversations that are not quite as a model is trained on."""
        return Policies(
            trailing=self.trailing,
            first_assistant=self.first_assistant,
            same_role=self.same_role,
            merge_with=self.merge_with,
            empty=self.empty,
        )

    def __post_init__(self) -> None:
        """Refuse a key that leads nowhere."""
        for name, key in (("score", self.score), ("created", self.created)):
            if key is not None and not all(key.split(".")):
                raise ValueError(
                    f"{name} = {key!r}: expected the name of a key of the records, or names joined by dots, "
                    'e.g. "meta.quality"'
                )


def ingest_lines(frame: pl.DataFrame, config: Ingest) -> pl.DataFrame:
    """Turn each record of `frame` (schemas.tables.LINES) into its rows, in order: one, or as many as it has conversations.

    What cannot be read has `drop_reason`, `detail` and `excerpt` set and no messages; no record raises, and none is
    repaired in silence: what is kept is what the file says, and `repairs` tells what a policy changed.
    """
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
        found += outcomes
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
    out = pl.from_arrow(pa.table(columns))
    assert isinstance(out, pl.DataFrame)
    return out


def count_records(out: pl.DataFrame, frame: pl.DataFrame, _config: Ingest) -> dict[str, int]:
    """Return how many rows were read in which shape, what policies changed, and how many records all of them are of."""
    counts = Counter({"records": frame.height})
    for shape, n in out["shape"].drop_nulls().value_counts().iter_rows():
        counts[f"shape/{shape}"] = n
    for repair in out["repairs"].explode().drop_nulls().to_list():
        name, _, n = repair.partition(":")
        counts[f"repaired/{name}"] += int(n)
    return dict(sorted(counts.items()))


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
            if rules == NO_RULES and config.shape in ("auto", "messages") and config.mapping is None:
                row = read_fast(raw, self._ranking)
                if row is not None:
                    return [row]
            return self._read_strictly(raw, rules)
        except LineError as error:
            return [error]

    def _read_strictly(self, raw: bytes, rules: Rules) -> list[Outcome]:
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
    text = raw[: EXCERPT_CHARS * 4].decode("utf-8", "replace")[:EXCERPT_CHARS]
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text.rstrip("\r\n"))


__all__ = ["Ingest", "count_records", "ingest_lines"]
