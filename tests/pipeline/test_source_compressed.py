"""Compressed files: unpacked as they are read, as far as they can be."""

import gzip
import time
import zlib
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.source import Source, SourceError, read_chunk, scan
from pipeline.terminal import TerminalProgress
from tests.pipeline.source_files import SMALL, frame, read, write

LINES = b"".join(b'{"n": %d, "text": "%b"}\n' % (i, bytes([97 + i * i % 26]) * (i % 50)) for i in range(20_000))
FEW = LINES[:20_000]


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    packed: bytes = out.getvalue().to_pybytes()
    return packed


PACK = {".gz": lambda data: gzip.compress(data, mtime=0), ".zst": zstd}
BOTH = pytest.mark.parametrize("suffix", PACK)


@BOTH
@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.txt"])
def test_a_compressed_file_reads_as_what_it_holds(tmp_path, suffix, name):
    plain = read(write(tmp_path / name, FEW))
    pack = PACK[suffix]
    assert read(write(tmp_path / (name + suffix), pack(FEW))) == plain
    members = pack(FEW[:1000]) + pack(b"") + pack(FEW[1000:1001]) + pack(FEW[1001:])
    assert read(write(tmp_path / (name + suffix), members)) == plain
    assert b"".join(raw or b"" for _, _, raw in plain) == FEW


def test_zeros_after_a_gzip_file_are_padding(tmp_path):
    assert read(write(tmp_path / "a.jsonl.gz", gzip.compress(FEW) + b"\0" * 5000)) == read(
        write(tmp_path / "a.jsonl", FEW)
    )


