"""Records that hold a whole conversation in one text, parted by markers."""

from typing import Any, Final

from stages.ingest.line import Line
from stages.ingest.messages import agreed, bad_shape, optional_text
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.shapes.transcript import messages_of, style_of

_TEXTS: Final = ("text", "input", "plain_text")
_INSTRUCTIONS: Final = ("meta_instruction", "prefix")
"""Keys of the system message of MOSS's records."""


def _text_key(record: Any) -> str | None:
    if not isinstance(record, dict):
        return None
    return next((key for key in _TEXTS if isinstance(record.get(key), str) and style_of(record[key])), None)


def _is_marked(record: Any) -> bool:
    return _text_key(record) is not None


def _read(record: Any, line: Line) -> list[Draft]:
    key = _text_key(record)
    if key is None:
        expected = f"a text with markers such as ### Human: under {', '.join(_TEXTS)}"
        raise bad_shape("record", expected, sorted(record)[:12] if isinstance(record, dict) else record)
    style = style_of(record[key])
    assert style is not None, "the key was chosen for its style"
    told = {name: optional_text(record, name) for name in _INSTRUCTIONS}
    instruction = agreed(told, "record")
    return [Draft(messages_of(record[key], style, key, line, told[instruction] if instruction else None))]


MARKED: Final = Shape(
    name="marked_text",
    recognises=_is_marked,
    read=_read,
    rule="`text`, `input` or `plain_text` that begins with, or has at the beginning of lines, `### Human:` and `### Assistant:`"
    " (or User, System), `<human>:` and `<bot>:`, `[|Human|]` and `[|AI|]`, `<|Human|>: ... <eoh>` and `<|MOSS|>: ... <eom>`,"
    " `[Human]: ... <eoh>` and `[MOSS]: ... <eoa>`, or `Human:` and `Assistant:`",
    example='{"text": "### Human: Hi### Assistant: Hello!### Human: Bye### Assistant: Goodbye!"}',
    used_by="OpenAssistant-Guanaco, TinyLlama (hashes), OIG (angles), Baize (bars, under input), MOSS-002 (plain_text)",
)
