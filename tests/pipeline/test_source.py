import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.source import Chunk, Source, SourceError, expand, read_chunk, scan
from schemas.settings import ConfigError

SMALL = Source(shard_bytes=1 << 10, max_line_bytes=1 << 12)


def read(path: Path, config: Source = SMALL) -> list[tuple[int, int, bytes | None]]:
    """All (line, offset, raw) of a file, through its chunks."""
    chunks = scan(str(path), config, path.parent / "spool")
    return [row for chunk in chunks for row in read_chunk(chunk, config).select("line", "offset", "raw").iter_rows()]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_lines_keep_their_number_offset_and_bytes(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"a": 1}\n\n{"b": 2}\r\n  \n{"c": 3}')
    assert read(path) == [(1, 0, b'{"a": 1}\n'), (3, 10, b'{"b": 2}\r\n'), (5, 23, b'{"c": 3}')]


def test_only_a_newline_ends_a_line(tmp_path):
    data = '{"a": "x\u2028y\u0085z"}\n{"b": 1}\n'.encode()
    assert [raw for _, _, raw in read(write(tmp_path / "a.jsonl", data))] == [data[:18], data[18:]]


def test_chunks_end_at_line_ends_and_cover_the_file(tmp_path):
    data = b"".join(b'{"n": %d, "pad": "%s"}\n' % (i, b"x" * (i % 300)) for i in range(200))
    path = write(tmp_path / "a.jsonl", data)
    chunks = scan(str(path), SMALL, tmp_path)
    assert len(chunks) > 5
    assert [chunk.start for chunk in chunks] == [0, *(chunk.end for chunk in chunks[:-1])]
    assert chunks[-1].end == len(data)
    assert all(data[chunk.end - 1 : chunk.end] == b"\n" for chunk in chunks)
    assert [line for line, _, _ in read(path)] == list(range(1, 201))
    assert b"".join(raw for _, _, raw in read(path)) == data


def test_appending_leaves_all_chunks_but_the_last_as_they_were(tmp_path):
    path = write(tmp_path / "a.jsonl", b"".join(b'{"n": %d}\n' % i for i in range(1000)))
    before = scan(str(path), SMALL, tmp_path)
    with path.open("ab") as file:
        file.write(b'{"n": "new"}\n' * 10)
    after = scan(str(path), SMALL, tmp_path)
    assert [chunk.digest() for chunk in after[: len(before) - 1]] == [chunk.digest() for chunk in before[:-1]]
    assert after[len(before) - 1].digest() != before[-1].digest()


def test_one_changed_byte_changes_one_chunk(tmp_path):
    data = bytearray(b"".join(b'{"n": %d}\n' % (i % 10) for i in range(1000)))
    before = scan(str(write(tmp_path / "a.jsonl", bytes(data))), SMALL, tmp_path)
    data[5000] ^= 1
    after = scan(str(write(tmp_path / "a.jsonl", bytes(data))), SMALL, tmp_path)
    assert sum(a.digest() != b.digest() for a, b in zip(before, after, strict=True)) == 1


def test_a_line_beyond_the_cap_is_named_and_its_neighbours_are_read(tmp_path):
    for pad in (5_000, 40_000):
        data = b'{"a": 1}\n{"long": "' + b"x" * pad + b'"}\n{"b": 2}\n'
        rows = read(write(tmp_path / "a.jsonl", data))
        assert [(line, raw) for line, _, raw in rows] == [(1, b'{"a": 1}\n'), (2, None), (3, b'{"b": 2}\n')]


def test_a_gzip_file_reads_as_what_it_holds(tmp_path):
    data = b"".join(b'{"n": %d}\n' % i for i in range(500))
    plain = read(write(tmp_path / "a.jsonl", data))
    assert read(write(tmp_path / "a.jsonl.gz", gzip.compress(data))) == plain
    two_members = gzip.compress(data[:1000]) + gzip.compress(data[1000:])
    assert read(write(tmp_path / "b.jsonl.gz", two_members)) == plain


