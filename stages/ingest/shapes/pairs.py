"""Records that hold a question and its answer."""

from typing import Any, Final

from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape, optional_text, text
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.turns import message

Record = dict[str, Any]
ANSWERS: Final = {"instruction": "output", "prompt": "completion"}
"""Keys of a question, and of its answer."""


def _alpaca(record: Record, _: Line) -> list[Draft]:
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
    return [Draft(messages)]


def _prompt_completion(record: Record, line: Line) -> list[Draft]:
    sides = (*_side(record, "prompt", "user", line), *_side(record, "completion", "assistant", line))
    return [Draft(list(sides), "prompt")]


def _side(record: Record, key: str, speaker: str, line: Line) -> list[Message]:
    value = record.get(key)
    if isinstance(value, list):
        return [message(turn, (key, i), line) for i, turn in enumerate(value)]
    if isinstance(value, dict):
        return [message(value, (key,), line)]
    return [Message(speaker, text(value, key))]


def _has(*keys: str) -> Any:
    return lambda record: isinstance(record, dict) and all(key in record for key in keys)


PAIRS: Final = (
    Shape(
        name="alpaca",
        recognises=_has("instruction", "output"),
        read=_alpaca,
        rule="`instruction` and `output`",
        example='{"instruction": "Add", "input": "1 and 2", "output": "3", "history": [["q", "a"]]}',
        used_by="Stanford Alpaca, GPT-4-LLM, deepctrl-sft",
    ),
    Shape(
        name="prompt_completion",
        recognises=_has("prompt", "completion"),
        read=_prompt_completion,
        rule="`prompt` and `completion`; text, a message, or lists of messages",
        example='{"prompt": "Hi", "completion": "Hello!"}',
        used_by="OpenAI, TRL, Self-Instruct",
    ),
)
