"""What becomes of conversations that are not quite as a model is trained on: repaired where that is unambiguous, else refused."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.messages import Message

ALTERNATING: Final = ("user", "assistant")
"""Roles of which two in a row need a policy; results of several calls follow one another anyway."""

DISLIKED: Final = ("label", "kto_tag")
"""Keys of a record that say by false that its answer is a bad one."""

UNTRAINED: Final = ("train", "loss_weight")
"""Keys of a message that may stand beside all of them by mistake."""


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """The policies of [ingest]; see there."""

    trailing: Literal["trim", "quarantine", "keep"] = "trim"
    first_assistant: Literal["keep", "trim", "quarantine"] = "keep"
    same_role: Literal["quarantine", "merge", "keep"] = "quarantine"
    merge_with: str = "\n"
    empty: Literal["quarantine", "remove"] = "quarantine"
    disliked: Literal["quarantine", "keep"] = "quarantine"
    end_texts: tuple[str, ...] = ()


def settle(read: Sequence[Message], policies: Policies) -> tuple[list[Message], tuple[str, ...]]:
    """Return (the messages to keep, what was changed), e.g. ("trailing:1",): the policy, and of how many messages.

    What is left out at the end or the beginning is left out whatever it says; only then is the rest looked at. An empty
    system message says nothing and is left out without a word. To settle what is settled changes nothing. Raises LineError
    for what a policy refuses, and when no message of the assistant is left to learn from.
    """
    found = [(i, said) for i, said in enumerate(read) if not _is_no_system(said)]
    counts = dict.fromkeys(("end_texts", "trailing", "empty", "first_assistant", "same_role"), 0)
    found = _ended(found, policies, counts)
    found = _answered(found, policies, counts)
    found = _without_empty(found, policies, counts)
    found = _opened_by_user(found, policies, counts)
    messages = _alternating(found, policies, counts)
    if not any(said.role == "assistant" for said in messages):
        raise LineError(DropReason.NO_ANSWER, f"{len(read)} message(s), none of the assistant is left to learn from")
    return messages, tuple(f"{name}:{n}" for name, n in counts.items() if n)


def refuse_disliked(record: object, policies: Policies) -> None:
    """Raise LineError if `record` says that its answer is a bad one: `label` or `kto_tag` is false (KTO; TRL, LLaMA-Factory)."""
    if policies.disliked == "keep" or not isinstance(record, dict):
        return
    for key in DISLIKED:
        if record.get(key) is False:
            raise LineError(DropReason.DISLIKED, f'{key} is false: a bad answer ([ingest] disliked = "keep" trains it)')


def refuse_untrained(record: object) -> None:
    """Raise LineError if `record` says of itself how it is trained: that is read only of messages, or by a mapping's `weight`."""
    if not isinstance(record, dict):
        return
    train, weight = (record.get(key) for key in UNTRAINED)
    if train is False or (type(weight) in (int, float) and weight != 1):
        key = "train" if train is False else "loss_weight"
        raise LineError(
            DropReason.BAD_SHAPE,
            f"{key} of the record is not read, and it would be trained as any other: set it in its messages, let a mapping's"
            " weight name it, or remove it",
        )


def says_something(said: Message) -> bool:
    """Tell whether a message has anything that a template could write."""
    return bool(said.content or said.tool_calls or (said.role == "assistant" and said.reasoning))


Numbered = list[tuple[int, Message]]
"""Messages, each with its place in the record."""


def _is_no_system(said: Message) -> bool:
    return said.role == "system" and not said.content and not said.reasoning


def _ended(found: Numbered, policies: Policies, counts: dict[str, int]) -> Numbered:
    if not policies.end_texts:
        return found
    ended = []
    for i, said in found:
        if said.role == "assistant" and said.content:
            content = said.content[: _end_before(said.content, policies.end_texts)]
            counts["end_texts"] += content != said.content
            ended.append((i, said._replace(content=content)))
        else:
            ended.append((i, said))
    return ended


def _end_before(content: str, texts: tuple[str, ...]) -> int:
    """Return where `content` ends without any of `texts`, of which it may have millions: none of what is left is copied."""
    end = len(content)
    while sizes := [len(text) for text in texts if content.endswith(text, 0, end)]:
        end -= max(sizes)
    return end


