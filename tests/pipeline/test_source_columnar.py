"""Parquet and Arrow files: what a row says as JSON, which rows make a chunk, and what becomes of damage."""

import csv
import datetime as dt
import decimal
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.source import Source, SourceError, arrow_file, read_chunk, scan
from pipeline.source.arrow_json import records
from stages.ingest import Ingest, ingest_lines

SMALL = Source(shard_bytes=1 << 10, max_line_bytes=1 << 16)
TURN = {"role": "user", "content": 'say "x"\n\\ \x00\x7f\u2028 é 😀', "tool_calls": None}
ROWS: list[dict[str, Any]] = [
    {"messages": [TURN, {"role": "assistant", "content": f"answer {i}", "tool_calls": None}], "n": i, "none": None}
    for i in range(300)
]
SAID = [
    {"messages": [{k: v for k, v in turn.items() if v is not None} for turn in row["messages"]], "n": row["n"]}
    for row in ROWS
]
TABLE = pa.Table.from_pylist(ROWS)


def write(path: Path, table: pa.Table, how: str) -> Path:
    if how.startswith("parquet"):
        pq.write_table(table, path, row_group_size=100_000 if how == "parquet-one" else 7)
        return path
    options = pa.ipc.IpcWriteOptions(compression="zstd" if how == "file-packed" else None)
    new = pa.ipc.new_stream if how == "stream" else pa.ipc.new_file
    with new(path, table.schema, options=options) as out:
        out.write_table(table, max_chunksize=None if how == "file-one" else 7)
    return path


def chunks_of(path: Path, config: Source = SMALL) -> list[Any]:
    chunks = scan(str(path), config, path.parent / "spool")
    pieces = {chunk.start for chunk in chunks if chunk.spool and not Path(chunk.spool).exists()}
    if pieces:
        scan(str(path), config, path.parent / "spool", needed=pieces)
    return chunks


def read(path: Path, config: Source = SMALL) -> list[Any]:
    """All records of a file, through its chunks."""
    frames = [read_chunk(chunk, config) for chunk in chunks_of(path, config)]
    assert [line for frame in frames for line in frame["line"]] == list(range(1, sum(map(len, frames)) + 1))
    return [json.loads(raw) for frame in frames for raw in frame["raw"]]


HOWS = {
    "parquet": ".parquet",
    "parquet-one": ".parquet",
    "file": ".arrow",
    "file-one": ".feather",
    "file-packed": ".arrow",
    "stream": ".arrow",
}


@pytest.mark.parametrize(("how", "suffix"), HOWS.items())
def test_rows_are_records_in_chunks_of_about_a_shard(tmp_path, how, suffix):
    path = write(tmp_path / f"a{suffix}", TABLE, how)
    assert read(path) == SAID
    chunks = chunks_of(path)
    assert len(chunks) > 4
    assert sum(chunk.n_records for chunk in chunks) == 300
    assert all(chunk.is_piece == (how in ("parquet-one", "file-one")) for chunk in chunks)
    assert read(path, Source()) == SAID


@pytest.mark.parametrize(("how", "suffix"), HOWS.items())
def test_a_compressed_file_reads_as_what_it_holds(tmp_path, how, suffix):
    path = write(tmp_path / f"a{suffix}", TABLE, how)
    packed = tmp_path / f"a{suffix}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read(packed) == SAID
    packed.write_bytes(gzip.compress(path.read_bytes())[:-100])
    with pytest.raises(SourceError, match=rf"a\{suffix}\.gz: cannot be unpacked: the gzip file ends too early"):
        scan(str(packed), SMALL, tmp_path / "spool")


