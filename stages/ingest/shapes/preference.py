"""Preference records: the chosen side becomes the conversation, the rejected one is kept beside it."""

from typing import Any, Final

from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape, optional_text
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.shapes.transcript import messages_of, style_of
from stages.ingest.shapes.turn_lists import turns_key
from stages.ingest.turns import side, turns

_CHOSEN, _REJECTED, _PROMPT = "chosen", "rejected", "prompt"
_ASKED: Final = ("instruction", "question", "query", "input", "context")
"""Keys of texts that are the question, in the order in which they are said."""


def _is_preference(record: Any) -> bool:
    return isinstance(record, dict) and record.get(_CHOSEN) is not None and record.get(_REJECTED) is not None


def _read(record: Any, line: Line) -> list[Draft]:
    if not _is_preference(record):
        raise bad_shape("record", "chosen and rejected", sorted(record)[:12] if isinstance(record, dict) else record)
    key, asked = _asked(record, line)
    chosen = _chosen(record[_CHOSEN], bool(asked), line)
    rejected = line.verbatim(_REJECTED)
    first = next((said for said in chosen if said.role != "system"), None)
    if first is None or first.role != "assistant":  # a whole conversation, with what was asked
        _refuse_others(asked, chosen)
        return [Draft(chosen, _CHOSEN if isinstance(record[_CHOSEN], list) else None, rejected)]
    if not asked:
        names = ", ".join(("messages", "conversations", _PROMPT, *_ASKED))
        raise bad_shape("record", f"what was asked, under one of {names}, or in chosen", sorted(record)[:12])
    return [Draft([*asked, *chosen], key, rejected)]


def _asked(record: dict[str, Any], line: Line) -> tuple[str | None, list[Message]]:
    """Return (the key of the list of turns, if it is one; what was asked)."""
    key = turns_key(record)
    if key is not None and record[key]:
        return key, turns(record[key], (key,), line)
    prompt = record.get(_PROMPT)
    if isinstance(prompt, str) and prompt.startswith("\n\n") and (style := style_of(f"{prompt}\n\nAssistant:")):
        messages = messages_of(prompt, style, _PROMPT, line)
        return None, messages[:-1] if messages[-1] == Message("assistant", "") else messages
    if prompt:
        return (_PROMPT if isinstance(prompt, list) else None), side(prompt, (_PROMPT,), line, "user")
    parts = [said for key in _ASKED if (said := optional_text(record, key))]
    return None, [Message("user", line.input_border.join(parts))] if parts else []


def _chosen(value: Any, is_asked: bool, line: Line) -> list[Message]:
    if isinstance(value, str) and not is_asked and (style := style_of(value)):
        return messages_of(value, style, _CHOSEN, line)
    return side(value, (_CHOSEN,), line, "assistant")


def _refuse_others(asked: list[Message], chosen: list[Message]) -> None:
    """Raise LineError if the record asks something that its whole conversation does not have."""
    for said in asked:
        if said not in chosen and not any(
            said.content == other.content for other in chosen if other.role != "assistant"
        ):
            raise bad_shape(
                _CHOSEN, f"what the record asks ({said.role}) among its messages, or an answer alone", said.content
            )


PREFERENCE: Final = Shape(
    name="preference",
    recognises=_is_preference,
    read=_read,
    rule="`chosen` and `rejected`: a text, a turn or a list of turns; what was asked stands in `chosen` itself, or under a key of"
    " a list of turns, `prompt`, `question`, `query` or `instruction` with `input`. An answer beside them is not read",
    example='{"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello!"}, "rejected": '
    '{"from": "gpt", "value": "What?"}}',
    used_by="Anthropic hh-rlhf, UltraFeedback, TRL and LLaMA-Factory (DPO)",
)