@pytest.mark.parametrize(
    "data",
    # mtime: the bytes are in the tests' names, which must be the same in every process that collects them
    [b"no gzip", gzip.compress(b"x" * 100_000, mtime=0)[:-20], gzip.compress(b"abc", mtime=0)[:5]],
)
def test_a_broken_gzip_file_is_named(tmp_path, data):
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz"):
        read(write(tmp_path / "a.jsonl.gz", data))


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
    assert b"".join(raws[1:]).count(b'"b"') == 2


@pytest.mark.parametrize("data", [b'[{"a": 1}, {"a": 2}', b'[{"a": 1},\n{"a": 2},\n', b'[{"a": 1}, {"a": 2}\n'])
def test_an_array_that_was_cut_off_has_a_record_that_says_so(tmp_path, data):
    assert read(write(tmp_path / "a.json", data)) == [
        (1, 1, b'{"a": 1}'),
        (2, data.index(b'{"a": 2}'), b'{"a": 2}'),
        (3, data.rindex(b"}") + 1, b""),
    ]


def test_an_element_beyond_the_cap_is_one_record_whatever_its_text_looks_like(tmp_path):
    elements = [b'{"a": 1}', b'{"a": "' + b"}]} , 1, 2, " * 3000 + b'"}', b'{"a": 3}']
    config = Source(shard_bytes=1 << 10, max_line_bytes=1 << 12)
    rows = read(write(tmp_path / "a.json", b"[" + b",".join(elements) + b"]"), config)
    assert [(line, raw) for line, _, raw in rows] == [(1, elements[0]), (2, None), (3, elements[2])]


def test_a_line_of_exactly_the_cap_is_read_with_or_without_its_end(tmp_path):
    line = b'{"a": "' + b"x" * (4096 - 9) + b'"}'
    assert len(line) == SMALL.max_line_bytes
    assert [raw for _, _, raw in read(write(tmp_path / "a.jsonl", line))] == [line]
    assert [raw for _, _, raw in read(write(tmp_path / "a.jsonl", line + b"\r\n"))] == [line + b"\r\n"]


def test_a_file_that_changes_after_the_scan_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"a": 1}\n' * 20)
    (chunk,) = scan(str(path), SMALL, tmp_path)
    write(path, b'{"a": 2}\n' * 20)
    with pytest.raises(SourceError, match=r"a\.jsonl: bytes 0 to 180 changed while"):
        read_chunk(chunk, SMALL)


def test_half_an_unpacked_file_is_never_taken_for_the_whole(tmp_path):
    data = b'{"n": 1}\n' * 500
    packed = write(tmp_path / "a.jsonl.gz", gzip.compress(data))
    (chunk, *_) = scan(str(packed), SMALL, tmp_path / "spool")
    Path(chunk.spool).write_bytes(data[:100])
    with pytest.raises(SourceError, match="changed while"):
        read_chunk(chunk, SMALL)


def test_an_empty_file_has_no_chunks(tmp_path):
    assert scan(str(write(tmp_path / "a.jsonl", b"")), SMALL, tmp_path) == []
    assert read(write(tmp_path / "b.json", b"[]")) == []


def test_inputs_are_files_directories_and_globs_each_file_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("b.jsonl", "a.jsonl", "sub/c.json", "sub/readme.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "d.jsonl").mkdir()
    (tmp_path / "e.jsonl").symlink_to("a.jsonl")
    assert expand(["*.jsonl", "a.jsonl", "./a.jsonl", "sub"]) == (
        ["a.jsonl", "b.jsonl", "sub/c.json"],
        ["sub/readme.txt"],
    )
    refused = {"none*": "no such file", "sub/readme.txt": "cannot read this kind of file", "": "got an empty text"}
    for given_input, said in refused.items():
        with pytest.raises(ConfigError, match=said):
            expand([given_input])


@settings(deadline=None, max_examples=60)
@given(data=st.lists(st.binary(max_size=600), max_size=12).map(b"\n".join))
def test_every_byte_of_any_file_lies_in_exactly_one_chunk(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("any") / "a.jsonl", data)
    chunks: list[Chunk] = scan(str(path), SMALL, path.parent)
    if chunks and chunks[0].container == "lines":
        assert b"".join(data[chunk.start : chunk.end] for chunk in chunks) == data
        lines = [line for line in data.split(b"\n") if line.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r")]
        assert len(read(path)) == len(lines)
