import json

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.shapes import SHAPES
from tests.stages.reading import read

KEYS = [
    *(
        "messages",
        "conversations",
        "data",
        "chat",
        "turn_1",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "instruction",
    ),
    *(
        "input",
        "output",
        "text",
        "plain_text",
        "prefix",
        "replies",
        "role",
        "from",
        "content",
        "value",
        "message",
        "attrs",
    ),
    *("message_tree_id", "parent_id", "deleted", "Human", "MOSS", "Commands", "Inner Thoughts", "meta_instruction"),
    *("system", "tools", "functions", "weight", "train", "images", "question", "history", "id", "tags", "source"),
]
WORDS = [
    "user",
    "assistant",
    "gpt",
    "x",
    "",
    "<human>: a\n<bot>: b",
    "\n\nHuman: a\n\nAssistant: b",
    "<|MOSS|>: a<eom>",
    "[]",
]
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@settings(deadline=None)  # the first example loads what reads JSON, on a busy machine for long
@given(value, st.sampled_from(["auto", *SHAPES]))
def test_whatever_the_record_and_the_shape_it_is_read_or_refused_with_a_reason(record, shape):
    rows = read(json.dumps(record).encode("utf-8", "surrogatepass"), shape=shape)
    assert rows
    for row in rows:
        assert (row["drop_reason"] is None) == bool(row["messages"])
        assert row["drop_reason"] is None or (DropReason(row["drop_reason"]) and row["detail"])
        for message in row["messages"]:
            assert message["content"] != "None"
            assert message["content"] or message["tool_calls"] or message["reasoning"]


@given(value)
def test_to_recognise_a_record_never_fails(record):
    for shape in SHAPES.values():
        try:
            assert shape.recognises(record) in (True, False)
        except LineError as error:
            raise AssertionError(shape.name) from error