def test_what_json_has_no_word_for_is_said_as_documented():
    at = dt.datetime(2024, 5, 1, 12, 30, tzinfo=dt.UTC)
    table = pa.table(
        {
            "int": pa.array([2**64 - 1, None], pa.uint64()),
            "float": pa.array([1.0, float("nan")]),
            "half": pa.array([0.1, float("-inf")], pa.float32()),
            "exact": pa.array([decimal.Decimal("1.10"), decimal.Decimal(-3)]),
            "time": pa.array([at, None], pa.timestamp("us", "Europe/Berlin")),
            "plain": pa.array([at.replace(tzinfo=None), None], pa.timestamp("s")),
            "day": pa.array([at.date(), None]),
            "span": pa.array([5, None], pa.duration("s")),
            "bytes": pa.array([b"abc", None]),
            "map": pa.array([[("a", 1), ('b"', None)], []], pa.map_(pa.string(), pa.int64())),
            "category": pa.array(["x", "y"]).dictionary_encode(),
            "yes": pa.array([True, False]),
            "list": pa.array([[1, None], None], pa.list_view(pa.int64())),
            "fixed": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
            "empty": pa.array([{"a": None}, None], pa.struct([("a", pa.int64())])),
            "json": pa.array(['{"a": 1.10}', "{no"], pa.json_()),
        }
    )
    first, second = records(table).to_pylist()
    assert first == (
        b'{"int":18446744073709551615,"float":1.0,"half":0.1,"exact":1.10,"time":"2024-05-01T12:30:00.000000Z",'
        b'"plain":"2024-05-01T12:30:00","day":"2024-05-01","span":5,"bytes":{"binary_bytes":3},"map":{"a":1,"b\\"":null},'
        b'"category":"x","yes":true,"list":[1,null],"fixed":[1,2],"empty":{},"json":{"a": 1.10}}'
    )
    assert second == (
        b'{"float":"NaN","half":"-Infinity","exact":-3.00,"map":{},"category":"y","yes":false,"json":"{no"}'
    )


TEXT = st.text(max_size=6) | st.sampled_from(['"', "\\", "\n\t", "\x00\x1f", "\u2028"])
NESTED = pa.struct([("a", pa.list_(pa.struct([("t", pa.string()), ("i", pa.int64())]))), ("f", pa.float64())])
CELL = st.none() | st.fixed_dictionaries(
    {
        "a": st.none()
        | st.lists(
            st.none() | st.fixed_dictionaries({"t": st.none() | TEXT, "i": st.none() | st.integers(-9, 9)}), max_size=3
        ),
        "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    }
)


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_null(inside) for key, inside in value.items() if inside is not None}
    return [without_null(inside) for inside in value] if isinstance(value, list) else value


@settings(deadline=None, max_examples=200)
@given(cells=st.lists(CELL, max_size=8), first=st.integers(0, 3), name=TEXT)
def test_any_table_says_what_python_makes_of_it(cells, first, name):
    table = pa.table({"x": pa.array(cells, NESTED), name + "y": pa.array([None, *range(len(cells))][: len(cells)])})
    said = [msgspec.json.decode(raw) for raw in records(table.slice(first)).to_pylist()]
    assert said == [without_null(row) for row in table.slice(first).to_pylist()]


@pytest.mark.parametrize(("how", "suffix"), HOWS.items())
def test_text_that_is_not_utf8_costs_its_record(tmp_path, how, suffix):
    raw = pa.array([b'{"a": "\xff', b"fine"])
    bad = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    path = write(tmp_path / f"a{suffix}", pa.table({"prompt": bad, "completion": ["x", "y"]}), how)
    (chunk,) = scan(str(path), Source(), tmp_path)
    out = ingest_lines(read_chunk(chunk, Source()), Ingest())
    assert out["drop_reason"].to_list() == ["bad_utf8", None]


def test_dictionaries_that_change_between_batches_are_those_of_each(tmp_path):
    batches = [pa.record_batch({"a": pa.array([x, x, "z"]).dictionary_encode()}) for x in "pqrs"]
    with pa.ipc.new_stream(tmp_path / "a.arrow", batches[0].schema) as out:
        for batch in batches:
            out.write_batch(batch)
    config = Source(shard_bytes=1 << 10)
    tiny = msgspec.structs.replace(config, shard_bytes=100)
    assert [row["a"] for row in read(tmp_path / "a.arrow", tiny)] == [x for y in "pqrs" for x in (y, y, "z")]
    assert len(scan(str(tmp_path / "a.arrow"), tiny, tmp_path)) == 4


def test_a_row_beyond_the_cap_is_named_and_its_neighbours_are_read(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"a": ["x", "y" * 100_000, "z"]}), "parquet")
    frames = [read_chunk(chunk, SMALL) for chunk in chunks_of(path)]
    assert [raw for frame in frames for raw in frame["raw"]] == [b'{"a":"x"}', None, b'{"a":"z"}']
    assert [skip for frame in frames for skip in frame["skip"]] == [None, "line_too_long", None]


@pytest.mark.parametrize(("how", "suffix"), HOWS.items())
def test_a_table_without_rows_or_columns(tmp_path, how, suffix):
    assert read(write(tmp_path / f"a{suffix}", TABLE.slice(0, 0), how)) == []
    with pytest.raises(SourceError, match="it has no columns"):
        read(write(tmp_path / f"b{suffix}", TABLE.slice(0, 3).select([]), how))


