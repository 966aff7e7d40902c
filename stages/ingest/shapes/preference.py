"""Preference records: the chosen side becomes the conversation, the rejected one is kept beside it."""

from typing import Any, Final

from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape, optional_text
from stages.ingest.shapes.pair import HISTORY, SPEAKING, history
from stages.ingest.shapes.pairs import ANSWERS
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.shapes.transcript import messages_of, style_of
from stages.ingest.shapes.turn_lists import turns_key
from stages.ingest.turns import side, turns

_CHOSEN, _REJECTED, _PROMPT = "chosen", "rejected", "prompt"
_ASKED: Final = ("instruction", "question", "query", "input", "context")
"""Keys of texts that are the question, in the order in which they are said."""
_SIDES: Final = frozenset((_CHOSEN, _REJECTED, "is_correct"))


def _is_preference(record: Any) -> bool:
    return isinstance(record, dict) and record.get(_CHOSEN) is not None and record.get(_REJECTED) is not None


def _read(record: Any, line: Line) -> list[Draft]:
    if not _is_preference(record):
        raise bad_shape("record", "chosen and rejected", sorted(record)[:12] if isinstance(record, dict) else record)
    read, asked = _asked(record, line)
    key = next(iter(read)) if len(read) == 1 and isinstance(record[next(iter(read))], list) else None
    chosen = _chosen(record[_CHOSEN], bool(asked), line)
    first = next((said for said in chosen if said.role != "system"), None)
    if first is None or first.role != "assistant":  # a whole conversation, with what was asked
        _refuse_others(asked, chosen)
        key, messages = (_CHOSEN if isinstance(record[_CHOSEN], list) else None), chosen
    elif asked:
        messages = [*asked, *chosen]
    else:
        names = ", ".join(("messages", "conversations", _PROMPT, *_ASKED))
        raise bad_shape("record", f"what was asked, under one of {names}, or in chosen", sorted(record)[:12])
    n_others = _count_others(record, read, messages)
    repairs = (f"other_answers:{n_others}",) if n_others else ()
    return [Draft(messages, key, line.verbatim(_REJECTED), repairs=repairs)]


def _asked(record: dict[str, Any], line: Line) -> tuple[tuple[str, ...], list[Message]]:
    """Return (the keys of what was asked, what was asked)."""
    key = turns_key(record)
    if key is not None and record[key]:
        if record.get(HISTORY):
            raise bad_shape("record", f"the turns before {key} in it, and not under {HISTORY}", record[HISTORY])
        return (key,), turns(record[key], (key,), line)
    before = list(history(record))
    prompt = record.get(_PROMPT)
    if (
        not before
        and isinstance(prompt, str)
        and prompt.startswith("\n\n")
        and (style := style_of(f"{prompt}\n\nAssistant:"))
    ):
        messages = messages_of(prompt, style, _PROMPT, line)
        return (_PROMPT,), messages[:-1] if messages[-1] == Message("assistant", "") else messages
    if prompt:
        return (_PROMPT,), [*before, *side(prompt, (_PROMPT,), line, "user")]
    parts = {key: said for key in _ASKED if (said := optional_text(record, key))}
    return tuple(parts), [*before, Message("user", line.input_border.join(parts.values()))] if parts else before


def _chosen(value: Any, is_asked: bool, line: Line) -> list[Message]:
    if isinstance(value, str) and not is_asked and (style := style_of(value)):
        return messages_of(value, style, _CHOSEN, line)
    return side(value, (_CHOSEN,), line, "assistant")


def _refuse_others(asked: list[Message], chosen: list[Message]) -> None:
    """Raise LineError if the record asks something that its whole conversation does not have."""
    messages, contents = set(chosen), {said.content for said in chosen if said.role != "assistant"}
    for said in asked:
        if said not in messages and said.content not in contents:
            raise bad_shape(
                _CHOSEN, f"what the record asks ({said.role}) among its messages, or an answer alone", said.content
            )


def _count_others(record: dict[str, Any], read: tuple[str, ...], messages: list[Message]) -> int:
    """Return how many answers stand beside the chosen one. Raises LineError if more than answers would be lost."""
    contents = [said.content for said in messages if said.content]
    n_others = 0
    for key in sorted(record.keys() & (SPEAKING | {_PROMPT, *_ASKED}) - {*_SIDES, *read}):
        value = record[key]
        if not value or (isinstance(value, str) and _is_said(value, contents)):
            continue
        if key not in ANSWERS:  # those nobody chose: they are left out, and counted
            raise bad_shape("record", f"what {key} says among the messages, or under a key that is not read", value)
        n_others += len(value) if isinstance(value, list) else 1
    return n_others


def _is_said(value: str, contents: list[str]) -> bool:
    """Tell whether a text is part of what is said, or all of it as some template wrote it."""
    return any(value in content for content in contents) or all(content in value for content in contents)


PREFERENCE: Final = Shape(
    name="preference",
    recognises=_is_preference,
    read=_read,
    rule="`chosen` and `rejected`: a text, a turn or a list of turns; what was asked stands in `chosen` itself, or under a key of"
    " a list of turns, `prompt`, `question`, `query` or `instruction` with `input`; other answers beside them, such as `output`,"
    " are left out and counted",
    example='{"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello!"}, "rejected": '
    '{"from": "gpt", "value": "What?"}}',
    used_by="Anthropic hh-rlhf, UltraFeedback, TRL and LLaMA-Factory (DPO)",
)
