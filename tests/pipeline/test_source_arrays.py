"""JSON over several lines: arrays, records one after the other, and files that are one record."""

import json

import pytest

from pipeline.source import Source, read_chunk, scan
from pipeline.source.values import SMALL as SMALL_FILE
from tests.pipeline.source_files import frame, read, write


def test_the_elements_of_an_array_are_its_records(tmp_path):
    records = [{"n": i, "text": 'a "quoted" ] } , [ { \\ text'} for i in range(100)]
    for indent in (None, 2):
        data = json.dumps(records, indent=indent).encode()
        rows = read(write(tmp_path / "a.json", data))
        assert [json.loads(raw) for _, _, raw in rows] == records
        assert [line for line, _, _ in rows] == list(range(1, 101))
        assert all(data[offset : offset + len(raw)] == raw for _, offset, raw in rows)


def test_a_broken_element_does_not_hide_the_others(tmp_path):
    rows = read(write(tmp_path / "a.json", b'[{"a": 1}, {"b": nonsense}, 7,, {"c": 3}, {"d": "cut'))
    assert [raw for _, _, raw in rows] == [b'{"a": 1}', b'{"b": nonsense}', b"7", b'{"c": 3}', b'{"d": "cut']


def test_the_content_decides_between_array_and_lines(tmp_path):
    lists = b'[{"role": "user"}]\n[{"role": "bot"}]\n'
    assert [raw for _, _, raw in read(write(tmp_path / "a.json", lists))] == lists.splitlines(keepends=True)
    assert [raw for _, _, raw in read(write(tmp_path / "a.jsonl", b'[{"a": 1}, {"a": 2}]\n'))] == [
        b'{"a": 1}',
        b'{"a": 2}',
    ]
    assert read(write(tmp_path / "a.json", b'{"a": 1}\n')) == [(1, 0, b'{"a": 1}\n')]


@pytest.mark.parametrize("first", [b"[oops", b'[{"role": "user", "con', b"[1, 2", b"\n[1, 2]"])
def test_one_broken_first_line_does_not_turn_lines_into_an_array(tmp_path, first):
    data = first + b"\n" + b'{"a": 1}\n' * 50
    assert len(read(write(tmp_path / "a.jsonl", data))) == 51


def test_a_bracket_too_many_costs_its_own_element_only(tmp_path):
    for broken in (b'{"n": 3}}', b'{"n": 3]}', b'{"n": [3}', b'{"n": 3}]'):
        parts = [b'{"n": %d}' % i for i in range(100)]
        parts[3] = broken
        raws = [raw for _, _, raw in read(write(tmp_path / "a.json", b"[" + b", ".join(parts) + b"]"))]
        assert raws == parts, broken


def test_what_follows_the_end_of_an_array_is_not_lost(tmp_path):
    raws = [raw for _, _, raw in read(write(tmp_path / "a.json", b'[{"a": 1}, {"a": 2}][{"b": 1}, {"b": 2}]'))]
    assert raws[0] == b'{"a": 1}'
    assert b"".join(raw or b"" for raw in raws[1:]).count(b'"b"') == 2


@pytest.mark.parametrize("data", [b'[{"a": 1}, {"a": 2}', b'[{"a": 1},\n{"a": 2},\n', b'[{"a": 1}, {"a": 2}\n'])
def test_an_array_that_was_cut_off_has_a_record_that_says_so(tmp_path, data):
    assert read(write(tmp_path / "a.json", data)) == [
        (1, 1, b'{"a": 1}'),
        (2, data.index(b'{"a": 2}'), b'{"a": 2}'),
        (3, len(data), None),
    ]
    assert frame(tmp_path / "a.json")["skip"][-1] == "truncated: the array ends without its closing bracket"


def test_an_element_beyond_the_cap_is_one_record_whatever_its_text_looks_like(tmp_path):
    elements = [b'{"a": 1}', b'{"a": "' + b"}]} , 1, 2, " * 3000 + b'"}', b'{"a": 3}']
    config = Source(shard_bytes=1 << 10, max_line_bytes=1 << 12)
    rows = read(write(tmp_path / "a.json", b"[" + b",".join(elements) + b"]"), config)
    assert [(line, raw) for line, _, raw in rows] == [(1, elements[0]), (2, None), (3, elements[2])]


def test_the_last_element_of_a_chunk_keeps_the_bracket_that_is_one_too_many(tmp_path):
    parts = [b'{"n": "%b"}' % (b"x" * 200)] * 40
    broken = [part + b"]" for part in parts]
    raws = [raw for _, _, raw in read(write(tmp_path / "a.json", b"[" + b",".join(broken) + b"]"))]
    assert raws == broken


