"""The fast lane: lines of the commonest shape, decoded straight into structs, where that provably changes nothing.

The strict decoder and the adapters are the law. A line takes this lane only if its bytes show that they would accept it and
what they would make of it; for any other line the answer here is None, and the law decides.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from stages.ingest.decode import LineError, has_spaced_key
from stages.ingest.messages import ROLES, Conversation, Message
from stages.ingest.policies import ALTERNATING
from stages.ingest.ranking import UNRANKED, Ranking


class _Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: str


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[_Turn] | UnsetType = UNSET
    conversations: list[_Turn] | UnsetType = UNSET
    id: str | int | UnsetType = UNSET
    source: str | UnsetType = UNSET


_ESCAPED: Final = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
_Scalar: TypeAlias = str | int | float | UnsetType | None


@lru_cache(maxsize=8)
def _lane(ranking: Ranking) -> tuple[Callable[[bytes], Any], dict[str, str]] | None:
    """Return a decoder of records that may have a scalar under each key of `ranking`, and those keys' fields.

    A dotted key is not among them: a record that has anything under its first name has a field too many for this lane.
    None where a key leads into a field that the lane itself reads, or could only be written with an escape.
    """
    asked = {key for key in ranking if key is not None}
    if any(key.partition(".")[0] in _Record.__struct_fields__ or _ESCAPED.search(key) for key in asked):
        return None
    keys = {key for key in asked if "." not in key}
    names = {key: f"told_{i}" for i, key in enumerate(sorted(keys))}
    kind = msgspec.defstruct(
        "_Ranked",
        [(name, _Scalar, UNSET) for name in names.values()],
        bases=(_Record,),
        rename={name: key for key, name in names.items()},
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(kind).decode, names


def read_fast(raw: bytes, ranking: Ranking = UNRANKED) -> Conversation | None:
    """Return the conversation in `raw`, or None if the strict lane has to look at it.

    Keys cannot repeat: each key writes one `":`, text that holds one has it counted too, so as many of them as there are
    fields set leaves none over; blanks before a colon are left to the strict lane.
    """
    if b"\\u0000" in raw or b"\0" in raw or has_spaced_key(raw):
        return None
    lane = _lane(ranking)
    if lane is None:
        return None
    decode, names = lane
    try:
        record = decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    turns: Any = record.messages if record.messages is not UNSET else record.conversations
    if turns is UNSET or not turns:
        return None
    n_set = sum(value is not UNSET for value in (record.messages, record.conversations, record.id, record.source))
    told = {key: value for key, name in names.items() if (value := getattr(record, name)) is not UNSET}
    if raw.count(b'":') != n_set + len(told) + 2 * len(turns) or (
        record.messages is not UNSET and record.conversations is not UNSET
    ):
        return None
    messages = []
    before = None
    for turn in turns:
        role, content = turn.role, turn.content
        if role not in ROLES or not content:
            return None
        role = ROLES[role]
        if (role == before and role in ALTERNATING) or (role == "assistant" and before in (None, "system")):
            return None  # for a policy to decide
        before = role
        messages.append(Message(role, content))
    if before != "assistant":
        return None
    try:
        score, created = ranking.of(told) if told else (None, None)
    except LineError:
        return None
    source = record.source
    tags = (f"source:{source}",) if source is not UNSET and source else ()
    own = None if record.id is UNSET else str(record.id)
    return Conversation(messages, None, tags, score, created, record_id=own)
