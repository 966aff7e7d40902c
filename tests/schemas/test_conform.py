import polars as pl
import pyarrow as pa
import pytest

from schemas.conform import SchemaError, conform
from schemas.fields import field

SCHEMA = pa.schema(
    [field("id", pa.string(), "name"), field("ids", pa.list_(pa.int32()), "tokens", unit="token", nullable=True)]
)


def test_polars_types_become_plain_arrow_types_with_their_documentation():
    table = conform(pl.DataFrame({"ids": [[1, 2]], "id": ["a"], "extra": [0]}).to_arrow(), SCHEMA)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert table.to_pylist() == [{"id": "a", "ids": [1, 2]}]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pl.DataFrame({"id": ["a"]}), "missing column(s) ids; got id"),
        (pl.DataFrame({"id": [None], "ids": [[1]]}), "column id: 1 null value(s), none may be"),
        (pl.DataFrame({"id": ["a"], "ids": [[1 << 40]]}), "column ids: expected list<item: int32>"),
    ],
)
def test_a_table_that_breaks_its_schema_is_refused(frame, said):
    with pytest.raises(SchemaError) as error:
        conform(frame.to_arrow(), SCHEMA)
    assert said in str(error.value)
