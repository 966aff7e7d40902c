import msgspec
import polars as pl
import pytest

from schemas.fields import MESSAGE
from stages.length import Length, mark_length


def conversations(*contents: list[tuple[str, str | None]]) -> pl.DataFrame:
    empty = dict.fromkeys(field.name for field in MESSAGE)
    rows = [[{**empty, "role": role, "content": content} for role, content in row] for row in contents]
    return pl.DataFrame({"id": [f"a:{i}" for i in range(len(rows))], "messages": rows})


def test_a_short_conversation_is_marked_not_removed():
    out = mark_length(conversations([("user", "Hi"), ("assistant", "Yo")]), Length(min_chars=5))
    assert out.select("n_chars", "n_turns", "drop_reason").row(0) == (4, 1, "too_short")


def test_bounds_are_inclusive():
    frame = conversations([("user", "abc"), ("assistant", "de")])
    assert mark_length(frame, Length(min_chars=5, max_chars=5))["drop_reason"].to_list() == [None]
    assert mark_length(frame, Length(max_chars=4))["drop_reason"].to_list() == ["too_long"]
    assert mark_length(frame, Length(min_turns=2))["drop_reason"].to_list() == ["too_few_turns"]


def test_characters_are_counted_not_bytes_and_a_null_content_counts_nothing():
    out = mark_length(conversations([("user", "你好👍"), ("assistant", None), ("assistant", "é")]), Length())
    assert out.select("n_chars", "n_turns").row(0) == (4, 2)


def test_bounds_that_exclude_everything_are_refused():
    with pytest.raises(msgspec.ValidationError, match="min_chars=9 exceeds max_chars=3"):
        msgspec.convert({"min_chars": 9, "max_chars": 3}, Length)