@pytest.mark.parametrize(("how", "suffix"), HOWS.items())
def test_a_file_that_was_cut_off_is_named(tmp_path, how, suffix):
    whole = write(tmp_path / f"a{suffix}", TABLE, how).read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"b{suffix}"
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match=rf"b\{suffix}: not a whole (Parquet|Arrow) file: "):
            scan(str(path), SMALL, tmp_path / "spool")


@pytest.mark.parametrize(("how", "suffix"), HOWS.items())
def test_damage_is_an_error_or_other_rows_and_never_a_crash(tmp_path, how, suffix):
    write(tmp_path / f"a{suffix}", TABLE, how)
    code = """
import random, sys
from pathlib import Path
from pipeline.source import Source, SourceError, scan, read_chunk
path, spool = Path(sys.argv[1]), Path(sys.argv[2])
whole, config, chance = path.read_bytes(), Source(shard_bytes=1 << 10), random.Random(0)
bad = path.with_name("b" + path.suffix)
for _ in range(40):
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 8])):
        data[chance.randrange(len(data))] = chance.choice([0, 255, 127, chance.randrange(256)])
    bad.write_bytes(data)
    try:
        chunks = scan(str(bad), config, spool)
        scan(str(bad), config, spool, needed={chunk.start for chunk in chunks})
        for chunk in chunks:
            read_chunk(chunk, config)
    except SourceError as error:
        assert str(bad) in str(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / f"a{suffix}"), str(tmp_path / "spool")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_file_that_changes_after_the_scan_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", TABLE, "parquet")
    chunk, *_ = scan(str(path), SMALL, tmp_path)
    write(path, pa.Table.from_pylist([*ROWS[1:], ROWS[0]]), "parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: bytes .* changed while"):
        read_chunk(chunk, SMALL)


@pytest.mark.parametrize(("how", "suffix"), [("parquet", ".parquet"), ("file", ".arrow"), ("stream", ".arrow")])
def test_a_file_that_is_shortened_while_it_is_read_is_an_error_and_never_a_signal(tmp_path, how, suffix):
    path = write(tmp_path / f"a{suffix}", pa.table({"text": ["x" * 1000 + str(i) for i in range(3000)]}), how)
    code = """
import os, sys
from pathlib import Path
from pipeline.source import Source, SourceError, scan, read_chunk, columnar
path, config = sys.argv[1], Source()
(*_, last) = scan(path, config, Path(sys.argv[2]))
verify = columnar._verify
def verify_and_shorten(chunk, place):
    opened = columnar.open_columns(place)
    verify(chunk, place)
    os.truncate(path, 5000)
    opened.seek(chunk.end - 100)
    assert opened.read(100) == b""
columnar._verify = verify_and_shorten
try:
    read_chunk(last, config)
except SourceError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "spool")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{path}: not a whole" in done.stdout


@pytest.mark.parametrize("how", ["file", "stream"])
def test_a_chunk_is_known_by_the_dictionaries_before_it_too(tmp_path, how):
    def digests(names: list[str]) -> list[str]:
        kind = pa.array([i % 2 for i in range(300)], pa.int32())
        table = pa.table({"a": pa.DictionaryArray.from_arrays(kind, pa.array(names)), "b": ["x" * 20] * 300})
        return [chunk.digest() for chunk in chunks_of(write(tmp_path / "a.arrow", table, how))]

    before, after = digests(["one", "two"]), digests(["One", "two"])
    assert len(before) == len(after) > 3
    assert not set(before) & set(after)
    assert digests(["one", "two"]) == before


def test_batches_behind_a_false_end_are_missed(tmp_path):
    path = write(tmp_path / "a.arrow", TABLE, "file")
    _, (first, *_) = arrow_file.parts_of(str(path))
    data = bytearray(path.read_bytes())
    data[first.end : first.end + 8] = b"\xff\xff\xff\xff\0\0\0\0"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="its footer lists 43 record batches, and there are 1"):
        scan(str(path), SMALL, tmp_path / "spool")
    stream = write(tmp_path / "b.arrow", TABLE, "stream").read_bytes()
    write(tmp_path / "b.arrow", TABLE, "stream").write_bytes(stream + stream)
    with pytest.raises(SourceError, match="something follows the mark that ends it"):
        scan(str(tmp_path / "b.arrow"), SMALL, tmp_path / "spool")


