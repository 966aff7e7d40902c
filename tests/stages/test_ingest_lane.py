import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.decode import LineError
from stages.ingest.fast import read_fast
from tests.stages.chats import QA
from tests.stages.reading import read, said
from tests.stages.rows import strict

text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=40)


key = st.sampled_from(
    ["messages", "conversations", "role", "content", "id", "source", "tags", "prompt", "system", "tools"]
)


role_name = st.sampled_from(["user", "assistant", "User", "gpt", "wizard", ""])


said_text = text | st.sampled_from(['"role": 1', "\\u0000", "\0", "\ud800", "", '" :'])


turn = st.dictionaries(key, said_text, max_size=3) | st.fixed_dictionaries({"role": role_name, "content": said_text})


line = st.lists(st.tuples(key, st.lists(turn, max_size=3) | said_text | st.integers()), max_size=3)


def spelled(pairs, gap, escape):
    """JSON text of key-value pairs that may repeat a key, with a chosen gap before the colons."""
    body = ", ".join(f"{json.dumps(name)}{gap}: {json.dumps(value, ensure_ascii=escape)}" for name, value in pairs)
    return ("{" + body + "}").encode("utf-8", "surrogatepass")


@given(line, st.sampled_from(["", "", " ", "\t", "\n", "  ", " \t", "\r\n"]), st.booleans())
def test_the_fast_lane_never_disagrees_with_the_strict_one(pairs, gap, escape):
    raw = spelled(pairs, gap, escape)
    fast = read_fast(raw)
    if fast is not None:
        assert strict(raw) == fast


plain_turn = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["assistant", "gpt", "user", "system"]),
        "content": text | text | text | st.just('"role" :'),
    }
)


plain_line = st.tuples(
    st.tuples(st.sampled_from(["messages", "conversations"]), st.lists(plain_turn, min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["id", "source", "system", "weight"]), st.none() | st.just(1) | text),
)


@given(plain_line, st.sampled_from(["", "", "", "  "]), st.booleans(), st.sampled_from([True, True, False]))
def test_whichever_lane_reads_an_ordinary_line_it_says_the_same(pairs, gap, escape, bare):
    raw = spelled(pairs[:1] if bare else pairs, gap, escape)
    fast = read_fast(raw)
    (row,) = read(raw)
    if row["drop_reason"] is not None:
        assert fast is None
        with pytest.raises(LineError, match=row["drop_reason"]):
            strict(raw)
        return
    lawful = strict(raw)
    assert fast in (None, lawful)
    assert said(row) == [(message.role, message.content) for message in lawful.messages]
    assert (row["tools"], tuple(row["tags"])) == (lawful.tools, lawful.tags)


def test_the_fast_lane_takes_ordinary_records():
    raw = json.dumps({"id": "1", "source": "s", "conversations": QA}).encode()
    assert read_fast(raw) == strict(raw)
    assert read_fast(raw) is not None


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "c"}]}',
        b'{"id": 1, "id"\n: 2, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}',
        b'{"messages": [{"role": "user", "content": "a\\":"}, {"role": "assistant", "content": "c"}]}',
        b'{"messages": [{"role": "assistant", "content": "c", "weight": 0}]}',
    ],
)
def test_the_fast_lane_leaves_doubtful_lines_to_the_strict_one(raw):
    assert read_fast(raw) is None
