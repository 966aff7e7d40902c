"""Tool calls and tool schemas, as JSON text that is strict inside and stays as it was written."""

import json
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError, decode_text
from stages.ingest.line import Line, Path, elements, members, where
from stages.ingest.messages import agreed, bad_shape, refuse_unknown

_FLAT: Final = frozenset(("id", "type", "name", "arguments", "parameters"))
"""Keys of a call that is not in OpenAI's form; some models say parameters for arguments."""


def tools_text(value: Any, path: Path, line: Line) -> str | None:
    """Return the tool schemas `value`, a list, an object or JSON text, as text; None when there are none."""
    parsed, text = _json(value, path, line)
    if not parsed:
        return None
    if not isinstance(parsed, list | dict):
        raise bad_shape(where(path), "a list of tools", parsed)
    return text


def functions_text(value: Any, path: Path, line: Line) -> str | None:
    """Return the schemas in OpenAI's older list `functions` as tools; None for anything else under that key."""
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(function, dict) and isinstance(function.get("name"), str) for function in value):
        return None
    texts = (f'{{"type": "function", "function": {text}}}' for text in elements(line.verbatim(*path)))
    return f"[{', '.join(texts)}]"


def calls_text(value: Any, path: Path, line: Line) -> str | None:
    """Return the list of calls `value`, as a list or as JSON text, as text; None when it is empty."""
    parsed, text = _json(value, path, line)
    if not parsed:
        return None
    if not isinstance(parsed, list):
        raise bad_shape(where(path), "a list of calls", parsed)
    for i, call in enumerate(parsed):
        _check(call, f"{where(path)}[{i}]", line)
    return text


def call_texts(value: Any, path: Path, line: Line) -> list[str]:
    """Return the call, or list of calls, in `value` as texts in OpenAI's form, their arguments as they were written.

    `value` is {"name", "arguments"}, or a call in OpenAI's form, or JSON text that holds either.
    """
    parsed, text = _json(value, path, line)
    if not parsed:
        return []
    if not isinstance(parsed, list):
        return [_in_openai_form(parsed, text, where(path), line)]
    return [
        _in_openai_form(call, own, f"{where(path)}[{i}]", line)
        for i, (call, own) in enumerate(zip(parsed, elements(text), strict=True))
    ]


def _json(value: Any, path: Path, line: Line) -> tuple[Any, str]:
    """Return (the JSON value, its text); (None, "") when there is none."""
    if value is None:
        return None, ""
    if isinstance(value, str):
        return (decode_text(value, where(path), max_depth=line.max_depth), value) if value.strip() else (None, "")
    if not isinstance(value, list | dict):
        raise bad_shape(where(path), "JSON", value)
    return value, line.verbatim(*path)


def _check(call: Any, at: str, line: Line) -> None:
    """Raise LineError unless `call` names a function and its arguments, where they are JSON text, are strict JSON."""
    if not isinstance(call, dict):
        raise bad_shape(at, "a call with a name", call)
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad_shape(at, "a call with a name", call)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        _check_arguments(arguments, f"{at}.arguments", line)


def _check_arguments(text: str, at: str, line: Line) -> None:
    # Templates parse arguments with json.loads where that succeeds, so what it would accept has to be strict. Text that
    # it refuses is what a model really wrote (code, or JSON cut short): it is kept as text.
    try:
        decode_text(text, at, max_depth=line.max_depth)
    except LineError as error:
        if error.reason is DropReason.TOO_DEEP:
            raise
        try:
            json.loads(text)
        except ValueError:
            return
        except RecursionError:
            raise LineError(DropReason.TOO_DEEP, f"{at}: nested too deeply for the decoder") from None
        raise


def _in_openai_form(call: Any, text: str, at: str, line: Line) -> str:
    _check(call, at, line)
    if "function" in call:
        return text
    refuse_unknown(call, _FLAT, at)
    own = members(text)
    key = agreed({key: call.get(key) for key in ("arguments", "parameters")}, at)
    identity = f'"id": {own["id"]}, ' if call.get("id") is not None else ""
    arguments = own[key] if key is not None else "{}"
    return f'{{{identity}"type": "function", "function": {{"name": {own["name"]}, "arguments": {arguments}}}}}'
