"""`chatloom check`, as it is called: real files, real processes."""

import gzip
import json
import subprocess
import sys

import pytest

from pipeline.check import check, left_out
from schemas.settings import ConfigError
from stages.cosine import TooLargeError
from tests.corpus import _SUBJECTS, _VERBS, ROOT

FORMAL = ("Edit the following sentence to make it more formal.", "Edit the sentence to make it more formal.")


def run(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "pipeline.cli", "check", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(cwd)}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


def write(path, records):
    text = json.dumps(records) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in records)
    path.write_text(text, encoding="utf-8")
    return str(path)


def records():
    """Return 200 instructions as of a textbook, two of three without input; three pairs are planted among them."""
    rows = []
    for i in range(200):
        what, verb = _SUBJECTS[i % 15], _VERBS[i // 15 % 14]
        name = f"{chr(97 + i % 26)}{chr(97 + i * 7 % 26)}{chr(97 + i * 11 % 23)}{i * 37 % 89}{chr(97 + i * 3 % 19)}"
        given = "" if i % 3 else f"{name[::-1]} {verb} nine {what}s {i * i}"
        rows.append(
            {"instruction": f"{verb} {what} {name} {i * 73}", "input": given, "output": f"{name * 2} {what} {i**3}"}
        )
    rows[42]["instruction"], rows[105]["instruction"] = FORMAL
    rows[74] = dict(rows[73])
    rows[74]["output"] = rows[73]["output"].upper() + "!"
    rows[103]["instruction"] = "Change the sentences from active voice to passive voice."
    rows[109]["instruction"] = "Change the sentence from passive to active voice."
    rows[73]["input"] = rows[74]["input"] = ""
    return rows


def pairs(checked):
    return {found.name: [(p.row_a, p.row_b, round(p.similarity, 2)) for p in found.pairs()] for found in checked.found}


def test_pairs_have_the_row_numbers_of_the_file_though_most_inputs_are_empty(tmp_path):
    found = pairs(check([write(tmp_path / "a.json", records())]))
    assert [pair[:2] for pair in found["instruction"]] == [(42, 105), (73, 74), (103, 109)]
    assert found["instruction"][1][2] == 1.0
    assert found["input"] == []
    assert found["output"] == [(73, 74, 1.0)]


def test_a_pair_between_empty_fields_is_at_its_own_rows(tmp_path):
    rows = [
        {"input": text} for text in ("", "", "She said, I am tired.", "", "7, 10, 3", "", "She said: I am tired.", "")
    ]
    checked = check([write(tmp_path / "a.jsonl", rows)])
    assert pairs(checked) == {"input": [(2, 6, 1.0)]}
    assert (checked.ids[2], checked.ids[6]) == (f"{tmp_path}/a.jsonl:3", f"{tmp_path}/a.jsonl:7")


def test_a_field_that_is_empty_everywhere_is_reported_as_such(tmp_path):
    path = write(tmp_path / "a.json", [{"input": "", "output": "x y"}, {"input": "", "output": "x y"}])
    fields = json.loads(run(path, "--json").stdout)["fields"]
    assert (fields["input"]["empty"], fields["input"]["n_pairs"]) == (2, 0)
    assert fields["output"]["pairs"] == [
        {"row_a": 0, "row_b": 1, "similarity": 1.0, "id_a": f"{path}:1", "id_b": f"{path}:2"}
    ]


def test_what_is_no_text_is_counted_and_left_alone(tmp_path):
    rows = [{"a": "same"}, {"a": 5}, {"a": None}, {"b": "x"}, {"a": ["same"]}, {"a": "same"}, {"a": "s"}, {"a": "?!"}]
    field = json.loads(run(write(tmp_path / "a.jsonl", rows), "--json").stdout)["fields"]["a"]
    counts = {name: field[name] for name in ("texts", "compared", "empty", "not_text", "missing", "n_pairs")}
    assert counts == {"texts": 4, "compared": 2, "empty": 1, "not_text": 2, "missing": 1, "n_pairs": 1}
    assert (field["pairs"][0]["row_a"], field["pairs"][0]["row_b"]) == (0, 5)


def test_equal_texts_are_counted_without_being_listed_one_by_one(tmp_path):
    rows = [{"source": "alpaca"}] * 5000 + [{"source": "alpacas"}] * 10
    found = check([write(tmp_path / "a.jsonl", rows)], threshold=0.3).found[0]
    assert found.n_pairs() == 5010 * 5009 // 2
    assert found.n_second_rows() == 5009
    assert next(found.pairs())[:2] == (0, 1)


def test_pairs_across_texts_come_in_order_of_rows_and_count_second_rows_once(tmp_path):
    b, a = FORMAL
    rows = [{"t": text} for text in (a, "planet", b, a, b)]
    found = check([write(tmp_path / "a.jsonl", rows)], threshold=0.7).found[0]
    assert [p[:2] for p in found.pairs()] == [(0, 2), (0, 3), (0, 4), (2, 3), (2, 4), (3, 4)]
    assert (found.n_pairs(), found.n_second_rows()) == (6, 3)


def test_a_broken_line_is_named_and_shifts_no_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"t": "same words"}\n{"t": \n\n7\n{"t": "same words"}\n')
    done = run(path)
    assert done.returncode == 0
    assert f"skipped {path}:2: bad_json" in done.stdout
    assert f"skipped {path}:4: not a record" in done.stdout
    assert pairs(check([str(path)])) == {"t": [(0, 3, 1.0)]}
    assert f"{path}:5  same words" in done.stdout


def test_paths_lead_into_conversations_and_a_key_with_a_dot_is_a_key(tmp_path):
    rows = [{"messages": [{"content": text}], "a.b": text} for text in ("hello there", "hello there", "no")]
    path = write(tmp_path / "a.jsonl", [*rows, {"messages": []}])
    for field in ("messages[0].content", "messages.0.content", "a.b"):
        assert pairs(check([path], fields=[field])) == {field: [(0, 1, 1.0)]}


def test_several_files_and_packed_ones_are_one_collection(tmp_path):
    first = write(tmp_path / "a.json", [{"t": "same words"}, {"t": "else"}])
    second = tmp_path / "b.jsonl.gz"
    second.write_bytes(gzip.compress(b'{"t": "Same words."}\n'))
    checked = check([first, str(second)])
    assert pairs(checked) == {"t": [(0, 2, 1.0)]}
    assert checked.ids[2] == f"{second}:1"


def test_the_rest_keeps_its_bytes(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        b'\xef\xbb\xbf{"t":  "same words", "n": 1.10}\r\n',
        b'{"t": "Same words!"}\r\n',
        b"{\n",
        b'{"t": "\\u00e9lse"}',
    ]
    path.write_bytes(b"".join(lines))
    done = run(path, "--output", tmp_path / "rest.jsonl", "--json")
    assert (tmp_path / "rest.jsonl").read_bytes() == b'{"t":  "same words", "n": 1.10}\n{"t": "\\u00e9lse"}\n'
    assert [(one["row"], one["keeper_row"], one["similarity"]) for one in json.loads(done.stdout)["left_out"]] == [
        (1, 0, 1.0)
    ]
    assert path.read_bytes() == b"".join(lines)


def test_an_array_stays_an_array_or_becomes_lines(tmp_path):
    rows = [{"t": "same\nwords", "deep": {"a": [1, 2]}}, {"t": "same\nwords"}, {"t": "else"}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, indent=4))
    assert run(path, "--output", tmp_path / "rest.json").returncode == 0
    assert json.loads((tmp_path / "rest.json").read_text()) == [rows[0], rows[2]]
    assert json.dumps(rows[2], indent=4).replace("\n", "\n    ") in (tmp_path / "rest.json").read_text()
    run(path, "--output", tmp_path / "rest.jsonl")
    assert [json.loads(line) for line in (tmp_path / "rest.jsonl").read_text().splitlines()] == [rows[0], rows[2]]


