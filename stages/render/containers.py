"""JSON values that remember which message they came from, and the `tojson` filter over them."""

import json
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Final

from stages.render.traced import TOOL_CALL, Traced, concat, spans_of, traced, whole


class TracedDict(dict[Any, Any]):
    """A JSON object that one message wrote."""

    __slots__ = ("_origin",)
    _origin: int

    def __repr__(self) -> str:
        return whole(dict.__repr__(self), self._origin)


class TracedList(list[Any]):
    """A JSON array that one message wrote."""

    __slots__ = ("_origin",)
    _origin: int

    def __repr__(self) -> str:
        return whole(list.__repr__(self), self._origin)


class TracedInt(int):
    """A JSON integer that one message wrote; arithmetic on it gives plain numbers."""

    _origin: int

    def __str__(self) -> str:
        return whole(int.__repr__(self), self._origin)


class TracedFloat(float):
    """A JSON number that one message wrote; arithmetic on it gives plain numbers."""

    _origin: int

    def __str__(self) -> str:
        return whole(float.__repr__(self), self._origin)


WHOLE: Final = (TracedDict, TracedList, TracedInt, TracedFloat)


def trace(value: Any, who: int) -> Any:
    """Return a copy of a JSON value in which everything is traced to `who`, except true, false and null."""
    return _trace(value, who, {})


def _trace(value: Any, who: int, texts: dict[str, str]) -> Any:
    out: Any
    kind = type(value)
    if kind is str:
        if value not in texts:
            texts[value] = whole(value, who)  # the same few words stand in every schema
        return texts[value]
    if kind is dict:
        out = TracedDict({_trace(key, who, texts): _trace(item, who, texts) for key, item in value.items()})
    elif kind is list:
        out = TracedList([_trace(item, who, texts) for item in value])
    elif kind is int:
        out = TracedInt(value)
    elif kind is float:
        out = TracedFloat(value)
    else:
        return value
    out._origin = who
    return out


def _is_traced(value: Any) -> bool:
    """Tell whether a JSON value holds anything that a message wrote."""
    if isinstance(value, (Traced, *WHOLE)):
        return True
    if isinstance(value, dict):
        return any(_is_traced(key) or _is_traced(item) for key, item in value.items())
    return isinstance(value, (list, tuple)) and any(map(_is_traced, value))


def tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON exactly as transformers' filter of this name does, keeping who wrote what.

    The braces, quotes and numbers of a value that a message wrote whole are the message's too.
    """
    text = json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if isinstance(x, WHOLE):
        return whole(text, x._origin)
    if not _is_traced(x):
        return text
    return _Writer(ensure_ascii, indent, separators, sort_keys).write(x, 0)


class _Writer:
    """Write a JSON value piece by piece, as `json.JSONEncoder` lays it out."""

    def __init__(
        self, ensure_ascii: bool, indent: int | str | None, separators: tuple[str, str] | None, sort_keys: bool
    ) -> None:
        self.options: dict[str, Any] = {
            "ensure_ascii": ensure_ascii,
            "indent": indent,
            "separators": separators,
            "sort_keys": sort_keys,
        }
        self.escape = encode_basestring_ascii if ensure_ascii else encode_basestring
        self.indent = " " * indent if isinstance(indent, int) else indent
        self.comma, self.colon = separators or ((", ", ": ") if indent is None else (",", ": "))
        self.sort_keys = sort_keys

    def write(self, value: Any, depth: int) -> str:
        if isinstance(value, WHOLE):
            text = json.dumps(value, **self.options)
            # no JSON string holds a raw line end, so every one of them is layout
            return whole(text if self.indent is None else text.replace("\n", self._line(depth)), value._origin)
        if type(value) is Traced:
            return self._string(value)
        if isinstance(value, dict) and value:
            items = sorted(value.items()) if self.sort_keys else value.items()
            return self._nest(
                "{", [concat((self._key(k), self.colon, self.write(v, depth + 1))) for k, v in items], "}", depth
            )
        if isinstance(value, (list, tuple)) and value:
            return self._nest("[", [self.write(item, depth + 1) for item in value], "]", depth)
        return json.dumps(value, **self.options)

    def _line(self, depth: int) -> str:
        return "" if self.indent is None else "\n" + self.indent * depth

    def _nest(self, opening: str, parts: list[str], closing: str, depth: int) -> str:
        pieces = [opening, self._line(depth + 1)]
        for part in parts:
            pieces += (part, self.comma, self._line(depth + 1))
        return concat((*pieces[:-2], self._line(depth), closing))

    def _key(self, key: Any) -> str:
        if isinstance(key, str):
            return self.write(key, 0)
        return json.dumps(key if isinstance(key, str) else json.dumps(key))

    def _string(self, text: str) -> str:
        """Escape a string; the quotes are the template's, unless the string is a value of a tool call."""
        spans = spans_of(text)
        if spans == ((0, len(text), spans[0][2]),) and (spans[0][2] < 0 or spans[0][2] & 3 == TOOL_CALL):
            return whole(self.escape(text), spans[0][2])
        pieces = ['"']
        at = 0
        for start, end, who in spans:
            pieces += (self.escape(str.__getitem__(text, slice(at, start)))[1:-1],)
            pieces.append(traced(self.escape(str.__getitem__(text, slice(start, end)))[1:-1], ()))
            pieces[-1] = whole(pieces[-1], who)
            at = end
        return concat((*pieces, self.escape(str.__getitem__(text, slice(at, len(text))))[1:-1], '"'))
