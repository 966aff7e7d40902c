"""Strict JSON, one line at a time: what msgspec lets pass but would change the data is refused here."""

import json
from typing import Any, Final

import msgspec

from schemas.reasons import DropReason

MAX_DEPTH: Final = 500
_BOM: Final = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode


class LineError(Exception):
    """A line that cannot become a row: why, and what was found."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode_line(raw: bytes, *, max_depth: int) -> Any:
    """Return the JSON value in `raw`.

    Raises LineError for bytes that are no UTF-8, text that is no JSON, numbers that are not finite, half surrogate
    pairs, NUL characters, nesting beyond `max_depth`, and objects that name a key twice (every common parser keeps one
    of the two values, and they disagree about which).
    """
    if raw.startswith(_BOM):
        raw = raw[3:]
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
    # The number of opening brackets bounds the depth; only a line that has many is scanned.
    if raw.count(b"[") + raw.count(b"{") <= max_depth:
        return
    depth, in_string, escaped = 0, False, False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            if depth > max_depth:
                raise LineError(DropReason.TOO_DEEP, f"nested deeper than {max_depth} levels")
        elif byte in (0x5D, 0x7D):
            depth -= 1


def _may_repeat_a_key(raw: bytes, value: Any) -> bool:
    # Each key contributes one `":` to the line, so a line with no more of them than there are keys in the decoded value
    # repeats none. Text that holds `":` itself, or a space before the colon, only costs the slow check.
    spaced = b'" :' in raw or b'"\t:' in raw or b'"\r:' in raw or b'"\n:' in raw
    return spaced or raw.count(b'":') != _count_keys(value)


def _count_keys(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(_count_keys(item) for item in value.values() if type(item) in (dict, list))
    if type(value) is list:
        return sum(_count_keys(item) for item in value if type(item) in (dict, list))
    return 0


def _check_keys(raw: bytes) -> None:
    json.loads(raw, object_pairs_hook=_no_repeats)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise LineError(DropReason.DUPLICATE_KEY, f"key {key!r} stands twice in one object; keep one of them")
        seen[key] = value
    return seen


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)
