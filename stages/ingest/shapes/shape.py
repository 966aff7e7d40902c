"""What a shape is, and what its adapter makes of a record."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Message


class Draft(NamedTuple):
    """One conversation as it stands in a record, before any policy is applied to it."""

    messages: list[Message]
    turns_key: str | None = None
    """Key of the record's list of turns, the first of which may hold the tools."""
    rejected: str | None = None
    """The answer that was not chosen, as JSON text, byte for byte."""
    read: frozenset[str] = frozenset()
    """Keys of the record that hold what is said, though in other records they say something of it: source, system, tags."""
    tags: tuple[str, ...] = ()
    """Tags that the record gives it, besides those under tags and source."""
    record_id: str | None = None
    """The id that it has in the record; None for the record's own."""
    repairs: tuple[str, ...] = ()
    """What reading it left out, e.g. "other_answers:2", before those of the policies."""


def keys_of(record: Any) -> Any:
    """Return the keys of `record`, the first of them, to be named in an error; a record of no keys itself."""
    return sorted(record)[:12] if isinstance(record, dict) else record


Found: TypeAlias = Draft | LineError
"""A conversation of a record, or why this one of them cannot be read; the others can."""


MOST_TIMES: Final = 64
"""How many times the characters of a record its conversations may have. A published task, whose definition each of its
instances repeats, has up to about 40; a line made to fill the memory has thousands."""


def all_of(found: Iterable[Found], line: Line) -> list[Found]:
    """Return the conversations that a record repeats parts of; raises LineError when they are MOST_TIMES as long as it."""
    room = MOST_TIMES * line.size
    kept: list[Found] = []
    for one in found:
        kept.append(one)
        if not isinstance(one, LineError):
            room -= sum(len(said.content or "") for said in one.messages)
        if room < 0:
            detail = (
                f"its first {len(kept)} conversations alone are {MOST_TIMES} times as long as the record, parts of which each of"
                " them repeats; divide it into several records"
            )
            raise LineError(DropReason.BAD_SHAPE, detail)
    return kept


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One way in which conversations are published."""

    name: str
    recognises: Callable[[Any], bool]
    """Whether a decoded record has this shape, by its keys and their types; never raises. The first shape that does reads it."""
    read: Callable[[Any, Line], Sequence[Found]]
    """The conversations in a record, one or more, in order. Raises LineError when the record as a whole cannot be read."""
    rule: str
    """What `recognises` goes by, for the documentation."""
    example: str
    """One record as it is really published, shortened, as a line of JSON; a test reads it."""
    used_by: str = ""
    """Published data that has this shape."""
