"""Arrow files, in the file format and in that of streams: where their record batches lie, and what these hold.

A file is a stream between a mark and a footer, so that both are read in one way. Nothing is believed: offsets that lead out of a
buffer are found before anything follows them. Text is not checked for being UTF-8; that is for each record to say.
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.ipc

from pipeline.source.opening import open_columns
from pipeline.source.parts import Part

_MAGIC: Final = b"ARROW1\0\0"
_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
_SCHEMA, _DICTIONARY, _RECORD_BATCH = 1, 2, 3
_U16, _U32, _I32, _I64 = (struct.Struct(form) for form in ("<H", "<I", "<i", "<q"))


class _Message(NamedTuple):
    kind: int
    start: int
    end: int
    n_rows: int
    """Of a record batch."""


def parts_of(place: str) -> tuple[pa.Schema, list[Part]]:
    """Return (schema, record batches). Raises ArrowException, OSError for a file that is cut off or none."""
    with open_columns(place) as file:
        n_batches = _skip_mark(file)
        messages = list(_messages(file))
        after = file.tell()
        schema = _schema(file, messages)
        if not schema.names:
            raise pa.ArrowInvalid("it has no columns")
        has_dictionary, state = _has_dictionary(schema.types), hashlib.sha256()
        parts = []
        for message in messages[1:]:
            if message.kind == _RECORD_BATCH:
                if not message.n_rows:  # it will not be read: so see now whether that is what it says
                    pa.ipc.read_message(_bytes(file, message))
                size = message.end - message.start
                parts.append(Part(message.start, message.end, message.n_rows, size, _told_before(state)))
            elif has_dictionary and message.kind == _DICTIONARY:
                state.update(_bytes(file, message))
            else:
                raise _damaged(message.start)
        if n_batches is None and after != file.size():
            raise pa.ArrowInvalid("something follows the mark that ends it")
        if n_batches is not None and n_batches != len(parts):
            raise pa.ArrowInvalid(f"its footer lists {n_batches} record batches, and there are {len(parts)}")
        return schema, parts


def schema_of(place: str, start: int) -> tuple[pa.Schema, str]:
    """Return (the schema, Part.before of the record batch at `start`). Raises ArrowException, OSError as parts_of does."""
    with open_columns(place) as file:
        _skip_mark(file)
        messages = _messages(file)
        schema = _schema(file, [next(messages)])
        state = hashlib.sha256()
        for dictionary in _dictionaries(file, schema, messages, start):
            state.update(dictionary)
        return schema, _told_before(state)


def read_parts(place: str, first: int, last: int, start: int, end: int) -> pa.Table:
    """Return the record batches `first` to `last`, that one not included, which lie from `start` to `end`, as a table."""
    with open_columns(place) as file:
        _skip_mark(file)
        messages = _messages(file)
        schema = _schema(file, [next(messages)])
        stream = pa.BufferOutputStream()
        stream.write(_untold(schema).serialize())
        for dictionary in _dictionaries(file, schema, messages, start):
            stream.write(dictionary)
        file.seek(start)
        stream.write(file.read(end - start))
        stream.write(_END)
    batches = []
    for batch in pa.ipc.open_stream(stream.getvalue()):
        batch.validate(full=True)
        columns = [_told(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    if len(batches) != last - first:
        raise pa.ArrowInvalid(f"{last - first} record batches were announced, and there are {len(batches)}")
    return pa.Table.from_batches(batches, schema)


def _dictionaries(file: pa.NativeFile, schema: pa.Schema, messages: Iterator[_Message], start: int) -> Iterator[bytes]:
    """Yield the dictionaries that stand before `start`, as they lie in the file."""
    if _has_dictionary(schema.types):
        for message in messages:
            if message.start >= start:
                break
            if message.kind == _DICTIONARY:
                yield _bytes(file, message)


def _bytes(file: pa.NativeFile, message: _Message) -> bytes:
    file.seek(message.start)
    data: bytes = file.read(message.end - message.start)
    return data


def _told_before(state: "hashlib._Hash") -> str:
    """Return a hash's text; nothing of nothing, so that files without dictionaries are known as they always were."""
    return "" if state.digest() == hashlib.sha256().digest() else state.hexdigest()


