"""From a decoded line to the conversations in it."""

from collections.abc import Sequence
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.calls import functions_text, tools_text
from stages.ingest.decode import LineError
from stages.ingest.distinct import Outcome, distinct
from stages.ingest.line import Line, where
from stages.ingest.mapped import MAPPED, id_of, prompt_of, system_of, tags_of, tools_at
from stages.ingest.messages import Conversation, Message, agreed, optional_text, refuse_media
from stages.ingest.policies import Policies, refuse_disliked, refuse_untrained, says_something, settle
from stages.ingest.rules import NO_RULES, Rules
from stages.ingest.shapes import SHAPES, Draft, Shape, recognise
from stages.ingest.shapes.pairs import ANSWERS, with_room

SYSTEMS: Final = ("system", "system_prompt")
"""Keys of a record that hold its first message."""
IDS: Final = (
    *("id", "_id", "conversation_id", "uuid", "idx", "example_id", "task_id", "prompt_id", "question_id"),
    *("message_tree_id", "row_id"),
)
"""Keys of a record that hold its own id; the first that is text or a whole number is it."""


def adapt(line: Line, shape: str, policies: Policies | None = None, rules: Rules = NO_RULES) -> list[Outcome]:
    """Return the conversations in `line`, each as it is to be kept, or why it is not; at least one.

    Raises LineError when the record as a whole is none that can be trained on.
    """
    policies = policies or Policies()
    is_mapped = line.mapping is not None and line.mapping.reads and (rules.mapping is not None or rules.shape is None)
    kind, drafts = _read(line.value, line, MAPPED.name if is_mapped else rules.shape or shape)
    refuse_disliked(line.value, policies)
    if line.mapping is None or line.mapping.weight is None:
        refuse_untrained(line.value)
    return distinct([_settled(draft, line, kind, policies, rules) for draft in drafts])


def adapt_prompt(line: Line, shape: str) -> Conversation:
    """Return the one conversation in `line`, which need not have an answer; raises LineError when there is none.

    The answer of a record may be absent, null or empty, as may what its last message says, where that is the assistant's.
    """
    mapped = prompt_of(line)
    kind, drafts = (MAPPED, [mapped]) if mapped is not None else _read(with_room(line.value), line, shape)
    if len(drafts) != 1:
        raise LineError(DropReason.BAD_SHAPE, f"expected one conversation, got a record of {len(drafts)}")
    (draft,) = drafts
    if isinstance(draft, LineError):
        raise draft
    messages = []
    for i, said in enumerate(draft.messages):
        if says_something(said):
            messages.append(said)
        elif said.role == "assistant" and i == len(draft.messages) - 1:
            break  # a place for the answer
        elif said.role != "system" or said.reasoning:  # an empty system message says nothing, and is left out
            raise LineError(DropReason.EMPTY_MESSAGE, f"message {i} ({said.role}) has neither text nor tool calls")
    messages = _with_system(line, messages, draft)
    return Conversation(messages, _tools(line, draft), _tags(line, NO_RULES, draft), shape=kind.name)


def _read(record: Any, line: Line, shape: str) -> tuple[Shape, Sequence[Draft | LineError]]:
    kind = recognise(record) if shape == "auto" else MAPPED if shape == MAPPED.name else SHAPES[shape]
    if isinstance(record, dict):
        refuse_media(record, "")
    drafts = kind.read(record, line)
    if not drafts:
        raise LineError(DropReason.NO_ANSWER, f"the record, read as {kind.name}, holds no conversation")
    return kind, drafts


def _settled(found: Draft | LineError, line: Line, kind: Shape, policies: Policies, rules: Rules) -> Outcome:
    if isinstance(found, LineError):
        return found
    try:
        _refuse_answer_beside(line.value, found.messages)
        messages, repairs = settle(_with_system(line, found.messages, found), policies)
        tools = _tools(line, found)
        tags, own_id = _tags(line, rules, found), found.record_id or _own_id(line)
    except LineError as error:
        return error
    return Conversation(
        messages,
        tools,
        tags,
        shape=kind.name,
        record_id=own_id,
        rejected=found.rejected,
        repairs=(*found.repairs, *repairs),
    )


def _refuse_answer_beside(record: Any, messages: Sequence[Message]) -> None:
    """Raise LineError if the user speaks last and an answer stands beside the messages (ChatQA): both would be lost."""
    if not isinstance(record, dict) or not messages or messages[-1].role != "user":
        return
    for key in sorted(record.keys() & ANSWERS):
        if record[key] and isinstance(record[key], str | list | dict):
            raise LineError(
                DropReason.BAD_SHAPE,
                f"{key} beside messages of which the user's is the last may be the answer to it, and would be lost;"
                " make it the last message, or remove it",
            )


def _with_system(line: Line, messages: list[Message], draft: Draft) -> list[Message]:
    record = line.value
    own = [key for key in SYSTEMS if key in record and key not in draft.read] if isinstance(record, dict) else []
    found = {key: optional_text(record, key) or None for key in own}
    found |= system_of(record, line.mapping)
    system = found[key] if (key := agreed(found, "record")) else None
    if not system:
        return messages
    if messages and messages[0].role == "system":
        if not says_something(messages[0]):
            return [Message("system", system), *messages[1:]]
        agreed({"system": system, "the first message": messages[0].content}, "record")
        return messages
    return [Message("system", system), *messages]


def _tools(line: Line, draft: Draft) -> str | None:
    record = line.value
    mapped = tools_at(record, line.mapping)  # raises for a record that has not the key, a list included
    if isinstance(record, list):
        return (
            tools_text(record[0].get("tools"), (0, "tools"), line) if record and isinstance(record[0], dict) else None
        )
    if not isinstance(record, dict):
        return None
    found = {
        "tools": tools_text(record.get("tools"), ("tools",), line),
        "functions": functions_text(record.get("functions"), ("functions",), line),
    }
    if mapped is not None:
        found[where(mapped[1])] = tools_text(*mapped, line)
    turns = record.get(draft.turns_key) if draft.turns_key is not None else None
    if draft.turns_key is not None and isinstance(turns, list) and turns and isinstance(turns[0], dict):
        path = (draft.turns_key, 0, "tools")  # minimind keeps them on the system message
        found[where(path)] = tools_text(turns[0].get("tools"), path, line)
    key = agreed(found, "record")
    return found[key] if key else None


def _tags(line: Line, rules: Rules, draft: Draft) -> tuple[str, ...]:
    record = line.value
    own, source = (record.get("tags"), record.get("source")) if isinstance(record, dict) else (None, None)
    tags = [*rules.tags, *draft.tags, *tags_of(record, line.mapping)]
    if isinstance(own, list) and "tags" not in draft.read:
        tags += [tag for tag in own if isinstance(tag, str)]
    if isinstance(source, str) and source and "source" not in draft.read:
        tags.append(f"source:{source}")
    return tuple(dict.fromkeys(tags))


def _own_id(line: Line) -> str | None:
    record = line.value
    if (named := id_of(record, line.mapping)) is not None:
        return named
    if not isinstance(record, dict):
        return None
    values = (record.get(key) for key in IDS)
    return next((str(value) for value in values if type(value) in (str, int)), None)


__all__ = ["IDS", "SYSTEMS", "Outcome", "adapt", "adapt_prompt"]
