"""The footer of a Parquet file, read with care: the library ends the process over some of what a damaged one may say.

It is written in Thrift's compact protocol. Only where the row groups lie is taken; fields are numbered as in parquet.thrift.
"""

from typing import Final

import pyarrow as pa

from pipeline.source.parts import Part

_ROW_GROUPS: Final = 4
_COLUMNS, _SIZE, _ROWS = 1, 2, 3
_META: Final = 3
_PACKED_SIZE, _DATA_PAGE, _DICTIONARY_PAGE = 7, 9, 11
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_SIZES: Final = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8}
"""Bytes of what is skipped; in a list, a boolean takes one."""
_DEEPEST: Final = 32

Value = int | list["Value"] | dict[int, "Value"] | None
"""What a footer holds; texts and floats are left out."""


def groups_of(footer: bytes, file_size: int) -> list[Part]:
    """Return the row groups that a footer lists. Raises ArrowInvalid for one that is damaged, or speaks of other files."""
    value = _Reader(footer).struct(0)
    groups = value.get(_ROW_GROUPS)
    if not isinstance(groups, list):
        raise _damaged()
    return [_group(group, file_size) for group in groups]


def _group(group: Value, file_size: int) -> Part:
    columns = group.get(_COLUMNS) if isinstance(group, dict) else None
    if not isinstance(group, dict) or not isinstance(columns, list):
        raise _damaged()
    start, end = file_size, 0
    for column in columns:
        meta = column.get(_META) if isinstance(column, dict) else None
        if not isinstance(meta, dict):
            raise pa.ArrowInvalid("its footer speaks of columns in other files")
        first = _number(meta, _DATA_PAGE)
        if meta.get(_DICTIONARY_PAGE):
            first = min(first, _number(meta, _DICTIONARY_PAGE))
        start, end = min(start, first), max(end, first + _number(meta, _PACKED_SIZE))
    if not columns:
        start = end = 0
    n_rows, size = _number(group, _ROWS), _number(group, _SIZE)
    if not 0 <= start <= end <= file_size or n_rows < 0:
        raise pa.ArrowInvalid("its footer speaks of bytes that are not in the file")
    return Part(start, end, n_rows, max(0, size))


def _number(struct: dict[int, Value], field: int) -> int:
    value = struct.get(field)
    if not isinstance(value, int):
        raise _damaged()
    return value


def _damaged() -> pa.ArrowInvalid:
    return pa.ArrowInvalid("its footer is damaged")


class _Reader:
    """Values in Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, depth: int) -> dict[int, Value]:
        """Return the fields of the next struct, by number."""
        fields: dict[int, Value] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = int(kind == _TRUE) if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Value:
        if depth > _DEEPEST:
            raise _damaged()
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(self._checked(size))]
        if kind == _MAP:
            size = self._checked(self._varint())
            kinds = self._byte() if size else 0
            for _ in range(size):
                self._value(kinds >> 4, depth + 1)
                self._value(kinds & 15, depth + 1)
        elif kind == _BINARY:
            self._skip(self._varint())
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise _damaged()
        return None

    def _byte(self) -> int:
        self._skip(1)
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise _damaged()
        return value | byte << shift

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _checked(self, size: int) -> int:
        """Return a number of values, of which each takes a byte at least."""
        if size > len(self._data) - self._at:
            raise _damaged()
        return size

    def _skip(self, size: int) -> None:
        self._at += self._checked(size)
