"""What becomes of conversations that are not quite as a model is trained on: repaired where that is unambiguous, else refused."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.messages import Message

ALTERNATING: Final = ("user", "assistant")
"""Roles of which two in a row need a policy; results of several calls follow one another anyway."""


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """The policies of [ingest]; see there."""

    trailing: Literal["trim", "quarantine", "keep"] = "trim"
    first_assistant: Literal["keep", "trim", "quarantine"] = "keep"
    same_role: Literal["quarantine", "merge", "keep"] = "quarantine"
    merge_with: str = "\n"
    empty: Literal["quarantine", "remove"] = "quarantine"


def settle(read: Sequence[Message], policies: Policies) -> tuple[list[Message], tuple[str, ...]]:
    """Return (the messages to keep, what was changed), e.g. ("trailing:1",).

    An empty system message says nothing and is left out without a word. Raises LineError for what a policy refuses, and
    when no message of the assistant is left to learn from.
    """
    repairs: list[str] = []
    messages = _without_empty(read, policies, repairs)
    messages = _alternating(messages, policies, repairs)
    first = next((i for i, said in enumerate(messages) if said.role != "system"), 0)
    n_leading = next((i for i, said in enumerate(messages[first:]) if said.role != "assistant"), 0)
    if n_leading and policies.first_assistant == "quarantine":
        raise LineError(
            DropReason.FIRST_ASSISTANT,
            f"message {first} is the assistant's, and nobody has spoken ([ingest] first_assistant)",
        )
    if n_leading and policies.first_assistant == "trim":
        del messages[first : first + n_leading]
        repairs.append(f"first_assistant:{n_leading}")
    n_answered = max((i + 1 for i, said in enumerate(messages) if said.role == "assistant"), default=0)
    if not n_answered:
        raise LineError(DropReason.NO_ANSWER, f"{len(read)} message(s), none of the assistant is left to learn from")
    n_trailing = len(messages) - n_answered
    if n_trailing and policies.trailing == "quarantine":
        raise LineError(
            DropReason.UNANSWERED, f"{n_trailing} message(s) after the assistant's last one ([ingest] trailing)"
        )
    if n_trailing and policies.trailing == "trim":
        del messages[n_answered:]
        repairs.append(f"trailing:{n_trailing}")
    return messages, tuple(repairs)


def says_something(said: Message) -> bool:
    """Tell whether a message has anything that a template could write."""
    return bool(said.content or said.tool_calls or (said.role == "assistant" and said.reasoning))


def _without_empty(read: Sequence[Message], policies: Policies, repairs: list[str]) -> list[Message]:
    messages = []
    n_empty = 0
    for i, said in enumerate(read):
        if says_something(said):
            messages.append(said)
        elif said.role == "system" and not said.reasoning:
            continue
        elif policies.empty == "quarantine":
            raise LineError(DropReason.EMPTY_MESSAGE, f"message {i} ({said.role}) has neither text nor tool calls")
        else:
            n_empty += 1
    if n_empty:
        repairs.append(f"empty:{n_empty}")
    return messages


def _alternating(messages: list[Message], policies: Policies, repairs: list[str]) -> list[Message]:
    if policies.same_role == "keep":
        return messages
    together: list[Message] = []
    n_merged = 0
    for i, said in enumerate(messages):
        if not together or said.role != together[-1].role or said.role not in ALTERNATING:
            together.append(said)
        elif policies.same_role == "quarantine":
            raise LineError(
                DropReason.SAME_ROLE,
                f'message {i} is the {said.role}\'s, as the one before ([ingest] same_role = "merge" joins them)',
            )
        else:
            together[-1] = _merged(together[-1], said, policies.merge_with, i)
            n_merged += 1
    if n_merged:
        repairs.append(f"same_role:{n_merged}")
    return together


def _merged(before: Message, said: Message, border: str, i: int) -> Message:
    for name in ("weight", "name", "tool_call_id"):
        if getattr(before, name) != getattr(said, name):
            raise LineError(
                DropReason.SAME_ROLE, f"message {i} cannot be joined to the one before: their {name} is not the same"
            )
    calls = [text.strip()[1:-1].strip() for text in (before.tool_calls, said.tool_calls) if text]
    return before._replace(
        content=_joined(before.content, said.content, border),
        reasoning=_joined(before.reasoning, said.reasoning, border),
        tool_calls=f"[{', '.join(calls)}]" if calls else None,
    )


def _joined(a: str | None, b: str | None, border: str) -> str | None:
    return border.join((a, b)) if a and b else a or b
