"""The border between Polars inside and Arrow outside: a table either has its schema or is refused."""

import pyarrow as pa


class SchemaError(ValueError):
    """A stage wrote a table that its contract does not allow: a defect of the stage, never of the data."""


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `table` with exactly the columns, types, nullability and metadata of `schema`.

    Raises SchemaError for a missing column, a value that does not fit its type, or a null where none may be.
    """
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise SchemaError(f"missing column(s) {', '.join(missing)}; got {', '.join(table.column_names)}")
    table = table.select(schema.names)
    columns = []
    for column, expected in zip(table.columns, schema, strict=True):
        try:
            cast = column.cast(expected.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(
                f"column {expected.name}: expected {expected.type}, got {column.type}: {error}"
            ) from error
        if cast.null_count and not expected.nullable:
            raise SchemaError(f"column {expected.name}: {cast.null_count} null value(s), none may be")
        columns.append(cast)
    return pa.Table.from_arrays(columns, schema=schema)