def test_a_row_goes_only_for_one_that_stays(tmp_path):
    # b is like a, c is like b but not like a: b goes for a, and c, whose only like is gone, stays
    a, b, c = "the cat sat on the mat", "the cat sat on the mat today", "the cat sat on the mat today indeed"
    checked = check([write(tmp_path / "a.jsonl", [{"t": text} for text in (a, b, c, b)])], threshold=0.85)
    assert [p[:2] for p in checked.found[0].pairs()] == [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert [(one.row, one.keeper) for one in left_out(checked)] == [(1, 0), (3, 0)]


def test_a_row_goes_for_its_like_in_any_of_the_fields(tmp_path):
    rows = [{"q": "one two", "a": "x y"}, {"q": "one two", "a": "seven"}, {"q": "eight", "a": "seven"}]
    checked = check([write(tmp_path / "a.jsonl", rows)], fields=["q", "a"])
    assert [(one.row, one.keeper, one.field) for one in left_out(checked)] == [(1, 0, "q")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threshold", "1"], "expected 0.1 to less than 1"),
        (["--threshold", "nan"], "expected 0.1 to less than 1"),
        (["--field", "instrction"], "did you mean 'instruction'?"),
        (["--output", "a.json"], "never overwritten"),
        (["--output", "./link.json"], "never overwritten"),
        (["--output", "rest.csv"], "ends with .json, .jsonl or .ndjson"),
        (["--output", "none/rest.json"], "there is no directory none"),
        (["--output", "rest.json"], "--output needs --field"),
        (["nowhere.json"], "nowhere.json"),
    ],
)
def test_a_mistake_gets_one_sentence_and_changes_nothing(tmp_path, arguments, said):
    before = write(tmp_path / "a.json", [{"instruction": "x y", "output": "z z"}] * 2)
    (tmp_path / "link.json").symlink_to(before)
    done = run("a.json", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.startswith("chatloom: error: ")
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["a.json", "link.json"]


def test_records_without_text_of_their_own_say_where_text_is(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": "hi"}]}])
    with pytest.raises(ConfigError, match=r"messages\[0\]\.content"):
        check([path])


def test_too_much_is_sent_to_the_build(tmp_path, monkeypatch):
    import pipeline.check

    monkeypatch.setattr(pipeline.check, "MAX_TEXTS", 2)
    path = write(tmp_path / "a.jsonl", [{"t": f"text {i}"} for i in range(3)])
    with pytest.raises(TooLargeError, match=r"more than 2 records.*chatloom data CONFIG --input"):
        check([path])


def test_hostile_text_cannot_write_to_the_terminal(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"t": "red \x1b[31m [bold]字[/] text"}] * 2)
    out = run(path).stdout
    assert "\x1b" not in out
    assert "red \\x1b[31m [bold]字[/] text" in out


