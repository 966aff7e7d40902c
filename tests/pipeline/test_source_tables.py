"""Text tables: which bytes are a record, what becomes of broken ones, and what a record says as JSON."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.source import Source, SourceError, read_chunk, scan
from pipeline.source.dialect import HEAD, TableSettings
from stages.ingest import Ingest, ingest_lines

SMALL = Source(shard_bytes=1 << 10, max_line_bytes=1 << 12)
Row = tuple[int, int, bytes | None, str | None]


def rows(path: Path, config: Source = SMALL, **table: object) -> list[Row]:
    """All (record, offset, raw, skip) of a table, through its chunks."""
    chunks = scan(str(path), config, path.parent / "spool", table=TableSettings(**table))  # type: ignore[arg-type]
    return [
        row for chunk in chunks for row in read_chunk(chunk, config).select("line", "offset", "raw", "skip").iter_rows()
    ]


def records(path: Path, config: Source = SMALL, **table: object) -> list[dict[str, object]]:
    """All records of a table without a fault."""
    read = rows(path, config, **table)
    assert [row for row in read if row[3]] == []
    return [json.loads(raw) for _, _, raw, _ in read if raw is not None]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def faults(path: Path, config: Source = SMALL) -> list[str | None]:
    return [skip for *_, skip in rows(path, config)]


def test_a_record_is_an_object_of_texts_keyed_by_column(tmp_path):
    path = write(tmp_path / "a.csv", b'id,text,n\n1,"a ""b"", c\r\nd",\n2,,1.50\n')
    assert rows(path) == [
        (1, 10, b'{"id":"1","text":"a \\"b\\", c\\r\\nd","n":""}', None),
        (2, 29, b'{"id":"2","text":"","n":"1.50"}', None),
    ]


def test_an_empty_cell_is_an_empty_text_and_never_nan(tmp_path):
    path = write(tmp_path / "a.csv", b'a,b,c\n,"",\nNone,nan,null\n')
    assert records(path) == [{"a": "", "b": "", "c": ""}, {"a": "None", "b": "nan", "c": "null"}]


def test_mark_carriage_returns_blank_lines_and_no_last_newline(tmp_path):
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbf\r\na,b\r\n\r\n1,2\r\n"3\r\n","4"')
    assert records(path) == [{"a": "1", "b": "2"}, {"a": "3\r\n", "b": "4"}]
    assert [offset for _, offset, _, _ in rows(path)] == [12, 17]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"a,b\n", b"a,b", b"a,b\n\r\n\n"])
def test_a_table_without_records_has_no_chunks(tmp_path, data):
    assert scan(str(write(tmp_path / "a.csv", data)), SMALL, tmp_path) == []


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \t\r\n"])
@pytest.mark.parametrize("size", [HEAD - 3, HEAD - 1, HEAD, HEAD + 1, 3 * HEAD])
def test_a_table_behind_any_number_of_blank_lines_is_read(tmp_path, blank, size):
    before = b"\xef\xbb\xbf" + blank * (size // len(blank))
    path = write(tmp_path / "a.csv", before + b"first,second\n1,2\n3,4\n")
    assert records(path, config=Source()) == [{"first": "1", "second": "2"}, {"first": "3", "second": "4"}]
    assert [offset for _, offset, _, _ in rows(path, config=Source())] == [len(before) + 13, len(before) + 17]


def test_the_delimiter_is_the_first_that_the_header_has(tmp_path):
    for delimiter in (",", ";", "\t"):
        data = f'a{delimiter}"b,;"\n1{delimiter}2\n'.encode()
        assert records(write(tmp_path / "a.csv", data)) == [{"a": "1", "b,;": "2"}]
    assert records(write(tmp_path / "a.csv", b"text\none\n\ntwo\n")) == [{"text": "one"}, {"text": "two"}]
    assert records(write(tmp_path / "a.csv", b"a|b\n'1|'|2\n"), delimiter="|", quote="'") == [{"a": "1|", "b": "2"}]


def test_a_small_tsv_file_without_names_is_numbered(tmp_path):
    unified = b"which is best? \\n (A) this (B) that\tthis\nwho?\tme\n"
    assert records(write(tmp_path / "a.tsv", unified)) == [
        {"column_1": "which is best? \\n (A) this (B) that", "column_2": "this"},
        {"column_1": "who?", "column_2": "me"},
    ]
    named = b"Question\tANSWER\nwho?\tme\n"
    assert records(write(tmp_path / "a.tsv", named)) == [{"Question": "who?", "ANSWER": "me"}]
    assert records(write(tmp_path / "a.tsv", b"a\tb\tc\td\n1\t2\t3\t4\n")) == [{"a": "1", "b": "2", "c": "3", "d": "4"}]
    assert records(write(tmp_path / "a.tsv", b"src\ttgt\n1\t2\n"), header=True) == [{"src": "1", "tgt": "2"}]
    assert len(records(write(tmp_path / "a.csv", b"a,b\n1,2\n"), header=False)) == 2


def test_quotes_of_a_tsv_file_are_text_unless_all_of_them_quote(tmp_path):
    plain = b'question\tanswer\n"To be" is by whom?\t"Shakespeare"\nand 5" is\t"an inch\n'
    assert records(write(tmp_path / "a.tsv", plain)) == [
        {"question": '"To be" is by whom?', "answer": '"Shakespeare"'},
        {"question": 'and 5" is', "answer": '"an inch'},
    ]
    quoted = b'question\tanswer\n"one\ntwo"\t"a\tb ""c"""\n3\t4\n'
    assert records(write(tmp_path / "a.tsv", quoted)) == [
        {"question": "one\ntwo", "answer": 'a\tb "c"'},
        {"question": "3", "answer": "4"},
    ]


