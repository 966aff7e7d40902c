"""Strict JSON, one line at a time: what msgspec lets pass but would change the data is refused here."""

import json
import re
from itertools import accumulate
from typing import Any, Final

import msgspec

from schemas.reasons import DropReason

MAX_DEPTH: Final = 500
_MAX_DETAIL: Final = 500  # a detail names keys, and a key may be as long as its line
BOM: Final = b"\xef\xbb\xbf"
_SPACED_KEY: Final = re.compile(rb'"[ \t\n\r]+:')
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, or the unfinished one that a broken line ends with."""
_NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[]{}", b"\1\0\1\0")
_decode = msgspec.json.Decoder().decode


class LineError(Exception):
    """A line that cannot become a row: why, and what was found."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail if len(detail) <= _MAX_DETAIL else f"{detail[: _MAX_DETAIL - 3]}..."


def decode_line(raw: bytes, *, max_depth: int) -> Any:
    """Return the JSON value in the line `raw`, which may begin with a byte order mark.

    Raises LineError as strict_json does.
    """
    return strict_json(raw.removeprefix(BOM), max_depth=max_depth)


def decode_text(text: str, where: str, *, max_depth: int) -> Any:
    """Return the JSON value that the text under `where` holds, read as strictly as the line around it.

    Raises LineError as strict_json does, with the place in its detail.
    """
    try:
        return strict_json(text.encode(), max_depth=max_depth)
    except LineError as error:
        raise LineError(error.reason, f"{where}: {error.detail}") from None


def strict_json(raw: bytes, *, max_depth: int) -> Any:
    """Return the JSON value in `raw`.

    Raises LineError for bytes that are no UTF-8, text that is no JSON, numbers that are not finite, half surrogate
    pairs, NUL characters, nesting beyond `max_depth`, and objects that name a key twice (every common parser keeps one
    of the two values, and they disagree about which).
    """
    _check_depth(raw, max_depth)
    try:
        value = _decode(raw)
    except msgspec.DecodeError as error:
        raise _explain(raw, error) from None
    except UnicodeDecodeError as error:
        raise LineError(DropReason.BAD_UTF8, f"byte {error.start}: {error.reason}") from None
    except RecursionError:
        raise LineError(DropReason.TOO_DEEP, "nested too deeply for the decoder") from None
    if _may_repeat_a_key(raw, value):
        _check_keys(raw)
    if (b"\\u0000" in raw or b"\0" in raw) and _holds_nul(value):
        raise LineError(DropReason.NUL_CHARACTER, "a string holds U+0000; remove it at the source")
    return value


def _explain(raw: bytes, error: msgspec.DecodeError) -> LineError:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as unicode_error:
        return LineError(DropReason.BAD_UTF8, f"byte {unicode_error.start}: {unicode_error.reason}")
    text = str(error)
    if "surrogate" in text.lower() or _is_lone_surrogate(raw):
        return LineError(DropReason.LONE_SURROGATE, "a \\ud800-\\udfff escape stands without its other half")
    return LineError(DropReason.BAD_JSON, text)


def _is_lone_surrogate(raw: bytes) -> bool:
    if b"\\u" not in raw:
        return False
    try:
        json.dumps(json.loads(raw), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _check_depth(raw: bytes, max_depth: int) -> None:
    # The number of opening brackets bounds the depth; only a line that has many is looked into.
    if raw.count(b"[") + raw.count(b"{") <= max_depth:
        return
    steps = _STRING.sub(b"", raw).translate(_STEPS, _NO_BRACKET)
    if max(accumulate(1 if step else -1 for step in steps), default=0) > max_depth:
        raise LineError(DropReason.TOO_DEEP, f"nested deeper than {max_depth} levels")


def _may_repeat_a_key(raw: bytes, value: Any) -> bool:
    # Each key contributes one `":` to the line, so a line with no more of them than there are keys in the decoded value
    # repeats none. Text that holds `":` itself, or blanks before the colon, only costs the slow check.
    return has_spaced_key(raw) or raw.count(b'":') != _count_keys(value)


def has_spaced_key(raw: bytes) -> bool:
    """Tell whether blanks may stand between a key and its colon; text that looks like it counts too."""
    return _SPACED_KEY.search(raw) is not None


def _count_keys(value: Any) -> int:
    # With its own stack, as _holds_nul: at the greatest max_depth, calls within calls would run out of Python's.
    n_keys = 0
    pending = [value]
    while pending:
        value = pending.pop()
        if type(value) is dict:
            n_keys += len(value)
            pending.extend(item for item in value.values() if type(item) in (dict, list))
        elif type(value) is list:
            pending.extend(item for item in value if type(item) in (dict, list))
    return n_keys


def _check_keys(raw: bytes) -> None:
    try:
        json.loads(raw.decode(), object_pairs_hook=_no_repeats)
    except RecursionError:
        raise LineError(DropReason.TOO_DEEP, "nested too deeply for the decoder") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise LineError(DropReason.DUPLICATE_KEY, f"key {key!r} stands twice in one object; keep one of them")
        seen[key] = value
    return seen


def _holds_nul(value: Any) -> bool:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False
