"""Facts about the vocabulary as a whole."""

import pyarrow as pa
import pytest

from pipeline.graph import GRAPH, NAMES
from schemas import tables
from schemas.manifest import STAGES
from schemas.reasons import EXPLANATIONS, DropReason
from schemas.tables import dropped_schema


def columns(schema: pa.Schema) -> list[pa.Field]:
    inner = [
        child
        for column in schema
        if pa.types.is_list(column.type) and pa.types.is_struct(column.type.value_type)
        for child in column.type.value_type
    ]
    return [*schema, *inner]


@pytest.mark.parametrize("stage", GRAPH, ids=NAMES)
def test_every_column_is_documented(stage):
    for column in [*columns(stage.writes), *stage.evidence]:
        assert len(column.metadata[b"doc"]) > 10, column.name


def test_every_reason_is_explained():
    assert set(EXPLANATIONS) == set(DropReason)


def test_packs_carry_no_attention_mask():
    # with one, Hugging Face models let the documents of a pack see each other
    assert "attention_mask" not in tables.PACKED.names


def test_dropped_rows_may_lack_anything_but_the_reason():
    schema = dropped_schema(tables.RENDERED, tables.EXPLAINED)
    assert schema.names == ["id", "split", "text", "spans", "notes", "detail", "drop_reason"]
    assert [column.name for column in schema if not column.nullable] == ["drop_reason"]


def test_the_names_of_the_stages_are_those_of_the_graph():
    assert STAGES == NAMES
