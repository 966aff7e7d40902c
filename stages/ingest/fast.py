"""The fast lane: lines of the commonest shape, decoded straight into structs, where that provably changes nothing.

The strict decoder and the adapters are the law. A line takes this lane only if its bytes show that they would accept it and
what they would make of it; for any other line the answer here is None, and the law decides.
"""

from typing import Any

import msgspec

from stages.ingest.decode import has_spaced_key
from stages.ingest.messages import ROLES, Conversation, Message


class _Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: str


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[_Turn] | msgspec.UnsetType = msgspec.UNSET
    conversations: list[_Turn] | msgspec.UnsetType = msgspec.UNSET
    id: str | int | msgspec.UnsetType = msgspec.UNSET
    source: str | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Record).decode


def read_fast(raw: bytes) -> Conversation | None:
    """Return the conversation in `raw`, or None if the strict lane has to look at it.

    Keys cannot repeat: each key writes one `":`, text that holds one has it counted too, so as many of them as there are
    fields set leaves none over; blanks before a colon are left to the strict lane.
    """
    if b"\\u0000" in raw or b"\0" in raw or has_spaced_key(raw):
        return None
    try:
        record = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    turns: Any = record.messages if record.messages is not msgspec.UNSET else record.conversations
    if turns is msgspec.UNSET or not turns:
        return None
    n_set = sum(
        value is not msgspec.UNSET for value in (record.messages, record.conversations, record.id, record.source)
    )
    if raw.count(b'":') != n_set + 2 * len(turns) or (
        record.messages is not msgspec.UNSET and record.conversations is not msgspec.UNSET
    ):
        return None
    messages = []
    answered = False
    for turn in turns:
        role, content = turn.role, turn.content
        if role not in ROLES or not content:
            return None
        role = ROLES[role]
        answered = answered or role == "assistant"
        messages.append(Message(role, content))
    if not answered:
        return None
    source = record.source
    return Conversation(messages, None, (f"source:{source}",) if source is not msgspec.UNSET and source else ())
