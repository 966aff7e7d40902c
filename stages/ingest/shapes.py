"""The shapes records come in: one small adapter each, chosen by the record's own keys."""

from collections.abc import Callable
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.messages import (
    Conversation,
    Message,
    bad_shape,
    json_text,
    optional_text,
    parts_text,
    role,
    text,
    tool_call,
)

Record = dict[str, Any]


def adapt(record: Any, shape: str) -> Conversation:
    """Return the conversation in `record`; raises LineError when there is none that can be trained on."""
    if not isinstance(record, dict):
        raise LineError(DropReason.UNKNOWN_SHAPE, f"expected a JSON object, got {type(record).__name__}")
    name = recognise(record) if shape == "auto" else shape
    messages, tools = SHAPES[name](record)
    for i, message in enumerate(messages):
        if not message.content and not message.tool_calls and (message.role != "assistant" or not message.reasoning):
            raise LineError(DropReason.EMPTY_MESSAGE, f"message {i} ({message.role}) has neither text nor tool calls")
    if not any(message.role == "assistant" for message in messages):
        raise LineError(DropReason.NO_ANSWER, f"{len(messages)} message(s), none of the assistant")
    return Conversation(messages, tools, _tags(record))


def recognise(record: Record) -> str:
    """Return the name of the shape whose keys `record` has."""
    turns = record.get("messages", record.get("conversations", record.get("conversation")))
    if isinstance(turns, list):
        first = next((turn for turn in turns if isinstance(turn, dict)), {})
        return "sharegpt" if "from" in first and "role" not in first else "messages"
    if "instruction" in record and "output" in record:
        return "alpaca"
    if "prompt" in record and "completion" in record:
        return "prompt_completion"
    keys = ", ".join(sorted(record)[:12])
    raise LineError(DropReason.UNKNOWN_SHAPE, f"keys {keys or '(none)'}; known shapes: {', '.join(SHAPES)}")


def from_messages(record: Record) -> tuple[list[Message], str | None]:
    """Read {"messages" | "conversations": [{"role", "content", ...}]}, as OpenAI and most recent data sets have it."""
    key, turns = _turns(record)
    messages = [_message(turn, f"{key}[{i}]") for i, turn in enumerate(turns)]
    tools = record.get("tools")
    if tools is None and turns and isinstance(turns[0], dict):
        tools = turns[0].get("tools")  # minimind keeps them on the system message
    return messages, json_text(tools, "tools")


def from_sharegpt(record: Record) -> tuple[list[Message], str | None]:
    """Read {"conversations": [{"from", "value"}], "system"?, "tools"?}, as Vicuna and LLaMA-Factory have it."""
    key, turns = _turns(record)
    messages = _system(record)
    for i, turn in enumerate(turns):
        at = f"{key}[{i}]"
        if not isinstance(turn, dict):
            raise bad_shape(at, "an object with from and value", turn)
        speaker, value = turn.get("from"), optional_text(turn, "value", f"{at}.")
        if speaker == "function_call":
            calls = json_text([tool_call(value, f"{at}.value")], at)
            messages.append(Message("assistant", None, tool_calls=calls))
        else:
            messages.append(Message(role(speaker, f"{at}.from"), value, weight=_weight(turn, at)))
    return messages, json_text(record.get("tools"), "tools")


def from_alpaca(record: Record) -> tuple[list[Message], str | None]:
    """Read {"instruction", "input"?, "output", "system"?, "history"?: [[question, answer], ...]}."""
    messages = _system(record)
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


def from_prompt_completion(record: Record) -> tuple[list[Message], str | None]:
    """Read {"prompt", "completion"}; either may itself be a list of messages, as in TRL."""
    prompt, completion = record.get("prompt"), record.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        both = [
            *(("prompt", i, m) for i, m in enumerate(prompt)),
            *(("completion", i, m) for i, m in enumerate(completion)),
        ]
        return [_message(turn, f"{key}[{i}]") for key, i, turn in both], json_text(record.get("tools"), "tools")
    return [
        *_system(record),
        Message("user", text(prompt, "prompt")),
        Message("assistant", text(completion, "completion")),
    ], None


SHAPES: Final[dict[str, Callable[[Record], tuple[list[Message], str | None]]]] = {
    "messages": from_messages,
    "sharegpt": from_sharegpt,
    "alpaca": from_alpaca,
    "prompt_completion": from_prompt_completion,
}


def _turns(record: Record) -> tuple[str, list[Any]]:
    for key in ("messages", "conversations", "conversation"):
        if key in record:
            turns = record[key]
            if not isinstance(turns, list):
                raise bad_shape(key, "a list of messages", turns)
            return key, turns
    raise bad_shape("record", "a key messages or conversations", sorted(record)[:12])


def _message(turn: Any, at: str) -> Message:
    if not isinstance(turn, dict):
        raise bad_shape(at, "an object with role and content", turn)
    speaker = role(turn.get("role", turn.get("from")), f"{at}.role")
    content, reasoning = turn.get("content"), None
    calls: list[Any] = []
    if isinstance(content, list):
        content, reasoning, calls = parts_text(content, f"{at}.content")
    elif content is not None:  # null is right beside tool calls, and an empty message elsewhere; never the text "None"
        content = text(content, f"{at}.content")
    if len(turn) == 2:  # role and content: nearly every message
        return Message(speaker, content, reasoning, json_text(calls, at))
    reasoning = (
        reasoning or optional_text(turn, "reasoning_content", f"{at}.") or optional_text(turn, "reasoning", f"{at}.")
    )
    return Message(
        speaker,
        content,
        reasoning,
        json_text(turn.get("tool_calls") or calls, f"{at}.tool_calls"),
        optional_text(turn, "tool_call_id", f"{at}."),
        optional_text(turn, "name", f"{at}."),
        _weight(turn, at),
    )


def _weight(turn: Record, at: str) -> float | None:
    for key in ("weight", "loss_weight"):
        value = turn.get(key)
        if value is not None:
            if type(value) not in (int, float) or value < 0:
                raise bad_shape(f"{at}.{key}", "a number >= 0", value)
            return float(value)
    train = turn.get("train")
    if train is None:
        return None
    if type(train) is not bool:
        raise bad_shape(f"{at}.train", "true or false", train)
    return float(train)


def _system(record: Record) -> list[Message]:
    system = optional_text(record, "system")
    return [Message("system", system)] if system else []


def _tags(record: Record) -> tuple[str, ...]:
    tags = record.get("tags")
    own = tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
    source = record.get("source")
    return (*own, f"source:{source}") if isinstance(source, str) and source else own