@pytest.mark.parametrize("damage", ["rows", 1, 2, 5])
def test_a_batch_that_says_that_it_holds_nothing_is_not_believed(tmp_path, damage):
    path = write(tmp_path / "a.arrow", TABLE, "stream")
    _, parts = arrow_file.parts_of(str(path))
    data = bytearray(path.read_bytes())
    begin = parts[3].start + 8

    def table(pointer: int) -> tuple[int, int]:
        """Return where a table of FlatBuffers begins, and where it says which fields it has."""
        start = pointer + int.from_bytes(data[pointer : pointer + 4], "little")
        return start, start - int.from_bytes(data[start : start + 4], "little", signed=True)

    message, fields = table(begin)
    if damage == "rows":
        _, fields = table(message + int.from_bytes(data[fields + 8 : fields + 10], "little"))
        data[fields + 4 : fields + 8] = b"\0\0\xf0\xff"  # no length, and nodes that lie nowhere
    else:
        data[message + int.from_bytes(data[fields + 6 : fields + 8], "little")] = damage
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.arrow: not a whole Arrow file: "):
        scan(str(path), SMALL, tmp_path / "spool")


def test_pieces_of_another_size_that_an_earlier_build_left_are_not_taken(tmp_path):
    path = write(tmp_path / "a.parquet", TABLE, "parquet-one")
    spool = tmp_path / "spool"
    left = scan(str(path), msgspec.structs.replace(SMALL, shard_bytes=1 << 11), spool)
    chunks = scan(str(path), SMALL, spool, needed=())
    assert len(chunks) > len(left)
    scan(str(path), SMALL, spool, needed={chunk.start for chunk in chunks if not Path(chunk.spool or "").exists()})
    assert [json.loads(raw) for chunk in chunks for raw in read_chunk(chunk, SMALL)["raw"]] == SAID


def test_a_piece_that_somebody_removed_is_said_to_be_gone(tmp_path):
    chunk, *_ = chunks_of(write(tmp_path / "a.parquet", TABLE, "parquet-one"))
    Path(chunk.spool).unlink()
    with pytest.raises(SourceError, match=r"a\.parquet: what was unpacked of it is damaged, or gone"):
        read_chunk(chunk, SMALL)


def test_another_part_leaves_a_chunk_as_it_was(tmp_path):
    before = scan(str(write(tmp_path / "a.parquet", TABLE, "parquet")), SMALL, tmp_path)
    changed = pa.Table.from_pylist([*ROWS[:-1], {**ROWS[-1], "n": 1000}])
    after = scan(str(write(tmp_path / "a.parquet", changed, "parquet")), SMALL, tmp_path)
    assert [a.digest() == b.digest() for a, b in zip(before, after, strict=True)] == [True] * (len(before) - 1) + [
        False
    ]


CALL = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1.10}'}}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [
        {"messages": [{"role": "user", "content": f"q {i}\n\t"}, {"role": "assistant", "content": f'"a" {i}, é'}]}
        for i in range(40)
    ],
    [{"instruction": f"add, {i}", "input": "", "output": f"{i}\n\n1;2"} for i in range(40)],
    [
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "content": "[1]"},
                {"role": "assistant", "content": f"a {i}"},
            ],
        }
        for i in range(40)
    ],
    [{"label": i % 2 == 0, "prompt": "[1, 2]", "completion": f"{i}"} for i in range(40)],
]


def to_texts(rows: list[dict[str, Any]], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerow(rows[0])
        table.writerows([cell if isinstance(cell, str) else json.dumps(cell) for cell in row.values()] for row in rows)
    return path


@pytest.mark.parametrize("rows", CONVERSATIONS)
def test_conversations_in_tables_are_those_of_the_lines(tmp_path, rows):
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables = [write(tmp_path / f"{how}{suffix}", pa.Table.from_pylist(rows), how) for how, suffix in HOWS.items()]
    tables += [to_texts(rows, tmp_path / "a.csv"), to_texts(rows, tmp_path / "a.tsv")]
    told = []
    for path in (lines, *tables):
        frame = pl.concat([ingest_lines(read_chunk(chunk, SMALL), Ingest()) for chunk in chunks_of(path)])
        of_tools = [json.loads(tools) if tools else None for tools in frame["tools"]]
        of_rest = frame.select("line", "shape", "drop_reason", "messages").to_dicts()
        for row in of_rest:
            for turn in row["messages"]:
                turn["tool_calls"] = json.loads(turn["tool_calls"] or "null")
        told.append((of_tools, of_rest))
    assert [path.name for path, each in zip(tables, told[1:], strict=True) if each != told[0]] == []
    assert sum(row["drop_reason"] is None for row in told[0][1]) >= 20
