"""Score and time of a record: read where the settings say, as numbers and times or not at all."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DropReason
from schemas.settings import ConfigError, decode_section
from stages.ingest import Ingest, ingest_lines
from stages.ingest.lane import Lane
from stages.ingest.lane.columns import read_columns
from stages.ingest.line import Line
from stages.ingest.ranking import Ranking
from tests.stages.rows import records

QA = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


def ingest(record: Any, **settings: Any) -> dict[str, Any]:
    raw = record if isinstance(record, bytes) else json.dumps(record).encode()
    return ingest_lines(records(raw), Ingest(**settings)).row(0, named=True)


def test_nothing_is_read_unless_asked_for():
    row = ingest({"messages": QA, "score": 3, "created": "2024-05-01"})
    assert (row["score"], row["created"], row["drop_reason"]) == (None, None, None)


@pytest.mark.parametrize(
    ("record", "score"),
    [
        ({"score": 3}, 3.0),
        ({"score": -0.25}, -0.25),
        ({"score": 0}, 0.0),
        ({"score": None}, None),
        ({}, None),
        ({"meta": {"quality": {"mean": 0.5}}}, 0.5),
        ({"meta": {"quality": None}}, None),
        ({"meta": None}, None),
        ({"meta": {}}, None),
        ({"meta.quality.mean": 1.5, "meta": {"quality": {"mean": 0.5}}}, 1.5),
    ],
)
@pytest.mark.parametrize("shape", [{"messages": QA}, {"prompt": "Why?", "completion": "x"}])
def test_a_score_is_the_number_under_its_key(record, score, shape):
    key = "score" if "score" in record else "meta.quality.mean"
    row = ingest(shape | record, score=key)
    assert (row["drop_reason"], row["score"]) == (None, score)


@pytest.mark.parametrize("score", ['"3"', '"high"', "true", "[3]", '{"value": 3}', "1" + "0" * 400, '""'])
def test_what_is_no_number_is_quarantined_with_the_setting_that_asked_for_it(score):
    raw = json.dumps({"messages": QA, "score": "S"}).replace('"S"', score).encode()
    row = ingest(raw, score="score")
    assert row["drop_reason"] == DropReason.BAD_SHAPE
    assert row["detail"].startswith("score: expected a finite number or null ([ingest] score), got ")
    assert row["score"] is None
    assert ingest(raw)["drop_reason"] is None


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_a_number_that_is_not_finite_is_no_json(score):
    raw = json.dumps({"messages": QA, "score": "S"}).replace('"S"', score).encode()
    assert ingest(raw, score="score")["drop_reason"] == DropReason.BAD_JSON


def test_a_path_through_something_else_is_quarantined_by_name():
    row = ingest({"messages": QA, "meta": "good"}, score="meta.quality")
    assert row["drop_reason"] == DropReason.BAD_SHAPE
    assert row["detail"] == "meta: expected an object with quality, or null, got 'good'"


@pytest.mark.parametrize(
    ("created", "time"),
    [
        ("2024-05-01", "2024-05-01 00:00:00.000000"),
        ("2024-05-01T12:30:05", "2024-05-01 12:30:05.000000"),
        ("2024-05-01 12:30", "2024-05-01 12:30:00.000000"),
        ("2024-05-01T12:30:05Z", "2024-05-01 12:30:05.000000"),
        ("2024-05-01t12:30:05z", "2024-05-01 12:30:05.000000"),
        ("2024-05-01T12:30:05.5+02:00", "2024-05-01 10:30:05.500000"),
        ("2024-05-01T12:30:05,123456789-0530", "2024-05-01 18:00:05.123456"),
        ("2024-05-01T01:30+02", "2024-04-30 23:30:00.000000"),
        (" 1969-12-31T23:59:59.999999Z\n", "1969-12-31 23:59:59.999999"),
        (0, "1970-01-01 00:00:00.000000"),
        (-1, "1969-12-31 23:59:59.000000"),
        (1714566605, "2024-05-01 12:30:05.000000"),
        (1714566605.25, "2024-05-01 12:30:05.250000"),
        (1714566605250, "2024-05-01 12:30:05.250000"),
        (1714566605250.5, "2024-05-01 12:30:05.250500"),
        (99_999_999_999, "5138-11-16 09:46:39.000000"),  # the last number that is seconds
        (100_000_000_000, "1973-03-03 09:46:40.000000"),  # the first that is milliseconds
        (None, None),
    ],
)
def test_a_time_is_iso_text_or_a_number_of_seconds_or_milliseconds(created, time):
    row = ingest({"messages": QA, "at": created}, created="at")
    assert row["drop_reason"] is None, row["detail"]
    assert row["created"] == (None if time is None else datetime.fromisoformat(time).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    "created",
    [
        "",
        "yesterday",
        "1714566605",
        "20240501",
        "2023111400",
        "20231114012",
        "2024-13-01",
        "2024-02-30",
        "2024-05-01T24:00",
        "2024-05-01T12:60",
        "2024-05-01T12:30:60",
        "2024-05-01T12:30:05 UTC",
        "2024-05",
        "0000-01-01",
        "0001-01-01T00:00+01:00",
        "9999-12-31T23:59-01:00",
        "２０２４-05-01",
        10**14,
        -(10**14),
        -99_999_999_999,
        10**400,
        True,
        ["2024-05-01"],
        {"seconds": 0},
    ],
)
def test_a_time_that_cannot_be_read_is_quarantined(created):
    row = ingest({"messages": QA, "at": created}, created="at")
    assert row["drop_reason"] == DropReason.BAD_SHAPE
    assert row["detail"].startswith("at: expected a time as ISO 8601 text or in (milli)seconds since 1970, or null")
    assert row["created"] is None


@given(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)), st.integers(-23 * 60, 23 * 60))
def test_any_time_in_any_zone_is_read_as_python_reads_it(moment, minutes):
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    row = ingest({"messages": QA, "at": f"{moment.isoformat()}{sign}{hours:02}:{rest:02}"}, created="at")
    assert row["created"] == moment.replace(tzinfo=UTC) - timedelta(minutes=minutes)


@pytest.mark.parametrize("key", ["", ".", "a.", ".b", "a..b"])
@pytest.mark.parametrize("name", ["score", "created"])
def test_a_key_that_leads_nowhere_is_refused(name, key):
    with pytest.raises(ConfigError, match=rf"my.toml: \[ingest\].* {name} = '{key}': expected the name of a key"):
        decode_section({"ingest": {name: key}}, "ingest", Ingest, where="my.toml")


def test_both_settings_may_name_one_key():
    row = ingest({"messages": QA, "at": 5}, score="at", created="at")
    assert (row["score"], row["created"]) == (5.0, datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC))


@pytest.mark.parametrize("key", ["id", "source", 'sc"ore', "sc\\ore", "sc\nore", "messages.0", "told_0", "wértung"])
def test_a_key_may_have_any_name(key):
    assert ingest({"messages": QA, key: 2}, score=key)["score"] == 2.0
    assert ingest({"messages": QA}, score=key)["score"] is None


@pytest.mark.parametrize("record", [{"score": 1}, {"at": "2024-05-01", "score": None}, {"at": 3.5}, {}])
def test_ordinary_lines_stay_in_the_fast_lane(record):
    assert len(by_the_lane({"id": "1", "messages": QA} | record, Ranking("score", "at"))) == 1
    assert len(by_the_lane({"messages": QA, "meta": {"score": 1}}, Ranking("meta.score"))) == 0


@pytest.mark.parametrize("record", [QA, [{"message": "Why?"}, {"message": "Because."}]])
@pytest.mark.parametrize("key", ["at", "meta.at"])
def test_a_record_that_is_a_list_has_neither(record, key):
    row = ingest(record, score=key, created=key)
    assert (row["drop_reason"], row["score"], row["created"]) == (None, None, None)


def by_the_lane(record: Any, ranking: Ranking) -> pl.DataFrame:
    raw = record if isinstance(record, bytes) else json.dumps(record).encode()
    lane = Lane("auto", "\n", ranking, ())
    return (
        pl.DataFrame(pl.from_arrow(read_columns(records(raw), lane, len(raw))[1])) if lane.is_open() else pl.DataFrame()
    )


scalar = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**400, '":', "2024-05-01", "x", ""])
)
pair = st.tuples(
    st.sampled_from(["score", "at", "id", "source", "meta"]), scalar | st.dictionaries(st.just("x"), scalar)
)


@given(
    st.lists(pair, max_size=3),
    st.sampled_from(["", "", " "]),
    st.sampled_from([Ranking("score", "at"), Ranking("score", "score"), Ranking("meta.x"), Ranking("id"), Ranking()]),
)
def test_the_lanes_agree_and_every_line_becomes_one_row(pairs, gap, ranking):
    body = ", ".join(f"{json.dumps(key)}{gap}: {json.dumps(value)}" for key, value in [("messages", QA), *pairs])
    raw = f"{{{body}}}".encode()
    row, fast = ingest(raw, score=ranking.score, created=ranking.created), by_the_lane(raw, ranking)
    assert fast.is_empty() or fast.row(0, named=True) == row
    if row["drop_reason"] is not None:
        return
    line = Line(raw, 64)
    score, created = ranking.of(line.value)
    assert row["score"] == score
    assert row["created"] == (
        None if created is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=created)
    )