def test_a_wrong_number_of_fields_costs_its_record(tmp_path):
    path = write(tmp_path / "a.csv", b"a,b\n1\n1,2,3\n4,5\n")
    assert [(line, raw, skip) for line, _, raw, skip in rows(path)] == [
        (1, b"1\n", "bad_shape: expected 2 fields (a, b), got 1"),
        (2, b"1,2,3\n", "bad_shape: expected 2 fields (a, b), got 3"),
        (3, b'{"a":"4","b":"5"}', None),
    ]


def test_a_quote_that_is_not_closed_costs_its_line(tmp_path):
    unclosed = "bad_shape: a quote that is opened on this line is not closed where a field ends"
    for rest in (b'x,"y, z"\n5,6\n', b"7,8\n5,6\n"):
        path = write(tmp_path / "a.csv", b'a,b\n"open,2\n3,4\n' + rest)
        read = rows(path)
        assert [(raw, skip) for _, _, raw, skip in read if skip] == [(b'"open,2\n', unclosed)]
        assert len(read) == 4
    rest = b"1,2\n" * 5000
    read = rows(write(tmp_path / "a.csv", b'a,b\n"open,2\n' + rest))
    assert (len(read), [raw for _, _, raw, skip in read if skip]) == (5001, [b'"open,2\n'])


def test_what_follows_a_closing_quote_costs_its_cell_and_puts_no_line_of_it_into_the_data(tmp_path):
    path = write(tmp_path / "a.csv", b'a,b\n"He said "hi" to\nme, friend\nand, you",x\n1,2\n')
    broken, good = rows(path)
    assert broken[2] == b'"He said "hi" to\nme, friend\nand, you",x\n'
    assert broken[3] is not None
    assert broken[3].startswith("bad_shape: something follows a closing quote")
    assert good[2:] == (b'{"a":"1","b":"2"}', None)


def test_a_cell_beyond_the_cap_is_one_record_whatever_its_lines_look_like(tmp_path):
    prose = b"Some, text, with commas.\nand lines\n" * 4000
    data = b'a,b\n1,2\n"' + prose + b'",x\n3,4\n' + b"y" * 9000 + b",z\n5,6\n"
    for config in (SMALL, Source(shard_bytes=1 << 20, max_line_bytes=1 << 12)):
        read = rows(write(tmp_path / "a.csv", data), config)
        assert [(line, raw, skip) for line, _, raw, skip in read] == [
            (1, b'{"a":"1","b":"2"}', None),
            (2, None, "line_too_long"),
            (3, b'{"a":"3","b":"4"}', None),
            (4, None, "line_too_long"),
            (5, b'{"a":"5","b":"6"}', None),
        ]


