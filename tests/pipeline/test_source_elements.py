"""The values of arrays and documents: where a broken one ends, and that the compiled walk goes the same way."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.source.elements import Elements, indent_of

PARTS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"\n  ", b" ", b"\r\n", b"a", b'"x"', b'"k":'),
    *(b'{"a": 1}', b"},\n  {", b"\n{", b'},\n{"b":2}', b"]}", b"]\n  [", b"\0", b"\xff"),
]
FILES = st.lists(st.sampled_from(PARTS), max_size=50).map(b"".join)
BETWEEN = st.sampled_from(["array", "document"])
INDENTS = st.sampled_from([None, b"", b"  "])
CAPS = st.sampled_from([5, 20, 1000])


def values(data: bytes, between="array", indent: bytes | None = b"", cap: int = 1000) -> list[bytes]:
    return [data[value.begin : value.end].strip(b" ,\n") for value in Elements(data, between, indent, cap)]


def lines(n: int, indent: bytes = b"") -> list[bytes]:
    return [indent + b'{"n": %d, "text": "a \\" b"}' % i for i in range(n)]


@pytest.mark.parametrize(
    "broken",
    [
        b'{"n": 3, "text": "one quote " too many"}',
        b'{"n": 3, "text": one quote missing"}',
        b'{"n": 3, "text": {"one": "brace missing"}',
        b'{"n": 3, "turns": [{"a": 1}, {"b": "}',
        b'{"n": 3, "text": "a line \n in it"}',
    ],
)
def test_a_broken_element_costs_no_line_but_its_own(broken):
    for indent in (b"", b"    "):
        parts = lines(100, indent)
        parts[3] = indent + broken
        found = values(b"\n" + b",\n".join(parts) + b"\n]", indent=indent)
        assert found == [part.strip() for part in parts]


def test_a_broken_element_over_many_lines_costs_no_other():
    records = [{"n": i, "turns": [{"a": "b"}, {"c": ["d", {"e": 1}]}]} for i in range(50)]
    data = json.dumps(records, indent=2).encode()[1:]
    broken = data.replace(b'"a": "b"', b'"a": "b""', 1).replace(b'"n": 20,', b'"n": "20,', 1)
    found = values(broken, indent=b"  ")
    assert len(found) == 50
    assert [json.loads(raw)["n"] for i, raw in enumerate(found) if i not in (0, 20)] == [
        i for i in range(50) if i not in (0, 20)
    ]


def test_a_valid_element_is_never_parted_whatever_its_lines_look_like():
    record = b'{"a": [\n{"b": 1},\n{"b": 2}\n],\n"c": {"d":\n{"e": 1}}\n}'
    assert values(b"\n" + b",\n".join([record] * 3) + b"]", indent=b"") == [record] * 3


def test_an_element_beyond_the_cap_ends_where_the_next_line_of_its_kind_begins():
    open_ended = b'{"turns": [{"a": 1},\n'
    data = b"\n" + open_ended + b"".join(b"%b,\n" % line for line in lines(10)) + b"]"
    found = values(data, cap=100)
    assert found[0].startswith(open_ended)
    assert found[-5:] == lines(10)[-5:]


@pytest.mark.parametrize(
    ("head", "indent"),
    [
        (b'\n  {"a": 1},\n  {"a": 2}]', b"  "),
        (b'\r\n\t{"a": 1}', b"\t"),
        (b'{"a": "}],"},\n[1]', b""),
        (b'{"a": 1}, {"a": 2},\n{"a": 3}', None),
        (b" 1, 2", None),
        (b"", None),
    ],
)
def test_the_first_two_elements_show_where_lines_begin(head, indent):
    assert indent_of(head, "array") == indent


def test_documents_stand_one_after_the_other():
    data = b'{"a":\n 1}\n\n{"b": 2} {"c": "x"}[3]\noops\n{"d": "\n}\n{"e": 5}'
    assert values(data, "document") == [
        *(b'{"a":\n 1}', b'{"b": 2}', b'{"c": "x"}', b"[3]", b"oops", b'{"d": "\n}', b'{"e": 5}'),
    ]


@settings(deadline=None, max_examples=400)
@given(data=FILES, between=BETWEEN, indent=INDENTS, cap=CAPS, cuts=st.lists(st.integers(0, 300), max_size=4))
def test_the_compiled_walk_finds_the_same_values_in_blocks_of_any_size(data, between, indent, cap, cuts):
    from pipeline.source.elements_kernel import Walk

    elements = Elements(data, between, indent, cap)
    wanted = list(elements)
    walk = Walk(between, indent, cap)
    found = []
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(borders):
        at = start
        while at < end:
            some, came = walk.feed(data[start:end], at - start, start, 1 << 62)
            found += [tuple(row) for row in some.tolist()]
            at = start + came
    assert walk.is_torn == elements.is_torn
    last = walk.finish(len(data))
    assert [*found, *([tuple(last)] if last else [])] == wanted


@settings(deadline=None, max_examples=400)
@given(data=FILES, between=BETWEEN, indent=INDENTS, cap=CAPS)
def test_a_file_can_be_cut_wherever_a_value_is_decided(data, between, indent, cap):
    whole = list(Elements(data, between, indent, cap))
    for n, value in enumerate(whole, 1):
        cut = value.decided
        before = Elements(data[:cut], between, indent, cap, is_last=cut == len(data))
        assert [found[:2] for found in before] == [found[:2] for found in whole[:n]]
        after = Elements(data[cut:], between, indent, cap)
        assert [(begin + cut, end + cut) for begin, end, _ in after] == [found[:2] for found in whole[n:]]
