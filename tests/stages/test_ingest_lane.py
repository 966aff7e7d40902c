"""Both lanes say the same of every line, and the fast one takes the lines that it is for."""

import ctypes
import gzip
import json
import mmap
import random
from collections.abc import Iterable
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.graph import by_name
from pipeline.halves import split
from schemas.fields import RAW
from stages.ingest import Ingest, ingest_lines
from stages.ingest.conversation import adapt
from stages.ingest.lane import FEW_BYTES, lane_of
from stages.ingest.lane.columns import read_columns
from stages.ingest.lane.memory import lines_of, room_for
from stages.ingest.lane.plan import HISTORY, PLANS, READ, SLOTS, TURNS, Plan
from stages.ingest.line import Line
from stages.ingest.rules import NO_RULES, Rules, rules_text
from stages.ingest.shapes import SHAPES
from stages.ingest.strict import read_strictly
from tests.corpus import ROOT
from tests.stages.rows import records

DATA = ROOT.parent / "shared" / "data"
QA = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
SAID = {1: QA, 2: [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}
EVERY = Ingest()


def taken(raws: Iterable[bytes], config: Ingest = EVERY, rules: Rules = NO_RULES) -> list[int]:
    """Return which lines took the lane, after comparing what became of them with what the strict lane says."""
    lines = list(raws)
    frame = records(*lines, rules=None if rules == NO_RULES else rules_text(rules))
    lane = lane_of(config, rules)
    assert lane is not None
    if not lane.is_open():
        return []
    rows, fast = read_columns(frame, lane, sum(map(len, lines)))
    strict, _ = read_strictly(frame[rows], config)
    for ours, theirs in zip(fast.to_pylist(), strict.to_pylist(), strict=True):
        assert ours == theirs
    assert fast.equals(strict)
    return [int(row) for row in rows]


def strictly(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(read_strictly(frame, EVERY)[0]))


def line(record: Any, **style: Any) -> bytes:
    return json.dumps(record, **style).encode()


def record_of(plan: Plan, keys: Iterable[str]) -> dict[str, Any]:
    special = dict.fromkeys(TURNS, SAID.get(plan.form)) | {HISTORY: [["q", "r"], ["s", "t"]]}
    return {key: special.get(key, f"the text of {key}") for key in keys}


def texts_of(plan: Plan) -> list[dict[str, Any]]:
    """Return records of a plan: what it needs, each thing that it may have beside that, and all but a second system message."""
    needed = sorted(plan.required)
    sets = [needed, *([*needed, key] for key in sorted(plan.optional))]
    return [record_of(plan, keys) for keys in (*sets, sorted(plan.required | plan.optional - {"system_prompt"}))]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.shape}-{'-'.join(sorted(plan.required))}")
def test_the_lane_takes_every_record_that_it_has_a_plan_for(plan):
    lines = [line(record) for record in texts_of(plan)]
    assert taken(lines) == list(range(len(lines)))
    assert taken(lines, Ingest(shape=plan.shape)) == list(range(len(lines)))
    assert strictly(records(*lines))["shape"].unique().to_list() == [plan.shape]


def test_the_densest_records_have_room():
    record = {"q": "a", "a": "b", "history": [["c", "d"]] * 500}
    raws = [line(record, separators=(",", ":"))] * 5
    frame, lane = records(*raws), lane_of(EVERY, NO_RULES)
    assert lane is not None
    room = room_for(lines_of(frame)[0], sum(map(len, raws)), lane)
    said = strictly(frame)["messages"].explode(empty_as_null=False).struct.unnest()
    # One text more than what is written has an end, and before memory is overrun, not after it, it is compared.
    assert len(room.role_ends) > len(said)
    assert len(room.content_ends) > len(said)
    assert len(room.roles) >= said["role"].str.len_bytes().sum()
    assert taken(raws) == list(range(5))


class Asked(dict[str, Any]):
    """A record that remembers which keys it was asked for."""

    def __init__(self, record: dict[str, Any], log: set[str]) -> None:
        super().__init__(record)
        self.log = log

    def __contains__(self, key: object) -> bool:
        self.log.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.log.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.log.add(key)
        return super().get(key, default)

    def keys(self) -> Any:
        return Names(super().keys(), self.log)


class Names(set[str]):
    """The keys of such a record; what they are compared with was asked for."""

    def __init__(self, keys: Iterable[str], log: set[str]) -> None:
        super().__init__(keys)
        self.log = log

    def __and__(self, others: Any) -> set[str]:
        self.log |= set(others)
        return set(self) & set(others)

    __rand__ = __and__

    def __sub__(self, others: Any) -> set[str]:
        raise AssertionError("an adapter looks at keys of any name: then the lane cannot tell which of them matter")