@pytest.mark.parametrize("between", [b",", b",\n  "])
def test_large_arrays_are_cut_as_small_ones_are(tmp_path, between):
    elements = [b'{"n": %d, "text": "%b"}' % (i, b"x" * (i % 700)) for i in range(3000)]
    if b"\n" in between:
        elements[100] = b'{"n": "one too many""}'
    data = b"[" + between.lstrip(b",") + between.join(elements) + b"\n]\n"
    assert len(data) > 2 * SMALL_FILE
    config = Source(shard_bytes=1 << 17, max_line_bytes=1 << 20)
    chunks = scan(str(write(tmp_path / "a.json", data)), config, tmp_path)
    assert len(chunks) == len(data) // config.shard_bytes + 1
    frames = [read_chunk(chunk, config) for chunk in chunks]
    assert [lines.height for lines in frames] == [chunk.n_elements for chunk in chunks]
    assert [raw for lines in frames for raw in lines["raw"]] == elements
    assert [n for lines in frames for n in lines["line"]] == list(range(1, 3001))
    places = [row for lines in frames for row in lines.select("offset", "raw").rows()]
    assert all(data[offset : offset + len(raw)] == raw for offset, raw in places)


def test_an_array_of_turns_is_one_record(tmp_path):
    for turns in (
        [{"role": "client", "content": "a"}, {"role": "counselor", "content": "b"}],
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
    ):
        for indent in (None, 2):
            data = json.dumps(turns, indent=indent).encode() + b"\n"
            assert read(write(tmp_path / "a.json", data)) == [(1, 0, data.strip())]
    too_long = json.dumps([{"role": "user", "content": "x" * 9000}]).encode()
    assert read(write(tmp_path / "a.json", too_long)) == [(1, 0, None)]


RECORDS = [
    {"Definition": ["Add"], "Instances": [{"input": "1 } {", "output": ["2"]}, {}]},
    {"b": [[1], {}]},
    {"c": "]"},
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_records_over_several_lines_follow_one_another(tmp_path, name):
    texts = [json.dumps(record, indent=4).encode() for record in RECORDS]
    for n in range(1, 4):
        data = b"\xef\xbb\xbf" + b"\n\n".join(texts[:n]) + b"\n"
        rows = read(write(tmp_path / name, data))
        assert [(line, raw) for line, _, raw in rows] == list(enumerate(texts[:n], 1))
        assert all(data[offset : offset + len(raw)] == raw for _, offset, raw in rows)


def test_a_record_over_several_lines_that_is_larger_than_what_is_looked_at_is_seen_for_what_it_is(tmp_path):
    record = {"Instances": [{"input": f"question {i}", "output": "x" * 100} for i in range(12_000)]}
    text = json.dumps(record, indent=1).encode()
    assert len(text) > 1 << 20
    assert [raw for _, _, raw in read(write(tmp_path / "a.json", text), Source())] == [text]


@pytest.mark.parametrize(
    "first", [b"{", b'{"a": "cut', b'{"a": [1, 2,', b'{"a": [', b'{"a":', b'{"a": {"b": 1},', b"{'a': 1}", b'{"a": 1}}']
)
def test_one_broken_first_line_does_not_turn_lines_into_anything_else(tmp_path, first):
    data = first + b"\n" + b'{"a": 1}\n' * 50
    assert len(read(write(tmp_path / "a.jsonl", data))) == 51


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_whole_number_longer_than_python_reads_is_json_all_the_same(tmp_path, name):
    long = b'{"n": ' + b"1" * 5000 + b"}"
    line, spread = b'{"n": 1}', long.replace(b"{", b"{\n").replace(b"}", b"\n}")
    for data, raws in {
        long + b"\n" + line: [long, line],
        spread + b"\n" + line: [spread, line],
        b"[" + long + b",\n" + line + b"]": [long, line],
        b"[\n" + line + b",\n" + spread + b"]": [line, spread],
    }.items():
        assert [(raw or b"").strip() for _, _, raw in read(write(tmp_path / name, data), Source())] == raws


def test_a_broken_record_over_several_lines_costs_no_other(tmp_path):
    texts = [json.dumps({"n": i, "text": "a", "more": [{"b": 1}]}, indent=2).encode() for i in range(40)]
    texts[5] = texts[5].replace(b'"a"', b'"a""')
    texts[9] = texts[9].replace(b'"a"', b'"a')
    texts[20] = texts[20].replace(b"[", b"{[")
    raws = [raw for _, _, raw in read(write(tmp_path / "a.json", b"\n".join(texts)))]
    assert raws == texts


def test_the_end_of_a_file_of_records_over_several_lines_is_a_record(tmp_path):
    texts = [json.dumps({"n": i}, indent=2).encode() for i in range(4)]
    data = b"\n".join(texts)[:-5]
    assert [raw for _, _, raw in read(write(tmp_path / "a.json", data))] == [*texts[:3], texts[3][:-5].rstrip()]


def test_an_array_in_a_compressed_file_reads_as_it_is(tmp_path):
    import gzip

    records = [{"n": i, "text": "x" * (i % 90)} for i in range(300)]
    data = json.dumps(records, indent=1).encode()
    plain = read(write(tmp_path / "a.json", data))
    assert read(write(tmp_path / "a.json.gz", gzip.compress(data))) == plain
    torn = frame(write(tmp_path / "a.json.gz", gzip.compress(data)[:-30]))
    assert torn["skip"][-1] == "truncated: the gzip file ends too early: it was cut off"
    assert torn["raw"].to_list()[:100] == [raw for _, _, raw in plain[:100]]
