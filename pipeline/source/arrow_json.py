"""Arrow columns as JSON text, a column at a time: what a table's record would look like as a line of JSON.

Text, whole numbers, booleans, lists and structs are said exactly. Null members of structs are left out: a table has every column
and member in every row, so null is how it says that there is none. For what JSON has no word for:
- floats have a point or an exponent, and are as short as tells them from their neighbours; NaN and infinities are texts
- decimals are numbers with all their digits, durations whole numbers of their unit
- times are texts as ISO 8601 has them, those with a zone in UTC
- bytes become an object {"binary_bytes": how many}, which nobody takes for text
- text that is not UTF-8 keeps its bytes, and ingest says so of its record alone
- columns of the type arrow.json, and texts under pipeline.source.cells.JSON_COLUMNS, are JSON already
"""

import json
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.source.cells import JSON_COLUMNS, json_of

_TEXT: Final = pa.large_binary()
_CONTROL: Final = {code: f"\\u{code:04x}".encode() for code in range(0x20)} | {
    0x08: b"\\b",
    0x09: b"\\t",
    0x0A: b"\\n",
    0x0C: b"\\f",
    0x0D: b"\\r",
}


def records(table: pa.Table) -> pa.Array:
    """Return each row of `table` as a JSON object, in binary."""
    members = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if name in JSON_COLUMNS and _is_text(array.type):
            members.append((name, _cells(name, array)))
        else:
            members.append((name, texts(array)))
    return _objects(members, table.num_rows)


def texts(array: pa.Array) -> pa.Array:
    """Return each element of `array` as JSON text; null stays null."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _cells("", array.storage) if kind.extension_name == "arrow.json" else texts(array.storage)
    if pa.types.is_dictionary(kind):
        return texts(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return texts(pc.run_end_decode(array))
    if pa.types.is_null(kind):
        return pa.nulls(len(array), _TEXT)
    if _is_text(kind):
        return _quoted(array.cast(_TEXT))
    if pa.types.is_struct(kind):
        fields = zip((field.name for field in kind), map(texts, array.flatten()), strict=True)
        return _masked(_objects(list(fields), len(array)), array)
    if pa.types.is_map(kind):
        return _maps(array)
    if _is_list(kind):
        return _masked(_between(b"[", _joined(pc.list_value_length(array), texts(array.flatten())), b"]"), array)
    return _scalars(array)


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in (*lists, pa.types.is_list_view, pa.types.is_large_list_view))


def _scalars(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.large_string()).cast(_TEXT)
    if pa.types.is_floating(kind):
        return _floats(array)
    if pa.types.is_duration(kind):
        return array.cast(pa.int64()).cast(pa.large_string()).cast(_TEXT)
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            array = array.cast(pa.timestamp(kind.unit, "UTC"))
        said = array.cast(pa.large_string()).cast(_TEXT)
        return _quoted(pc.replace_substring(said, b" ", b"T", max_replacements=1))
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return _quoted(array.cast(pa.large_string()).cast(_TEXT))
    if pa.types.is_fixed_size_binary(kind):
        array = array.cast(pa.binary())
        kind = array.type
    if pa.types.is_binary_view(kind):
        array = array.cast(_TEXT)
        kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _between(b'{"binary_bytes":', pc.binary_length(array).cast(pa.large_string()).cast(_TEXT), b"}")
    said = [None if value is None else str(value).encode("utf-8", "replace") for value in array.to_pylist()]
    return _quoted(pa.array(said, _TEXT))  # unions and intervals: nobody reads them, but they are seen


def _floats(array: pa.Array) -> pa.Array:
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    said = array.cast(pa.large_string()).cast(_TEXT)
    is_whole = pc.and_(pc.is_finite(array), pc.invert(pc.match_substring_regex(said, "[.e]")))
    said = pc.if_else(is_whole, _between(b"", said, b".0"), said)
    for is_it, text in (
        (pc.is_nan(array), b'"NaN"'),
        (pc.equal(array, pa.scalar(float("inf"), array.type)), b'"Infinity"'),
        (pc.equal(array, pa.scalar(float("-inf"), array.type)), b'"-Infinity"'),
    ):
        said = pc.if_else(is_it, pa.scalar(text, _TEXT), said)
    return said


def _maps(array: pa.Array) -> pa.Array:
    """Return maps as objects; what is no text among the keys is written as one."""
    kind = array.type
    array = array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
    keys, items = array.flatten().flatten()
    names = texts(keys) if _is_text(keys.type) else _quoted(texts(keys))
    pairs = pc.binary_join_element_wise(names, pc.fill_null(texts(items), b"null"), pa.scalar(b":", _TEXT))
    return _masked(_between(b"{", _joined(pc.list_value_length(array), pairs), b"}"), array)


def _objects(members: list[tuple[str, pa.Array]], length: int) -> pa.Array:
    """Return objects of `members`, (name, texts), without those that are null."""
    parts = []
    is_begun: pa.Array | bool = False  # whether an object has a member already
    for name, text in members:
        if text.null_count == length:
            continue
        key = json.dumps(name).encode() + b":"
        first, further = pa.scalar(key, _TEXT), pa.scalar(b"," + key, _TEXT)
        before = (
            (further if is_begun else first) if isinstance(is_begun, bool) else pc.if_else(is_begun, further, first)
        )
        parts.append(pc.fill_null(pc.binary_join_element_wise(before, text, _empty()), b""))
        if text.null_count == 0:
            is_begun = True
        elif is_begun is not True:
            is_begun = text.is_valid() if is_begun is False else pc.or_(is_begun, text.is_valid())
    if not parts:
        return pa.array([b"{}"] * length, _TEXT)
    return _between(b"{", pc.binary_join_element_wise(*parts, _empty()) if len(parts) > 1 else parts[0], b"}")


def _joined(lengths: pa.Array, elements: pa.Array) -> pa.Array:
    """Return the texts of elements, so many for each list, with commas between them."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False), out=offsets[1:])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pc.fill_null(elements, b"null"))
    return pc.binary_join(lists, pa.scalar(b",", _TEXT))