def test_no_adapter_reads_a_key_that_the_lane_takes_for_one_that_nothing_reads():
    log: set[str] = set()
    for plan in PLANS:
        open_ended = {key: SAID[plan.form][:1] for key in plan.required if key in TURNS}
        for record in (*texts_of(plan), *([open_ended] if open_ended else [])):
            read = Line(line(record), 64)
            read.value = Asked(read.value, log)
            for shape in SHAPES.values():
                shape.recognises(read.value)
            adapt(read, "auto")
    assert "instruction" in log
    assert log - {*SLOTS, *READ} == set(), "add them to READ in stages.ingest.lane.plan"


def test_the_lane_heeds_every_setting_of_ingest():
    heeded = {"shape", "input_border", "trailing", "first_assistant", "score", "created"}  # by doing as they say
    closing = {"mapping", "end_texts"}  # by leaving all lines to the strict lane
    left = {"same_role", "merge_with", "empty", "disliked", "unknown"}  # by leaving the lines that they are about
    harmless = {"max_depth"}  # what the lane takes is never nested as deeply as the least that can be set
    assert set(Ingest.__struct_fields__) == heeded | closing | left | harmless, "does the lane do what a new one says?"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "c"}]}',
        b'{"id": 1, "id"\n: 2, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}',
        b'{"prompt": "a", "completion": "b", "x": 1, "y": 2, "x": 3}',
        b'{"prompt": "a", "pro\\u006dpt": "b", "completion": "c"}',
        b'{"messages": [{"role": "assistant", "content": "c", "weight": 0}]}',
        b'{"prompt": "a\\u0000", "completion": "b"}',
        b'{"prompt": "a\0b", "completion": "b"}',
        b'{"prompt": "a\\ud800", "completion": "b"}',
        b'{"prompt": "a\\udc00\\ud800", "completion": "b"}',
        b'{"prompt": "a", "completion": "b", "x": "\\ud800"}',
        b'{"prompt": "a", "completion": "b", "conversation_id": "\\ud800", "id": "a"}',
        b'{"prompt": "a\\x", "completion": "b"}',
        b'{"prompt": "a", "completion": "b", "x": 01}',
        b'{"prompt": "a", "completion": "b", "x": 1e999}',
        b'{"prompt": "a", "completion": "b", "x": NaN}',
        b'{"prompt": "a", "completion": "b", "x": nul}',
        b'{"prompt": "a", "completion": "b", "x": {}}',
        b'{"prompt": "a", "completion": "b"} x',
        b'{"prompt": "a", "completion": "b",}',
        b'{"prompt": "a", "completion": ""}',
        b'{"prompt": null, "completion": "b"}',
        b'{"prompt": 3, "completion": "b"}',
        b'{"prompt": "\xff", "completion": "b"}',
        b'{"prompt": "\xed\xa0\x80", "completion": "b"}',
        b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}',
        b'{"prompt": "a", "completion": "b", "tools": "[]"}',
        b'{"messages": [{"role": "wizard", "content": "a"}, {"role": "assistant", "content": "b"}]}',
        b'{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}]}',
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}',
        b'{"messages": [{"role": "user", "content": "a"}]}',
        b'{"messages": [], "prompt": "a", "completion": "b"}',
        b'{"messages": [{"role": "user", "content": "a"}, {"from": "gpt", "value": "b"}]}',
        b"hello",
        b"{}",
        b"",
        None,
    ],
)
def test_the_lane_leaves_doubtful_lines_to_the_strict_one(raw):
    good = line({"prompt": "a", "completion": "b"})
    frame = records(good, raw, good)
    lane = lane_of(EVERY, NO_RULES)
    assert lane is not None
    rows, _ = read_columns(frame, lane, 1000)
    assert rows.tolist() == [0, 2]


def test_what_nothing_answers_is_left_out_and_counted_by_the_lane_too():
    turns = [*QA, {"role": "user", "content": "And?"}, {"role": "tool", "content": "x"}]
    raws = [line({"messages": turns}), line({"messages": QA}), line({"messages": QA[1:]})]
    assert taken(raws) == [0, 1, 2]
    assert taken(raws, Ingest(trailing="quarantine")) == [1, 2]
    assert taken(raws, Ingest(trailing="keep")) == [1, 2]
    assert taken(raws, Ingest(first_assistant="trim")) == [0, 1]
    assert taken(raws, Ingest(first_assistant="quarantine")) == [0, 1]


