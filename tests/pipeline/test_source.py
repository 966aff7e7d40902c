import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from itertools import chain, repeat
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.source import Chunk, Source, SourceError, expand, read_chunk, scan
from pipeline.source.cutting import cut_lines
from schemas.settings import ConfigError
from tests.corpus import ROOT
from tests.pipeline.source_files import SMALL, read, write


def test_lines_keep_their_number_offset_and_bytes(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"a": 1}\n\n{"b": 2}\r\n  \n{"c": 3}')
    assert read(path) == [(1, 0, b'{"a": 1}\n'), (3, 10, b'{"b": 2}\r\n'), (5, 23, b'{"c": 3}')]


def test_what_tells_about_a_dataset_is_none_of_its_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/train/state.json", "a/train/dataset_info.json", "a/dataset_dict.json", "a/train/rows.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, b"{}\n")
    assert expand(["a/**"]) == (
        ["a/train/rows.jsonl"],
        ["a/dataset_dict.json", "a/train/dataset_info.json", "a/train/state.json"],
    )
    assert expand(["a/train/state.json"])[0] == ["a/train/state.json"]


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


def test_appending_leaves_all_but_little_of_the_end_as_it_was(tmp_path):
    line = b'{"n": 1}\n'  # 9 bytes
    for n in range(900, 1100, 7):
        path = write(tmp_path / "a.jsonl", line * n)
        before = scan(str(path), SMALL, tmp_path)
        with path.open("ab") as file:
            file.write(line * (n // 100))
        after = scan(str(path), SMALL, tmp_path)
        assert b"".join(raw for _, _, raw in read(path) if raw) == line * (n + n // 100)
        full = [chunk for chunk in before if chunk.end - chunk.start >= SMALL.shard_bytes]
        assert [chunk.digest() for chunk in after[: len(full)]] == [chunk.digest() for chunk in full]
        assert len(before) <= len(full) + 5
        known = {chunk.digest() for chunk in before}
        fresh = sum(chunk.end - chunk.start for chunk in after if chunk.digest() not in known)
        assert fresh <= len(line) * (n // 100) + SMALL.shard_bytes


def test_what_follows_the_last_full_chunk_is_cut_at_binary_fractions(tmp_path):
    line = b'{"n": 12345678}\n'  # 16 bytes; a sixteenth is four of them
    sizes = {
        3: [3],
        4: [4],
        5: [4, 1],
        31: [16, 8, 4, 3],
        63: [32, 16, 8, 4, 3],
        64: [64],
        64 + 33: [64, 32, 1],
        128 + 2: [64, 64, 2],
    }
    for n, wanted in sizes.items():
        chunks = scan(str(write(tmp_path / "a.jsonl", line * n)), SMALL, tmp_path)
        assert [(chunk.end - chunk.start) // 16 for chunk in chunks] == wanted
        assert [chunk.n_elements for chunk in chunks] == wanted
        assert [chunk.line for chunk in chunks] == [1 + sum(wanted[:i]) for i in range(len(wanted))]


def test_one_changed_byte_changes_one_chunk(tmp_path):
    data = bytearray(b"".join(b'{"n": %d}\n' % (i % 10) for i in range(1000)))
    before = scan(str(write(tmp_path / "a.jsonl", bytes(data))), SMALL, tmp_path)
    data[5000] ^= 1
    after = scan(str(write(tmp_path / "a.jsonl", bytes(data))), SMALL, tmp_path)
    assert sum(a.digest() != b.digest() for a, b in zip(before, after, strict=True)) == 1


def test_many_blank_lines_are_told_from_others_as_few_are(tmp_path):
    lines = [
        b"\n",
        b"\r\n",
        b" \t\r\n",
        b" {}\n",
        b"\0\n",
        b"\x0b\n",
        b"\xef\xbb\xbf\n",
        b"\xef\xbb\xbf{}\n",
        b"\xef\n",
        b"x\n",
    ]
    few = read(write(tmp_path / "a.jsonl", b"".join(lines)), Source())
    assert [raw for _, _, raw in few] == [lines[i] for i in (3, 4, 5, 7, 8, 9)]
    many = read(write(tmp_path / "a.jsonl", b"".join(lines * 2000)), Source())
    assert [raw for _, _, raw in many] == [raw for _, _, raw in few] * 2000
    assert [line for line, _, _ in many[6:12]] == [line + 10 for line, _, _ in few]
    began = time.process_time()
    assert read(write(tmp_path / "a.jsonl", b"\n" * (8 << 20)), Source()) == []
    assert time.process_time() - began < 2.5


def test_a_line_beyond_the_cap_is_named_and_its_neighbours_are_read(tmp_path):
    for pad in (5_000, 40_000):
        data = b'{"a": 1}\n{"long": "' + b"x" * pad + b'"}\n{"b": 2}\n'
        rows = read(write(tmp_path / "a.jsonl", data))
        assert [(line, raw) for line, _, raw in rows] == [(1, b'{"a": 1}\n'), (2, None), (3, b'{"b": 2}\n')]


def test_a_line_of_exactly_the_cap_is_read_with_or_without_its_end(tmp_path):
    line = b'{"a": "' + b"x" * (4096 - 9) + b'"}'
    assert len(line) == SMALL.max_line_bytes
    assert [raw for _, _, raw in read(write(tmp_path / "a.jsonl", line))] == [line]
    assert [raw for _, _, raw in read(write(tmp_path / "a.jsonl", line + b"\r\n"))] == [line + b"\r\n"]


def test_a_file_that_changes_after_the_scan_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"a": 1}\n' * 20)
    (chunk,) = scan(str(path), Source(), tmp_path)
    write(path, b'{"a": 2}\n' * 20)
    with pytest.raises(SourceError, match=r"a\.jsonl: bytes 0 to 180 changed while"):
        read_chunk(chunk, Source())


def test_an_empty_file_has_no_chunks(tmp_path):
    assert scan(str(write(tmp_path / "a.jsonl", b"")), SMALL, tmp_path) == []
    assert read(write(tmp_path / "b.json", b"[]")) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_a_file_of_two_or_four_bytes_a_character_is_refused_with_what_to_do(tmp_path, encoding):
    text = '{"messages": [{"role": "user", "content": "文"}]}\n'
    for data in (text.encode(encoding), b"" if encoding[-2:] in ("le", "be") else "\ufeff".encode(encoding)):
        if data:
            path = write(tmp_path / "a.jsonl", data)
            with pytest.raises(
                SourceError,
                match=r"a\.jsonl: its text is UTF-(16|32).E; expected UTF-8.* iconv -f UTF.* > .*/a-utf8\.jsonl$",
            ):
                scan(str(path), SMALL, tmp_path)


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
    refused = {
        "none*": "it names no file that is read",
        "none": "no such file",
        "sub/readme.txt": "cannot read this kind of file",
        "": "got an empty text",
    }
    for given_input, said in refused.items():
        with pytest.raises(ConfigError, match=said):
            expand([given_input])


def test_a_directory_is_read_one_level_deep_unless_asked_for_more(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d/a.jsonl", "d/readme.md", "d/x.jsonl/b.jsonl", "d/e/f/c.json.gz", "d/e/d.ndjson.zst"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}")
    assert expand(["d"]) == (["d/a.jsonl"], ["d/e", "d/readme.md", "d/x.jsonl"])
    deep = ["d/a.jsonl", "d/e/d.ndjson.zst", "d/e/f/c.json.gz", "d/x.jsonl/b.jsonl"]
    with pytest.raises(ConfigError, match=r"holds no file that is read .*; '\./\*\*' reads its"):
        expand(["./"])
    assert expand(["d/**"]) == (deep, ["d/readme.md"])
    assert expand(["d/**/*.jsonl"]) == (["d/a.jsonl", "d/x.jsonl/b.jsonl"], [])
    assert expand(["d/x.jsonl"]) == (["d/x.jsonl/b.jsonl"], [])


def test_below_a_directory_each_is_read_once_though_links_lead_in_circles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d/a.jsonl", "d/sub/b.jsonl", "d/.hidden/c.jsonl", "elsewhere/d.jsonl"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}")
    for name, target in {"d/one": "../d", "d/two": "../d", "d/sub/three": "..", "d/sub/out": "../../elsewhere"}.items():
        Path(name).symlink_to(target)
    assert expand(["d/**"]) == (["d/a.jsonl", "d/sub/b.jsonl", "d/sub/out/d.jsonl"], [])
    assert expand(["**/*.jsonl"])[0] == ["d/a.jsonl", "d/sub/b.jsonl", "d/sub/out/d.jsonl"]
    assert expand(["./d/**/sub/*"])[0] == ["./d/sub/b.jsonl"]


def test_what_can_never_be_read_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("nowhere.jsonl")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.jsonl"))
        for name, said in {"pipe": "a pipe", "socket": "a socket", "link": "leads nowhere, to nowhere.jsonl"}.items():
            for given_input in (f"{tmp_path}/{name}.jsonl", f"{tmp_path}/{name[:3]}*"):
                with pytest.raises(ConfigError, match=f"{name}.jsonl: .*{said}"):
                    expand([given_input])
    with pytest.raises(ConfigError, match=r"link\.jsonl: a link that leads nowhere"):
        expand([str(tmp_path)])
    with pytest.raises(SourceError, match=r"pipe\.jsonl: not a file"):
        scan(str(tmp_path / "pipe.jsonl"), SMALL, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", b"{}")
    path.chmod(0)
    with pytest.raises(SourceError, match=r"a\.jsonl: cannot be read: Permission denied"):
        scan(str(path), SMALL, tmp_path)


SLOW = ("a.jsonl", "a.json.zst")
MEASURED = """
import resource, sys
from pathlib import Path
from pipeline.source import Source, read_chunk, scan

name, spool = sys.argv[1:]
config = Source(shard_bytes=1 << 20, max_line_bytes=1 << 20)

def read(name):
    return [row for chunk in scan(name, config, Path(spool)) for row in read_chunk(chunk, config)["skip"]]

read(str(Path(name).with_name("warm" + "".join(Path(name).suffixes))))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = read(name)
print(found.count(None), found.count("line_too_long"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    "name", ["a.json", "a.jsonl.gz", *(pytest.param(slow, marks=pytest.mark.slow) for slow in SLOW)]
)
def test_memory_does_not_grow_with_the_longest_line(tmp_path, name):
    long, short = b'{"a": "' + b"x" * (300 << 20) + b'"}', b'{"b": 1}'
    for stem, elements in (("warm", [short] * 300_000), ("a", [short, long, short])):
        is_array = ".json" in name and ".jsonl" not in name
        data = b"[" + b",\n".join(elements) + b"]" if is_array else b"\n".join(elements)
        path = tmp_path / name.replace("a", stem, 1)
        packed = pa.output_stream(str(path), compression={".gz": "gzip", ".zst": "zstd"}.get(path.suffix))
        with packed as file:
            file.write(data)
        del data
    program = [sys.executable, "-c", MEASURED, str(tmp_path / name), str(tmp_path / "spool")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    n_read, n_long, grown = map(int, done.stdout.split())
    assert (n_read, n_long) == (2, 1)
    assert grown < 64 << 10  # KiB


@settings(deadline=None, max_examples=60)
@given(data=st.lists(st.binary(max_size=600), max_size=12).map(b"\n".join))
def test_every_byte_of_any_file_lies_in_exactly_one_chunk(tmp_path_factory, data):
    assume(not data.startswith((b"\xff\xfe", b"\xfe\xff")))
    path = write(tmp_path_factory.mktemp("any") / "a.jsonl", data)
    chunks: list[Chunk] = scan(str(path), SMALL, path.parent)
    if chunks and chunks[0].container == "lines":
        assert b"".join(data[chunk.start : chunk.end] for chunk in chunks) == data
        lines = [line for line in data.split(b"\n") if line.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r")]
        assert len(read(path)) == len(lines)


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=9000).map(lambda data: data.replace(b"a", b"\n")), sizes=st.lists(st.integers(1, 3000)))
def test_chunks_of_lines_do_not_depend_on_how_the_bytes_come(data, sizes):
    def cuts(blocks: Iterator[int]) -> list[tuple[int, int, int, int, str]]:
        stream = BytesIO(data)
        found = cut_lines(lambda n: stream.read(min(n, next(blocks))), 1 << 10, 1 << 12)
        return [(cut.start, cut.end, cut.line, cut.n_elements, cut.sha256) for cut in found]

    whole = cuts(repeat(1 << 20))
    assert cuts(chain(sizes, repeat(700))) == whole
    assert b"".join(data[start:end] for start, end, *_ in whole) == data
    for start, end, line, n_lines, sha256 in whole:
        assert sha256 == hashlib.sha256(data[start:end]).hexdigest()
        assert line == data[:start].count(b"\n") + 1
        assert n_lines == len(data[start:end].removesuffix(b"\n").split(b"\n"))