@BOTH
def test_of_a_file_that_was_cut_off_all_is_read_that_is_there_and_the_end_is_a_record(tmp_path, suffix):
    packed = PACK[suffix](LINES)
    for keep in (len(packed) // 3, len(packed) - 4):
        lines = frame(write(tmp_path / f"a.jsonl{suffix}", packed[:keep]), Source(shard_bytes=1 << 16))
        raws = lines["raw"].to_list()
        read_of_it = b"".join(raws[:-1])
        assert read_of_it == LINES[: len(read_of_it)]
        assert len(read_of_it) > len(LINES) * (keep / len(packed)) * 0.5
        assert raws[-1] is None
        assert lines["skip"].to_list() == [None] * (lines.height - 1) + [lines["skip"][-1]]
        assert lines["skip"][-1].startswith("truncated: the ")
        assert lines["skip"][-1].count("cut off") == 1
        assert lines["line"].to_list() == list(range(1, lines.height + 1))
        assert lines["offset"][-1] == len(read_of_it)


def test_every_byte_before_a_cut_is_read(tmp_path):
    """What inflate itself finds in the bytes that are left is what is read of them."""
    packed = gzip.compress(LINES, mtime=0)
    for keep in range(len(packed) // 2, len(packed) // 2 + 40, 3):
        wanted = zlib.decompressobj(31).decompress(packed[:keep])
        rows = read(write(tmp_path / "a.jsonl.gz", packed[:keep]), Source())
        assert b"".join(raw or b"" for _, _, raw in rows) == wanted


@BOTH
def test_of_a_file_that_was_cut_off_nothing_is_written_to_the_terminal(tmp_path, suffix, capfd):
    frame(write(tmp_path / f"a.jsonl{suffix}", PACK[suffix](LINES)[:-4]), Source())
    assert capfd.readouterr() == ("", "")


@BOTH
def test_of_a_damaged_file_what_comes_before_the_damage_is_read(tmp_path, suffix):
    pack = PACK[suffix]
    packed = pack(LINES) + b"nothing that was packed"
    lines = frame(write(tmp_path / f"a.jsonl{suffix}", packed), Source())
    assert b"".join(lines["raw"].to_list()[:-1]) == LINES
    assert lines["skip"][-1].startswith("truncated: the ")
    assert "damaged" in lines["skip"][-1]
    middle = bytearray(pack(LINES))
    middle[len(middle) // 2] ^= 0xFF
    lines = frame(write(tmp_path / f"a.jsonl{suffix}", bytes(middle)), Source())
    assert lines["skip"][-1].startswith("truncated: the ")
    assert sum(raw in LINES for raw in lines["raw"].to_list()[:-2]) > 0.2 * LINES.count(b"\n")


@BOTH
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, suffix):
    for data in (b'{"a": 1}\n' * 100, PACK[suffix](LINES)[:5], b"\x1f\x8b"):
        with pytest.raises(SourceError, match=r"a\.jsonl\.(gz|zst): nothing can be unpacked: the (gzip|zstd) file"):
            scan(str(write(tmp_path / f"a.jsonl{suffix}", data)), SMALL, tmp_path / "spool")


@BOTH
def test_an_empty_file_holds_nothing(tmp_path, suffix):
    assert read(write(tmp_path / f"a.jsonl{suffix}", b"")) == []
    assert read(write(tmp_path / f"a.jsonl{suffix}", PACK[suffix](b""))) == []


@BOTH
def test_a_bomb_costs_no_disk_and_is_one_record(tmp_path, suffix):
    size = 200 << 20
    data = b'{"a": 1}\n{"b": "' + b"x" * size + b'"}\n{"c": 3}\n'
    config = Source(shard_bytes=1 << 20, max_line_bytes=1 << 20)
    path = write(tmp_path / f"a.jsonl{suffix}", PACK[suffix](data))
    chunks = scan(str(path), config, tmp_path / "spool")
    rows = [row for chunk in chunks for row in read_chunk(chunk, config).select("line", "raw", "skip").rows()]
    assert rows == [(1, b'{"a": 1}\n', None), (2, None, "line_too_long"), (3, b'{"c": 3}\n', None)]
    assert sum(chunk.end - chunk.start for chunk in chunks) == len(data)
    assert sum(file.stat().st_size for file in (tmp_path / "spool").iterdir()) < 1 << 20


@BOTH
def test_the_pieces_take_about_as_much_room_as_the_file(tmp_path, suffix):
    path = write(tmp_path / f"a.jsonl{suffix}", PACK[suffix](LINES))
    scan(str(path), Source(), tmp_path / "spool")
    pieces = list((tmp_path / "spool").iterdir())
    assert sum(piece.stat().st_size for piece in pieces) < 2.5 * path.stat().st_size


def test_a_piece_that_is_damaged_is_never_taken_for_what_was_unpacked_and_the_next_build_has_another(tmp_path):
    packed = write(tmp_path / "a.jsonl.gz", gzip.compress(FEW))
    (tmp_path / "spool").mkdir()
    write(tmp_path / "spool" / "other", b"")
    for damage in (lambda data: data[:-5], lambda data: data[:20] + b"??" + data[22:], lambda _: b"", lambda _: None):
        (chunk, *_) = scan(str(packed), SMALL, tmp_path / "spool")
        piece = Path(chunk.spool)
        data = damage(piece.read_bytes())
        piece.unlink() if data is None else piece.write_bytes(data)
        with pytest.raises(SourceError, match="what was unpacked of it is damaged, or gone from"):
            read_chunk(chunk, SMALL)
        assert [path.name for path in (tmp_path / "spool").iterdir()] == ["other"]


def test_only_the_pieces_that_are_needed_are_unpacked_again(tmp_path):
    packed = write(tmp_path / "a.jsonl.gz", gzip.compress(FEW))
    chunks = scan(str(packed), SMALL, tmp_path / "spool")
    names = {Path(chunk.spool).name: Path(chunk.spool).read_bytes() for chunk in chunks[3:5]}
    again = scan(str(packed), SMALL, tmp_path / "again", needed=[chunk.start for chunk in chunks[3:5]])
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == names
    assert [chunk.digest() for chunk in again] == [chunk.digest() for chunk in chunks]


@pytest.mark.parametrize("suffix", ["", *PACK])
def test_who_watches_is_told_how_much_of_the_file_was_read(tmp_path, suffix):
    data = b"".join(b'{"n": %d}\n' % (i * i) for i in range(300_000))
    path = write(tmp_path / f"a.jsonl{suffix}", PACK[suffix](data) if suffix else data)
    told: list[tuple[int, int]] = []
    scan(str(path), Source(), tmp_path / "spool", watch=lambda done, total: told.append((done, total)))
    assert len(told) > 3
    assert told == sorted(told)
    assert told[-1] == (path.stat().st_size, path.stat().st_size)


def test_a_terminal_says_how_far_a_file_is_scanned(monkeypatch):
    out = StringIO()
    progress = TerminalProgress(Console(file=out, width=100))
    progress.scanning("a.jsonl", 1, 10)
    assert out.getvalue() == ""  # nothing takes long yet
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 11)
    progress.scanning("[a].jsonl", 300_000_000, 1_000_000_000)
    assert "scanning" in out.getvalue()
    assert "[a].jsonl: 300.0 MB of 1,000.0 MB" in out.getvalue()
    terminal = TerminalProgress(Console(file=out, width=100, force_terminal=True))
    monkeypatch.setattr(time, "monotonic", lambda: now + 22)
    terminal.scanning("[b].jsonl", 1, 2)
    terminal.found(["[b].jsonl"], [], [])
    terminal.close()
    assert "scanning [b].jsonl" in out.getvalue()
    assert "without a record: 1 (" in out.getvalue()