def test_rules_and_settings_reach_the_lane():
    raws = [
        line({"instruction": "a", "input": "b", "output": "c", "source": "s"}),
        line({"messages": QA, "id": 7, "score": 3}),
    ]
    assert taken(raws, Ingest(input_border=" | ")) == [0, 1]
    assert taken(raws, Ingest(shape="alpaca")) == [0]
    assert taken(raws, Ingest(score="score")) == [0, 1]
    assert taken(raws, Ingest(score="id")) == []
    assert taken(raws, EVERY, Rules(tags=("domain:a", "b"))) == [0, 1]
    assert taken(raws, EVERY, Rules(tags=("source:s",))) == []
    assert taken(raws, EVERY, Rules(shape="messages")) == [1]


@pytest.mark.parametrize("value", ["1e3", "true", '"high"', "[1]", "12345678901234567890", '"\\ud800"'])
def test_a_score_that_is_none_is_for_the_strict_lane_to_refuse(value):
    good = line({"prompt": "a", "completion": "b", "score": 0.5})
    assert taken([good, good.replace(b"0.5", value.encode()), good], Ingest(score="score")) == [0, 2]


LETTERS = 'ab 1:,{}[]"\\/\n\t\x1f\x7f\x80é߿ࠀ漢\u2028\ud7ff\ue000\uffff\U00010000😀\U0010ffff'
STRINGS = (
    st.text(st.sampled_from(LETTERS), max_size=12)
    | st.sampled_from(['"', "\\", "\n", "\0", "\ud800", "a" * 70, '"role": 1', "", " "])
    | st.text(st.sampled_from('ab"\\\n漢😀'), min_size=60, max_size=140)
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | STRINGS | st.just([]) | st.just({})
ROLE_NAMES = st.sampled_from(["user", "assistant", "system", "tool", "gpt", "human", "User", "wizard", ""])
TURN = st.one_of(
    st.fixed_dictionaries({"role": ROLE_NAMES, "content": STRINGS}, optional={"id": SCALARS, "weight": SCALARS}),
    st.fixed_dictionaries({"from": ROLE_NAMES, "value": STRINGS}, optional={"lang": SCALARS, "content": STRINGS}),
)
KNOWN = st.sampled_from(sorted({*SLOTS, *READ, "x", "y", "score"}))
VALUES = SCALARS | st.lists(TURN, max_size=4) | st.lists(st.tuples(STRINGS, STRINGS), max_size=2)


@st.composite
def spelled(draw: st.DrawFn) -> bytes:
    """A record that is nearly of some shape, written in one of the ways that JSON leaves open."""
    plan = draw(st.sampled_from(PLANS))
    pairs = list(draw(st.sampled_from(texts_of(plan))).items())
    own = draw(st.lists(st.sampled_from([*plan.required, *plan.optional, "x"]), max_size=2))
    pairs += [(key, draw(VALUES)) for key in own + draw(st.lists(KNOWN, max_size=2))]
    pairs = pairs if draw(st.booleans()) else list(dict(pairs).items())
    gaps = draw(st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", " : "), (",\n", ":\r\n")]))
    is_ascii = draw(st.booleans())

    def spell(value: Any) -> str:
        return json.dumps(value, ensure_ascii=is_ascii, separators=gaps)

    body = gaps[0].join(f"{spell(key)}{gaps[1]}{spell(value)}" for key, value in pairs)
    end = draw(st.sampled_from(["\n", "\r\n", "", " "]))
    return f"{{{body}}}{end}".encode("utf-8", "surrogatepass")


@given(st.lists(spelled(), min_size=1, max_size=8), st.sampled_from([EVERY, Ingest(score="score", created="meta.at")]))
def test_both_lanes_say_the_same_of_every_record(raws, config):
    taken(raws, config)


def mutated(raw: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(raw))
        match chance.randrange(6):
            case 0:
                raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
            case 1:
                raw = raw[:at] + bytes([chance.choice(b'"\\{}[],: 0u\n')]) + raw[at:]
            case 2:
                raw = raw[:at] + raw[at + 1 :]
            case 3:
                raw = raw[:at] + raw[at : at + chance.randrange(40)] + raw[at:]
            case 4:
                escape = chance.choice((b"\\u00e9", b"\\ud83d\\ude00", b"\\ud83d", b"\\u0000", b"\\n", b"\\/", b"\\x"))
                raw = raw[:at] + escape + raw[at:]
            case _:
                raw = raw[:at] + chance.choice(("漢", "😀", "\u2028")).encode() + raw[at:]
    return raw or b" "


def test_both_lanes_say_the_same_of_lines_that_were_damaged():
    chance = random.Random(0)
    whole = [line(record, ensure_ascii=chance.random() < 0.5) for plan in PLANS for record in texts_of(plan)]
    assert taken(whole) == list(range(len(whole)))
    raws = [mutated(chance.choice(whole), chance) for _ in range(6000)]
    assert 1000 < len(taken(raws)) < 5000


def test_what_comes_out_is_byte_for_byte_the_same_whichever_lane_read_it():
    chance = random.Random(1)
    plain = [line({"id": i, "messages": QA, "source": f"s{i % 3}", "x": "é" * 200}) for i in range(300)]
    raws = [raw if i % 7 else mutated(raw, chance) for i, raw in enumerate(plain)]
    tree = {"instruction": "a", "instances": [{"input": "b", "output": "c"}, {"input": "d", "output": "e"}]}
    raws[5] = line(tree)
    frame = records(*raws)
    assert sum(map(len, raws)) > FEW_BYTES
    ours, theirs = ingest_lines(frame, EVERY), strictly(frame)
    assert len(taken(raws)) > 250
    assert ours["id"].to_list()[4:8] == ["f.jsonl:5", "f.jsonl:6.1", "f.jsonl:6.2", "f.jsonl:7"]
    assert [written(half) for half in halves(ours, frame)] == [written(half) for half in halves(theirs, frame)]


@pytest.mark.parametrize("every", [2, 3, 700])
def test_rows_stand_in_the_order_of_their_records(every):
    good, bad = line({"id": "x", "messages": QA}), b'{"messages": 3}'
    out = ingest_lines(records(*(bad if i % every == 0 else good for i in range(1, 1401))), EVERY)
    assert out["line"].to_list() == list(range(1, 1401))
    assert out["drop_reason"].is_not_null().to_list() == [i % every == 0 for i in range(1, 1401)]


def halves(out: pl.DataFrame, frame: pl.DataFrame) -> tuple[pa.Table, pa.Table]:
    found = split(by_name("ingest"), 0, out, frame.height)
    assert found.dropped is not None
    return found.kept, found.dropped


def written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def test_rows_of_several_files_or_rules_are_read_strictly():
    raw = line({"messages": QA, "x": "y" * 1000})
    frame = records(*[raw] * 100)
    for column in ("source", "rules"):
        mixed = frame.with_columns(
            pl.Series(column, [None if column == "rules" else "f"] * 50 + ['{"tags":["t"]}'] * 50)
        )
        assert ingest_lines(mixed, EVERY).equals(strictly(mixed))


def test_nothing_behind_the_last_line_is_read():
    page = mmap.PAGESIZE
    with mmap.mmap(-1, 2 * page) as memory:
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(start + page), page, 0) == 0  # a read of it ends the process
        try:
            for raw in (line({"q": "é", "a": "\n" * 9}), line({"messages": QA}), b'{"prompt": "a", "completion": "b'):
                ctypes.memmove(start + page - len(raw), raw, len(raw))
                data = pa.foreign_buffer(start + page - len(raw), len(raw))
                offsets = pa.py_buffer(pa.array([0, len(raw)], pa.int32()).buffers()[1])
                cell = pl.Series("raw", pl.from_arrow(pa.Array.from_buffers(RAW.type, 1, [None, offsets, data])))
                frame = records(raw).with_columns(cell)
                lane = lane_of(EVERY, NO_RULES)
                assert lane is not None
                rows, _ = read_columns(frame, lane, len(raw))
                assert len(rows) == raw.endswith(b"}")
        finally:
            assert libc.mprotect(ctypes.c_void_p(start + page), page, 3) == 0
            del data, cell, frame, rows


@pytest.mark.skipif(not DATA.exists(), reason="the data is not beside the project")
@pytest.mark.parametrize(
    "name", sorted(path.name for path in (DATA / "formats").glob("*.json*")) if DATA.exists() else []
)
def test_both_lanes_say_the_same_of_published_data(name):
    data = (DATA / "formats" / name).read_bytes()
    data = gzip.decompress(data) if name.endswith(".gz") else data
    listed = json.loads(data) if name.endswith(".json") else None
    raws = data.splitlines() if listed is None else [line(record, ensure_ascii=False) for record in listed]
    taken(raws)