def test_a_record_of_exactly_the_cap_is_read_with_either_line_end(tmp_path):
    cap = SMALL.max_line_bytes
    for end in (b"", b"\n", b"\r\n"):
        assert faults(write(tmp_path / "a.csv", b"a,b\n" + b"x" * (cap - 2) + b",1" + end)) == [None]
        assert faults(write(tmp_path / "a.csv", b"a,b\n" + b"x" * (cap - 1) + b",1" + end)) == ["line_too_long"]
        assert faults(write(tmp_path / "a.csv", b'a,b\n"' + b"\n" * (cap - 4) + b'",1' + end)) == [None]


def test_bytes_that_are_not_utf8_cost_one_record(tmp_path):
    path = write(tmp_path / "a.csv", b"a,b\n1,2\n\xff,3\n4,5\n")
    assert faults(path) == [None, "bad_utf8: byte 0: invalid start byte", None]


def test_nul_and_line_separators_are_passed_on(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n1\x00,x\u2028y\x85\n".encode())
    assert records(path) == [{"a": "1\x00", "b": "x\u2028y\x85"}]


def test_a_column_named_twice_is_said_of_every_record_and_an_empty_name_is_numbered(tmp_path):
    path = write(tmp_path / "a.csv", b"a,a\n1,2\n")
    assert faults(path) == ["duplicate_key: the header names the column 'a' twice; rename one"]
    assert records(write(tmp_path / "a.csv", b",text,\n0,x,\n")) == [{"column_1": "0", "text": "x", "column_3": ""}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'a,"b\n1,2\n', r"a\.csv: line 1, 'a,\"b', cannot be read: a quote in it is not closed"),
        (b"a\xff,b\n1,2\n", r"a\.csv: the header, .* is not UTF-8; convert"),
        (b"a,b\r1,2\r", r"a\.csv: its lines end with CR alone"),
        (b"x" * (2 << 20), r"a\.csv: no line ends in the first 1,048,576 bytes"),
        ("a,b\n1,2\n".encode("utf-16"), r"a\.csv: its text is UTF-16"),
    ],
)
def test_a_header_that_is_none_is_named(tmp_path, data, said):
    with pytest.raises(SourceError, match=said):
        scan(str(write(tmp_path / "a.csv", data)), SMALL, tmp_path)


def test_cells_that_hold_lists_of_turns_are_read_as_json(tmp_path):
    messages = '[{"role": "user", "content": "a, \\"b\\"\\n"}, {"role": "assistant", "content": "c"}]'
    tools = '[{"name": "f", "n": 1.10, "m": 1E5}]'
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows(
        [
            ["messages", "tools", "prompt"],
            [messages, tools, "[1, 2]"],
            ["[{'role': 'user'}]", "", messages],
            ['[{"a": 1, "a": 2}]', "", "{}"],
        ]
    )
    first, second, third = (raw for _, _, raw, _ in rows(write(tmp_path / "a.csv", table.getvalue().encode())))
    assert first == f'{{"messages":{messages},"tools":{tools},"prompt":"[1, 2]"}}'.encode()
    assert json.loads(second or b"") == {"messages": "[{'role': 'user'}]", "tools": "", "prompt": json.loads(messages)}
    assert json.loads(third or b"")["messages"] == '[{"a": 1, "a": 2}]'


def test_marks_of_a_table_are_true_or_false(tmp_path):
    path = write(tmp_path / "a.csv", b"label,is_correct,yes\nTrue,false,True\n FALSE ,0,false\nmaybe,,\n")
    assert records(path) == [
        {"label": True, "is_correct": False, "yes": "True"},
        {"label": False, "is_correct": "0", "yes": "false"},
        {"label": "maybe", "is_correct": "", "yes": ""},
    ]
    turn = '{"from": "gpt", "value": "a"}'
    row = '"' + turn.replace('"', '""') + '"'
    assert records(write(tmp_path / "a.csv", f"chosen,text\n{row},{row}\n".encode())) == [
        {"chosen": json.loads(turn), "text": turn}
    ]