def _told(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return `array`, just read, as one of `kind`, which is laid out as it is."""
    if not _has_null(kind):
        return array.view(kind)
    # of what is null by type, a view has as many as its parent has rows, which are too few in a list
    if pa.types.is_struct(kind):
        children = [_told(array.field(i), kind.field(i).type) for i in range(kind.num_fields)]
        return pa.Array.from_buffers(kind, len(array), array.buffers()[:1], children=children)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        children = [_told(array.values, kind.value_type)]
        return pa.Array.from_buffers(kind, len(array), array.buffers()[:2], children=children)
    return array if pa.types.is_null(kind) else array.view(kind)


def _has_null(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or any(_has_null(kind.field(i).type) for i in range(kind.num_fields))


def _has_dictionary(kinds: list[pa.DataType]) -> bool:
    return any(
        pa.types.is_dictionary(kind) or _has_dictionary([kind.field(i).type for i in range(kind.num_fields)])
        for kind in (each.storage_type if isinstance(each, pa.BaseExtensionType) else each for each in kinds)
    )


def _skip_mark(file: pa.NativeFile) -> int | None:
    """Go to where the stream begins, in a file after its mark; return how many record batches its footer lists, if it has one.

    Raises ArrowInvalid for a file without its footer.
    """
    head = file.read(len(_MAGIC))
    if head.startswith(b"FEA1"):
        raise pa.ArrowInvalid("it is Feather version 1, which no longer is read; write it anew with pyarrow.feather")
    if head != _MAGIC:
        file.seek(0)
        return None
    n_batches: int = pa.ipc.open_file(file).num_record_batches  # raises unless the footer is there
    file.seek(len(_MAGIC))
    return n_batches


def _messages(file: pa.NativeFile) -> Iterator[_Message]:
    """Yield the messages from the position on, of which only what says how long they are is read, and go behind their end.

    Raises ArrowInvalid when the mark of their end is missing, and for one that cannot be.
    """
    start, size = file.tell(), file.size()
    while (head := file.read(len(_END))) != _END:
        if len(head) < len(_END):
            raise pa.ArrowInvalid("the mark that ends it is missing")
        length = int.from_bytes(head[4:], "little", signed=True)
        body = start + len(_END) + length
        if head[:4] != _END[:4] or length < 0 or body > size:
            raise pa.ArrowInvalid(f"at byte {start:,} no message begins")
        kind, body_length, n_rows = _said(file.read(length), start)
        if body_length < 0 or n_rows < 0 or body + body_length > size:
            raise pa.ArrowInvalid("the mark that ends it is missing")
        yield _Message(kind, start, body + body_length, n_rows)
        start = body + body_length
        file.seek(start)


def _said(metadata: bytes, start: int) -> tuple[int, int, int]:
    """Return (kind, length of its body, rows) of a message, laid out as FlatBuffers have it and Arrow's Message.fbs."""
    try:
        (message,) = _U32.unpack_from(metadata, 0)
        kind = _field_at(metadata, message, 1)
        header = _field_at(metadata, message, 2)
        body = _field_at(metadata, message, 3)
        batch = header and header + _U32.unpack_from(metadata, header)[0]
        is_batch = kind and metadata[kind] == _RECORD_BATCH
        n_rows = _field_at(metadata, batch, 0) if is_batch else 0
        return (
            metadata[kind] if kind else 0,
            _I64.unpack_from(metadata, body)[0] if body else 0,
            _I64.unpack_from(metadata, n_rows)[0] if n_rows else 0,
        )
    except (struct.error, IndexError):
        raise _damaged(start) from None


def _damaged(start: int) -> pa.ArrowInvalid:
    return pa.ArrowInvalid(f"the message at byte {start:,} is damaged")


def _field_at(data: bytes, table: int, number: int) -> int:
    """Return where a field of a table lies, 0 for one that it does not have. Raises struct.error."""
    fields = table - _I32.unpack_from(data, table)[0]
    if fields < 0:
        raise struct.error
    place = 4 + 2 * number
    offset: int = _U16.unpack_from(data, fields + place)[0] if _U16.unpack_from(data, fields)[0] > place else 0
    return offset and table + offset


def _schema(file: pa.NativeFile, messages: list[_Message]) -> pa.Schema:
    if not messages or messages[0].kind != _SCHEMA:
        raise pa.ArrowInvalid("it does not begin with a schema")
    file.seek(messages[0].start)
    return pa.ipc.read_schema(pa.ipc.read_message(file))


def _untold(schema: pa.Schema) -> pa.Schema:
    """Return `schema` with bytes for text: as Arrow lays them out they are the same, but not held to be UTF-8."""
    return pa.schema([_field(field) for field in schema])


def _field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _kind(field.type), field.nullable)


def _kind(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _kind(kind.storage_type)
    for is_kind, to in (
        (pa.types.is_string, pa.binary()),
        (pa.types.is_large_string, pa.large_binary()),
        (pa.types.is_string_view, pa.binary_view()),
    ):
        if is_kind(kind):
            return to
    if pa.types.is_struct(kind):
        return pa.struct([_field(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_field(kind.key_field), _field(kind.item_field), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_field(kind.value_field), kind.list_size)
    for is_kind, of in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(kind):
            return of(_field(kind.value_field))
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _kind(kind.value_type), kind.ordered)
    return kind
