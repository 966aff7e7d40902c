"""Arrow files, in the file format and in that of streams: where their record batches lie, and what these hold.

A file is a stream between a mark and a footer, so that both are read in one way. Nothing is believed: offsets that lead out of a
buffer are found before anything follows them. Text is not checked for being UTF-8; that is for each record to say.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.ipc

from pipeline.source.opening import open_columns
from pipeline.source.parts import Part

_MAGIC: Final = b"ARROW1\0\0"
_END: Final = b"\xff\xff\xff\xff\0\0\0\0"


class _Message(NamedTuple):
    kind: str
    start: int
    end: int


def parts_of(place: str) -> tuple[pa.Schema, list[Part]]:
    """Return (schema, record batches). Raises ArrowException, OSError for a file that is cut off or none."""
    with open_columns(place) as file:
        _skip_mark(file)
        messages = list(_messages(file))
        schema = _schema(file, messages)
        if not schema.names:
            raise pa.ArrowInvalid("it has no columns")
        batches = [message for message in messages if message.kind == "record batch"]
        lengths = _lengths(file, messages[0].start)
        return schema, [
            Part(batch.start, batch.end, n_rows, batch.end - batch.start)
            for batch, n_rows in zip(batches, lengths, strict=True)
        ]


def schema_of(place: str) -> pa.Schema:
    """Return the schema. Raises ArrowException, OSError for a file that is cut off or none."""
    with open_columns(place) as file:
        _skip_mark(file)
        return _schema(file, [next(_messages(file))])


def read_parts(place: str, first: int, last: int, start: int, end: int) -> pa.Table:
    """Return the record batches `first` to `last`, that one not included, which lie from `start` to `end`, as a table."""
    with open_columns(place) as file:
        _skip_mark(file)
        messages = _messages(file)
        schema = _schema(file, [next(messages)])
        stream = pa.BufferOutputStream()
        stream.write(_untold(schema).serialize())
        if _has_dictionary(schema.types):
            for message in messages:
                if message.start >= start:
                    break
                if message.kind != "record batch":
                    file.seek(message.start)
                    stream.write(file.read(message.end - message.start))
                    file.seek(message.end)
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


def _skip_mark(file: pa.NativeFile) -> None:
    """Go to where the stream begins, in a file after its mark. Raises ArrowInvalid for a file without its footer."""
    head = file.read(len(_MAGIC))
    if head.startswith(b"FEA1"):
        raise pa.ArrowInvalid("it is Feather version 1, which no longer is read; write it anew with pyarrow.feather")
    if head != _MAGIC:
        file.seek(0)
        return
    pa.ipc.open_file(file)  # raises unless the footer is there
    file.seek(len(_MAGIC))


def _messages(file: pa.NativeFile) -> Iterator[_Message]:
    """Yield the messages from the position on. Raises ArrowInvalid when the mark of their end is missing."""
    start = file.tell()
    while file.read(len(_END)) != _END:
        file.seek(start)
        try:
            message = pa.ipc.read_message(file)
        except EOFError:
            raise pa.ArrowInvalid("the mark that ends it is missing") from None
        end = file.tell()
        yield _Message(message.type, start, end)
        start = end


def _schema(file: pa.NativeFile, messages: list[_Message]) -> pa.Schema:
    if not messages or messages[0].kind != "schema":
        raise pa.ArrowInvalid("it does not begin with a schema")
    file.seek(messages[0].start)
    return pa.ipc.read_schema(pa.ipc.read_message(file))


def _lengths(file: pa.NativeFile, start: int) -> list[int]:
    """Return the rows of each record batch; of its columns only the first is looked at."""
    file.seek(start)
    options = pa.ipc.IpcReadOptions(included_fields=[0])
    return [batch.num_rows for batch in pa.ipc.open_stream(file, options=options)]


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