def _between(before: bytes, text: pa.Array, after: bytes) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(before, _TEXT), text, pa.scalar(after, _TEXT), _empty())


def _empty() -> pa.Scalar:
    return pa.scalar(b"", _TEXT)


def _masked(text: pa.Array, array: pa.Array) -> pa.Array:
    return text if array.null_count == 0 else pc.if_else(array.is_valid(), text, pa.scalar(None, _TEXT))


def _quoted(array: pa.Array) -> pa.Array:
    """Return texts as JSON strings; all bytes but those that JSON escapes stay as they are."""
    _, _, data = array.buffers()
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    present = np.zeros(256, np.bool_)
    if data is not None and len(offsets):
        present[np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]] = True
    for code, escape in ((0x5C, b"\\\\"), (0x22, b'\\"'), *_CONTROL.items()):
        if present[code]:
            array = pc.replace_substring(array, pattern=bytes((code,)), replacement=escape)
    return _between(b'"', array, b'"')


def _cells(name: str, array: pa.Array) -> pa.Array:
    """Return texts that hold JSON as it is written, and others as JSON strings."""
    cells = array.cast(_TEXT)
    raws = [None if cell is None else _json_of(name, cell) for cell in cells.to_pylist()]
    found = [None if raw is None else bytes(raw) for raw in raws]
    if any(raw is None for raw in raws):
        return pc.coalesce(pa.array(found, _TEXT), _quoted(cells))
    return pa.array(found, _TEXT)


def _json_of(name: str, cell: bytes) -> msgspec.Raw | None:
    try:
        return json_of(name, cell.decode())
    except UnicodeDecodeError:
        return None


__all__ = ["records", "texts"]
