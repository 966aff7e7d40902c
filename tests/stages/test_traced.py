"""A traced string is the plain string, plus who wrote what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.render.containers import tojson, trace
from stages.render.formatting import check_percent, percent
from stages.render.meter import LimitError, Meter
from stages.render.traced import TOOL_CALL, Traced, concat, join, origin, replace, spans_of, whole

TEXT = st.text(alphabet='ab \n\t,é🙂"\\', max_size=12)
PART = st.one_of(st.none(), st.sampled_from([",", "a", "ab", " ", "\n"]))


def authors(text: str) -> str:
    """Write for each character the digit of its origin, or a dot for the template's."""
    out = ["."] * len(text)
    end = 0
    for start, stop, who in spans_of(text):
        assert end <= start < stop <= len(text), "spans ascend, are disjoint and not empty"
        out[start:stop] = str(who) * (stop - start)
        end = stop
    return "".join(out)


MIXED = concat(("<", whole("ab,c", 1), "-", whole(" d\n", 2), ">"))  # <ab,c- d\n>


def test_a_character_keeps_its_author_through_slices():
    assert authors(MIXED) == ".1111.222."
    assert (MIXED[2:7], authors(MIXED[2:7])) == ("b,c- ", "111.2")
    assert (MIXED[-3], authors(MIXED[-3])) == ("d", "2")
    assert (MIXED[::-1], authors(MIXED[::-1])) == (">\nd -c,ba<", ".222.1111.")
    assert [authors(character) for character in MIXED] == list(".1111.222.")


def test_a_character_keeps_its_author_through_splits_and_strips():
    assert [(part, authors(part)) for part in MIXED.split(",")] == [("<ab", ".11"), ("c- d\n>", "1.222.")]
    assert [(part, authors(part)) for part in MIXED.split()] == [("<ab,c-", ".1111."), ("d", "2"), (">", ".")]
    assert [authors(part) for part in MIXED.splitlines(keepends=True)] == [".1111.222", "."]
    assert authors(MIXED.strip("<>")) == "1111.222"
    assert authors(MIXED.partition("-")[2]) == "222."
    assert authors(MIXED.removeprefix("<").removesuffix(">")) == "1111.222"


def test_what_is_inserted_brings_its_own_author():
    assert authors(replace(MIXED, ",", "__")) == ".11..1.222."
    assert authors(replace("x,y", ",", whole("zz", 3))) == ".33."
    assert authors(join(whole("|", 4), ["a", whole("b", 5)])) == ".45"
    assert authors("a" + whole("b", 5) + "c") == ".5."
    assert authors(percent("%s is %d%%", (whole("b", 5), 7))) == "5......"
    assert authors(whole("b", 5).center(4)) == ".5.."


def test_rewritten_characters_are_the_templates():
    for rewritten in (MIXED.upper(), MIXED.title(), MIXED.swapcase(), MIXED.zfill(20), MIXED.expandtabs()):
        assert type(rewritten) is str


def test_output_keeps_the_author():
    assert str(MIXED) is MIXED
    assert f"{MIXED}" == MIXED
    assert type(str(MIXED)) is Traced


def test_the_empty_string_has_no_author():
    assert type(whole("", 1)) is str
    assert type(MIXED[3:3]) is str
    assert type(MIXED[7:2]) is str


@given(left=TEXT, right=TEXT, sep=PART, count=st.integers(-1, 3), cut=st.slices(8))
def test_every_operation_gives_the_text_of_plain_str(left: str, right: str, sep: str | None, count: int, cut: slice):
    plain = left + "|" + right
    traced = concat((whole(left, 1), "|", whole(right, 2)))
    results = {
        "slice": (plain[cut], traced[cut]),
        "split": (plain.split(sep, count), traced.split(sep, count)),
        "rsplit": (plain.rsplit(sep, count), traced.rsplit(sep, count)),
        "lines": (plain.splitlines(), traced.splitlines()),
        "strip": (plain.strip(sep), traced.strip(sep)),
        "lstrip": (plain.lstrip(sep), traced.lstrip(sep)),
        "rstrip": (plain.rstrip(sep), traced.rstrip(sep)),
        "partition": (plain.partition(sep or "|"), traced.partition(sep or "|")),
        "rpartition": (plain.rpartition(sep or "|"), traced.rpartition(sep or "|")),
        "replace": (plain.replace(sep or "", "xy", count), replace(traced, sep or "", "xy", count)),
        "insert": (plain.replace(sep or "", "xy", count), replace(plain, sep or "", whole("xy", 3), count)),
        "prefix": (plain.removeprefix(left), traced.removeprefix(left)),
        "suffix": (plain.removesuffix(right), traced.removesuffix(right)),
        "pad": (plain.center(15), traced.center(15)),
        "ljust": (plain.ljust(15, "."), traced.ljust(15, ".")),
        "rjust": (plain.rjust(15, "."), traced.rjust(15, ".")),
        "join": (plain.join(["a", "b", left]), traced.join(["a", "b", left])),
    }
    for name, (expected, found) in results.items():
        assert expected == found, name
        for part in [found] if isinstance(found, str) else found:
            authors(part)


@given(left=TEXT, right=TEXT)
def test_no_operation_gives_a_character_to_someone_else(left: str, right: str):
    """Every character that survives a split, strip or reversal is one of its author's own."""
    first, second = left.replace("a", "b"), right.replace("b", "a")
    traced = concat((whole(first, 1), "|", whole(second, 2)))
    for part in (*traced.split(), *traced.split("|"), traced.strip(), traced[::-1], *traced.splitlines()):
        for character, who in zip(part, authors(part), strict=True):
            assert who != "1" or character != "a"
            assert who != "2" or character != "b"


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([None, 0, 2, "\t"]),
    st.booleans(),
)
def test_json_of_a_traced_value_is_the_json_of_the_value(value: object, indent: int | str | None, ascii_only: bool):
    who = origin(0, TOOL_CALL)
    options = {"ensure_ascii": ascii_only, "indent": indent}
    expected = tojson(value, **options)
    assert tojson(trace(value, who), **options) == expected
    assert tojson({"x": [trace(value, who), 1]}, **options) == tojson({"x": [value, 1]}, **options)
    assert str(trace(value, who)) == str(value)


def test_json_of_a_call_is_the_calls_from_brace_to_brace():
    call = trace({"name": "f", "arguments": {"x": [1, "é"]}}, origin(0, TOOL_CALL))
    text = tojson({"call": call})
    assert text == '{"call": {"name": "f", "arguments": {"x": [1, "é"]}}}'
    assert authors(text) == "." * 9 + "2" * 43 + "."
    assert authors(tojson(call["arguments"]["x"][0])) == "2"
    assert authors(str(call["arguments"]["x"][0])) == "2"


def test_json_of_a_content_leaves_the_quotes_to_the_template():
    assert authors(tojson({"content": whole('a"b', 4)})) == "." * 13 + "4444.."


def test_a_width_from_the_values_is_refused():
    with pytest.raises(LimitError, match="write the width out"):
        check_percent(Meter(), "%*d", (10**9, 1))
    with pytest.raises(LimitError, match="at most 10000"):
        check_percent(Meter(), "%1000000000d", (1,))
    with pytest.raises(LimitError, match="rename the key"):
        check_percent(Meter(), "%(a(b))1000000000d", {"a(b)": 1})
    with pytest.raises(LimitError, match="100012 characters"):
        check_percent(Meter(), "%s" * 3 + "%(a)s" * 2 + "%(b)s", {"a": "x" * 49_994, "b": ""})