def test_a_compressed_table_reads_as_what_it_holds(tmp_path):
    data = b"a,b\n" + b"".join(b'%d,"x\n%d"\n' % (i, i) for i in range(500))
    plain = rows(write(tmp_path / "a.csv", data))
    assert rows(write(tmp_path / "a.csv.gz", gzip.compress(data))) == plain
    packed = pa.Codec("zstd").compress(data, asbytes=True)
    assert rows(write(tmp_path / "a.csv.zst", packed)) == plain


def test_of_a_torn_table_the_last_record_is_not_believed(tmp_path):
    data = b"a,b\n" + b"".join(b"%d,%s\n" % (i, bytes([i % 251] * 5).hex().encode()) for i in range(2000))
    read = rows(write(tmp_path / "a.csv.gz", gzip.compress(data)[:-500]))
    assert read[-1][2:] == (None, "truncated: the gzip file ends too early: it was cut off")
    whole = rows(write(tmp_path / "a.csv", data))
    n_good = sum(skip is None for *_, skip in read)
    assert 0 < n_good < 2000
    assert read[:n_good] == whole[:n_good]
    assert all(skip is not None and skip.startswith("truncated") for *_, skip in read[n_good:])


def test_appending_changes_the_last_chunks_only(tmp_path):
    path = write(tmp_path / "a.csv", b"a,b\n" + b'1,"2\n3"\n' * 3000)
    before = [chunk.digest() for chunk in scan(str(path), SMALL, tmp_path)]
    with path.open("ab") as file:
        file.write(b'1,"2\n4"\n' * 5)
    after = [chunk.digest() for chunk in scan(str(path), SMALL, tmp_path)]
    same = sum(a == b for a, b in zip(before, after, strict=False))
    assert len(before) > 20
    assert same >= len(before) - 1


def test_conversations_in_a_table(tmp_path):
    path = write(tmp_path / "a.tsv", b"what is 1 + 1?\t2\nwho are you?\tme\n")
    (chunk,) = scan(str(path), Source(), tmp_path)
    out = ingest_lines(read_chunk(chunk, Source()), Ingest())
    assert out["drop_reason"].to_list() == [None, None]
    assert [message["content"] for message in out["messages"][1]] == ["who are you?", "me"]
    assert out["id"].to_list() == [f"{path}:1", f"{path}:2"]


CELL = st.text(alphabet='ab",;\n\r\t é\u2028\x00', max_size=12)


@settings(deadline=None, max_examples=150)
@given(table=st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=30), end=st.sampled_from(["\n", "\r\n"]))
def test_what_pythons_writer_wrote_is_read_as_it_was(tmp_path_factory, table, end):
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *table])
    path = write(tmp_path_factory.mktemp("any") / "a.csv", text.getvalue().encode())
    assert records(path, Source(shard_bytes=1 << 10, max_line_bytes=1 << 10)) == [{"a": a, "b": b} for a, b in table]


@settings(deadline=None, max_examples=200)
@given(
    data=st.lists(
        st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"ab", b"x" * 300, b"\n" * 40, b"\xff"]), max_size=80
    )
)
@example(data=[b'"', b"ab", b"\n"] * 30)
@example(data=[b'"', b"ab", b"\n", b"ab", b",", b"ab", b"\n", b"x" * 300, b"\n", b"ab", b'"', b"\n"] * 6)
@example(data=[b'"', *[b"x" * 300, b"\n"] * 20, b'"', b",", b"ab", b"\n", b'"', b"ab", b'"', b",", b"ab", b"\n"])
def test_any_bytes_are_records_once_each_and_the_same_in_chunks_of_any_size(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("any") / "a.csv", b"a,b\n" + b"".join(data))
    large = rows(path, Source(shard_bytes=1 << 20, max_line_bytes=1 << 10))
    assert rows(path, Source(shard_bytes=1 << 10, max_line_bytes=1 << 10)) == large
    assert [line for line, *_ in large] == list(range(1, len(large) + 1))
    offsets = [offset for _, offset, _, _ in large]
    assert offsets == sorted(set(offsets))
    chunks = scan(str(path), SMALL, path.parent)
    covered = b"".join(path.read_bytes()[chunk.start : chunk.end] for chunk in chunks)
    assert covered.translate(None, b"\r\n") == b"".join(data).translate(None, b"\r\n")  # blank lines are in no chunk