def _answered(found: Numbered, policies: Policies, counts: dict[str, int]) -> Numbered:
    n_answered = max((n for n, (_, said) in enumerate(found, 1) if said.role == "assistant"), default=len(found))
    n_trailing = len(found) - n_answered
    if n_trailing and policies.trailing == "quarantine":
        raise LineError(
            DropReason.UNANSWERED, f"{n_trailing} message(s) after the assistant's last one ([ingest] trailing)"
        )
    if policies.trailing != "trim":
        return found
    counts["trailing"] += n_trailing
    return found[:n_answered]


def _without_empty(found: Numbered, policies: Policies, counts: dict[str, int]) -> Numbered:
    full = [(i, said) for i, said in found if says_something(said)]
    if len(full) == len(found):
        return found
    if policies.empty == "quarantine":
        i, said = next((i, said) for i, said in found if not says_something(said))
        raise LineError(DropReason.EMPTY_MESSAGE, f"message {i} ({said.role}) has neither text nor tool calls")
    counts["empty"] += len(found) - len(full)
    return _answered(full, policies, counts)  # what an empty answer stood behind is trailing now


def _opened_by_user(found: Numbered, policies: Policies, counts: dict[str, int]) -> Numbered:
    first = next(((i, said) for i, said in found if said.role != "system"), None)
    if first is None or first[1].role != "assistant" or policies.first_assistant == "keep":
        return found
    if policies.first_assistant == "quarantine":
        raise LineError(
            DropReason.FIRST_ASSISTANT,
            f"message {first[0]} is the assistant's, and nobody has spoken ([ingest] first_assistant)",
        )
    # The results of calls in an opening are part of it.
    asked = next((n for n, (_, said) in enumerate(found) if said.role == "user"), len(found))
    kept = [(i, said) for i, said in found[:asked] if said.role == "system"]
    counts["first_assistant"] += asked - len(kept)
    return kept + found[asked:]


def _alternating(found: Numbered, policies: Policies, counts: dict[str, int]) -> list[Message]:
    if policies.same_role == "keep":
        return [said for _, said in found]
    runs: list[list[Message]] = []  # joined at the end, each at once: a record may be one run of a million messages
    for i, said in found:
        if not runs or said.role != runs[-1][-1].role or said.role not in ALTERNATING:
            runs.append([said])
            is_called, is_answered = bool(said.tool_calls), bool(said.content)
        elif policies.same_role == "quarantine":
            raise LineError(
                DropReason.SAME_ROLE,
                f'message {i} is the {said.role}\'s, as the one before ([ingest] same_role = "merge" joins them)',
            )
        else:
            _refuse_apart(runs[-1][-1], said, i, is_called=is_called, is_answered=is_answered)
            runs[-1].append(said)
            is_called, is_answered = is_called or bool(said.tool_calls), is_answered or bool(said.content)
            counts["same_role"] += 1
    return [run[0] if len(run) == 1 else _merged(run, policies.merge_with) for run in runs]


def _refuse_apart(before: Message, said: Message, i: int, *, is_called: bool, is_answered: bool) -> None:
    """Raise LineError if `said` cannot be joined to a run of messages that ends with `before`, and has calls or text."""
    for name in ("weight", "name", "tool_call_id"):
        if getattr(before, name) != getattr(said, name):
            raise _apart(i, f"their {name} is not the same")
    # A message says its reasoning first, then its text, then its calls; joined, nothing may change places.
    if is_called and (said.content or said.reasoning):
        raise _apart(i, "it says something after a call")
    if is_answered and said.reasoning:
        raise _apart(i, "it reasons after an answer")


def _merged(run: list[Message], border: str) -> Message:
    calls = [said.tool_calls.strip()[1:-1].strip() for said in run if said.tool_calls]
    return run[0]._replace(
        content=_joined([said.content for said in run], border),
        reasoning=_joined([said.reasoning for said in run], border),
        tool_calls=f"[{', '.join(calls)}]" if calls else None,
    )


def _apart(i: int, why: str) -> LineError:
    return LineError(DropReason.SAME_ROLE, f"message {i} cannot be joined to the one before: {why}")


def _joined(texts: list[str | None], border: str) -> str | None:
    said = [text for text in texts if text]
    return border.join(said) if said else texts[-1]
