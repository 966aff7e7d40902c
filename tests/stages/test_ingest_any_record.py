"""Whatever stands under the keys that shapes read: a row or a reason, never an exception, and no text of another's."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.conversation import Outcome, adapt, adapt_prompt
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.mapping import Mapping
from stages.ingest.shapes import SHAPES

_NAMES = """
    messages conversations conversation role content from value system system_prompt tags source id tools functions name
    tool_calls function_call weight train instruction input output history response context category prompt completion query
    question answer problem solution inputs targets target q a Definition Instances Prompt instances reformulations
    instruction_with_input constraints round_0 round_1 reannotated_messages reannotated_assistant_content column_1 column_2
    column_3 textbox_question textbox_answer textbox_answer_analysis trans_instruction trans_input trans_output text_in
    struct_in seq_out inputs_pretokenized targets_pretokenized is_correct chosen rejected replies text chat data reasoning cot
"""
KEYS = _NAMES.split()
MAPPINGS = (
    None,
    Mapping(turns="messages", role="name", content="text", reasoning="cot", weight="weight"),
    Mapping(turns="conversation.messages", roles={"a": "user", "b": "assistant"}),
    Mapping(
        user=("question", "input?"),
        assistant=("answer", "output?"),
        system="system?",
        tools="tools?",
        rejected="rejected?",
        weight="weight?",
        reasoning="content?",
        tags=("tags?", "source?"),
        id="id?",
    ),
)
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, "", "a", "b", "-", "user", "assistant", '{"Q": "q", "A": "a"}']),
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=10,
)
RECORD = st.one_of(VALUE, st.dictionaries(st.sampled_from(KEYS), VALUE, max_size=6))


def outcomes(record: Any, shape: str, mapping: Mapping | None) -> list[Outcome]:
    try:
        return adapt(Line(json.dumps(record).encode(), 64, mapping, "|"), shape)
    except LineError as error:
        return [error]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif value is not None:
        yield value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=40)
@given(data=st.data())
def test_a_record_with_anything_under_its_keys_is_read_or_refused(shape, data):
    example = json.loads(SHAPES[shape].example)
    others = (
        st.dictionaries(st.sampled_from([*example, "system", "tags"]), VALUE) if isinstance(example, dict) else None
    )
    record = data.draw(RECORD) if others is None else example | data.draw(others)
    for one in outcomes(record, shape, None):
        if isinstance(one, LineError):
            assert one.detail
        else:
            assert any(message.role == "assistant" for message in one.messages)


@pytest.mark.parametrize("mapping", MAPPINGS, ids=["none", "turns", "dotted", "sides"])
@settings(max_examples=150)
@given(record=RECORD)
def test_any_mapping_reads_or_refuses_any_record(mapping, record):
    for one in outcomes(record, "auto", mapping):
        if isinstance(one, LineError):
            assert one.detail
    with contextlib.suppress(LineError):
        assert adapt_prompt(Line(json.dumps(record).encode(), 64, mapping), "auto").shape in {"mapping", *SHAPES}


FLAT_RECORD = st.dictionaries(
    st.sampled_from(KEYS), st.one_of(st.none(), st.sampled_from(["alpha", "beta", "gamma", ""])), max_size=5
)


@settings(max_examples=300)
@given(record=FLAT_RECORD)
def test_what_is_said_is_what_the_record_says(record):
    own = {*strings(record)}
    for one in outcomes(record, "auto", None):
        if not isinstance(one, LineError):
            for message in one.messages:
                parts = (message.content or "").split("|")
                assert {part.removeprefix("Prompt: ") for part in parts} <= own
