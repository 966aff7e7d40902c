"""The shapes records come in: one small adapter each, chosen by the record's own keys."""

from collections.abc import Callable
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.calls import functions_text, tools_text
from stages.ingest.decode import LineError
from stages.ingest.line import Line, where
from stages.ingest.messages import Conversation, Message, agreed, bad_shape, optional_text, text
from stages.ingest.turns import message

Record = dict[str, Any]
Adapted = tuple[list[Message], str | None]
"""The messages, and the key of the list of turns whose first may hold the tools."""
_TURNS: Final = ("messages", "conversations", "conversation")
_ANSWERS: Final = {"instruction": "output", "prompt": "completion"}
"""Keys of a question, and of its answer."""


def adapt(line: Line, shape: str) -> Conversation:
    """Return the conversation in `line`; raises LineError when there is none that can be trained on."""
    return _conversation(line.value, line, shape, is_prompt=False)


def adapt_prompt(line: Line, shape: str) -> Conversation:
    """Return the conversation in `line`, which need not have an answer; raises LineError when there is none.

    The answer of a record may be absent, null or empty, as may what its last message says, where that is the assistant's.
    """
    record = line.value
    if isinstance(record, dict):
        record = {answer: "" for asked, answer in _ANSWERS.items() if asked in record} | {
            key: value for key, value in record.items() if value is not None or key not in _ANSWERS.values()
        }
    return _conversation(record, line, shape, is_prompt=True)


def _conversation(record: Any, line: Line, shape: str, *, is_prompt: bool) -> Conversation:
    if not isinstance(record, dict):
        raise LineError(DropReason.UNKNOWN_SHAPE, f"expected a JSON object, got {type(record).__name__}")
    name = recognise(record) if shape == "auto" else shape
    read, turns_key = SHAPES[name](record, line)
    messages = []
    for i, said in enumerate(read):
        if said.content or said.tool_calls or (said.role == "assistant" and said.reasoning):
            messages.append(said)
        elif is_prompt and said.role == "assistant" and i == len(read) - 1:
            break  # a place for the answer
        elif said.role != "system" or said.reasoning:  # an empty system message says nothing, and is left out
            raise LineError(DropReason.EMPTY_MESSAGE, f"message {i} ({said.role}) has neither text nor tool calls")
    messages = _with_system(record, messages)
    if not is_prompt and not any(said.role == "assistant" for said in messages):
        raise LineError(DropReason.NO_ANSWER, f"{len(messages)} message(s), none of the assistant")
    return Conversation(messages, _tools(record, turns_key, line), _tags(record))


def recognise(record: Record) -> str:
    """Return the name of the shape whose keys `record` has."""
    if _turns_key(record) is not None:
        return "messages"
    if "instruction" in record and "output" in record:
        return "alpaca"
    if "prompt" in record and "completion" in record:
        return "prompt_completion"
    keys = ", ".join(sorted(record)[:12])
    raise LineError(DropReason.UNKNOWN_SHAPE, f"keys {keys or '(none)'}; known shapes: {', '.join(SHAPES)}")


def from_turns(record: Record, line: Line) -> Adapted:
    """Read {"messages" | "conversations" | "conversation": [turn, ...]}.

    A turn is {"role", "content", ...}, as OpenAI and most recent data sets have it, or {"from", "value"}, as Vicuna and
    LLaMA-Factory have it.
    """
    key = _turns_key(record)
    if key is None:
        raise bad_shape("record", "a key messages or conversations that is a list", sorted(record)[:12])
    return [message(turn, (key, i), line) for i, turn in enumerate(record[key])], key


def from_alpaca(record: Record, _: Line) -> Adapted:
    """Read {"instruction", "input"?, "output", "history"?: [[question, answer], ...]}."""
    messages = []
    history = record.get("history") or []
    if not isinstance(history, list):
        raise bad_shape("history", "a list of pairs", history)
    for i, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise bad_shape(f"history[{i}]", "a pair [question, answer]", pair)
        messages.append(Message("user", text(pair[0], f"history[{i}][0]")))
        messages.append(Message("assistant", text(pair[1], f"history[{i}][1]")))
    instruction = text(record.get("instruction"), "instruction")
    extra = optional_text(record, "input")
    question = f"{instruction}\n{extra}" if instruction and extra else instruction or extra or ""
    messages.append(Message("user", question))
    messages.append(Message("assistant", text(record.get("output"), "output")))
    return messages, None


def from_prompt_completion(record: Record, line: Line) -> Adapted:
    """Read {"prompt", "completion"}, each of which is text, a message or a list of messages, as in TRL."""
    sides = (*_side(record, "prompt", "user", line), *_side(record, "completion", "assistant", line))
    return list(sides), "prompt"


SHAPES: Final[dict[str, Callable[[Record, Line], Adapted]]] = {
    "messages": from_turns,
    "sharegpt": from_turns,
    "alpaca": from_alpaca,
    "prompt_completion": from_prompt_completion,
}


def _turns_key(record: Record) -> str | None:
    """Return the key of the list of turns, None if no key has one; raises LineError when two keys disagree."""
    lists = {key: record[key] for key in _TURNS if isinstance(record.get(key), list)}
    return agreed({key: turns for key, turns in lists.items() if turns} or lists, "record")


def _side(record: Record, key: str, speaker: str, line: Line) -> list[Message]:
    value = record.get(key)
    if isinstance(value, list):
        return [message(turn, (key, i), line) for i, turn in enumerate(value)]
    if isinstance(value, dict):
        return [message(value, (key,), line)]
    return [Message(speaker, text(value, key))]


def _with_system(record: Record, messages: list[Message]) -> list[Message]:
    system = optional_text(record, "system")
    if not system:
        return messages
    if messages and messages[0].role == "system":
        agreed({"system": system, "the first message": messages[0].content}, "record")
        return messages
    return [Message("system", system), *messages]


def _tools(record: Record, turns_key: str | None, line: Line) -> str | None:
    found = {
        "tools": tools_text(record.get("tools"), ("tools",), line),
        "functions": functions_text(record.get("functions"), ("functions",), line),
    }
    if turns_key is not None and isinstance(record[turns_key], list) and record[turns_key]:
        path = (turns_key, 0, "tools")  # minimind keeps them on the system message
        found[where(path)] = tools_text(record[turns_key][0].get("tools"), path, line)
    key = agreed(found, "record")
    return found[key] if key else None


def _tags(record: Record) -> tuple[str, ...]:
    tags = record.get("tags")
    own = tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
    source = record.get("source")
    return (*own, f"source:{source}") if isinstance(source, str) and source else own