def test_the_example_of_the_page_is_what_is_printed(tmp_path):
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    file, shown = (page.split(fence)[1].split("```")[0] for fence in ("```jsonl\n", "$ chatloom check my.jsonl\n"))
    (tmp_path / "my.jsonl").write_text(file, encoding="utf-8")
    done = run("my.jsonl", cwd=tmp_path)
    assert [line.rstrip() for line in done.stdout.splitlines()] == [line.rstrip() for line in shown.splitlines()]


def test_texts_that_lie_deeper_are_said_not_to_be_compared(tmp_path):
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    name = write(tmp_path / "a.jsonl", [{"id": "x", "messages": said}, {"id": "y", "messages": said}])
    assert (
        "texts inside are not compared unless --field names them: messages[0].role, messages[0].content, "
        in run(name).stdout
    )
    assert "not compared" not in run(name, "--field", "messages[0].content").stdout
    assert "not compared" not in run(write(tmp_path / "b.jsonl", [{"a.b": "Hi"}])).stdout


def test_more_pairs_than_json_lists_are_not_promised(tmp_path):
    name = write(tmp_path / "a.jsonl", [{"text": "The same text."}] * 450)
    assert "and 100,975 more pairs; --json lists the first 100,000" in run(name).stdout
    assert len(json.loads(run(name, "--json").stdout)["fields"]["text"]["pairs"]) == 100_000
