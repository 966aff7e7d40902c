"""Conversations of one record that differ only in what nothing answers are one conversation."""

from collections.abc import Sequence
from typing import Final

from stages.ingest.decode import LineError
from stages.ingest.messages import Conversation, Message

Outcome = Conversation | LineError
_TRAILING: Final = "trailing:"


def distinct(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return `outcomes` without those that, their unanswered end left out, are the same as one before, which counts that end too.

    Of a tree, such are the paths to several questions that nobody answered, below one answer. Conversations that are the
    same as they stand in the record are left to dedup.
    """
    kept: list[Outcome] = []
    first: dict[tuple[Message, ...], int] = {}
    for one in outcomes:
        n = 0 if isinstance(one, LineError) else _n_trailing(one)
        if isinstance(one, LineError) or not n:
            kept.append(one)
            continue
        at = first.setdefault(tuple(one.messages), len(kept))
        if at == len(kept):
            kept.append(one)
        else:
            before = kept[at]
            assert not isinstance(before, LineError), "it has messages"
            kept[at] = before._replace(repairs=_with_trailing(before.repairs, _n_trailing(before) + n))
    return kept


def _n_trailing(one: Conversation) -> int:
    return sum(int(repair.removeprefix(_TRAILING)) for repair in one.repairs if repair.startswith(_TRAILING))


def _with_trailing(repairs: tuple[str, ...], n: int) -> tuple[str, ...]:
    return tuple(f"{_TRAILING}{n}" if repair.startswith(_TRAILING) else repair for repair in repairs)
