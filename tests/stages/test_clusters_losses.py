"""Losses by source: counted for every origin of a row, and an alarm that names those that lose too much."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import GateError
from stages.clusters.losses import SourceLosses, count_origins
from stages.clusters.origins import origins_of


def rows(*parts: tuple[str, Sequence[str], int]) -> pl.DataFrame:
    """Return n rows of each (path, tags, n)."""
    return pl.DataFrame(
        {
            "source": [path for path, _, n in parts for _ in range(n)],
            "tags": [list(tags) for _, tags, n in parts for _ in range(n)],
        },
        schema={"source": pl.String, "tags": pl.List(pl.String)},
    )


def losing(n_rows: int, *lost: slice) -> np.ndarray:
    is_lost = np.zeros(n_rows, np.bool_)
    for part in lost:
        is_lost[part] = True
    return is_lost


def test_the_origins_of_a_row_are_its_path_and_the_sources_its_tags_name() -> None:
    frame = rows(
        ("a", ["x", "source:w"], 1), ("b", [], 2), ("a", ["source:z", "source:w", "source:z"], 1), ("source:", [], 1)
    )
    codes, sets = origins_of(frame)
    named = [sets[code] for code in codes]
    assert named == [("a", "source:w"), ("b",), ("b",), ("a", "source:w", "source:z"), ("source:",)]
    assert origins_of(rows())[1] == []


def test_a_source_that_loses_more_than_its_share_stops_the_build_and_is_named() -> None:
    losses = SourceLosses()
    losses.read(rows(("a.jsonl", [], 1_000), ("b.jsonl", [], 150)))
    losses.read(rows(("b.jsonl", [], 50)))
    keepers = np.full(1_200, -1)
    keepers[1_000:1_180] = 5
    is_lost = losing(1_200, slice(0, 400), slice(1_000, 1_180))
    losses.check(is_lost, 0.9, keepers)
    with pytest.raises(GateError) as error:
        losses.check(is_lost, 0.5, keepers)
    text = str(error.value)
    assert "1 source would lose more than [clusters] max_source_loss = 0.5" in text
    assert "\n  b.jsonl: lost 180 of 200 (90.0 %); 180 of them have their keepers in a.jsonl\n" in text
    assert "`chatloom duplicates RUN`" in text
    assert "a.jsonl: lost" not in text


def test_a_source_named_in_tags_counts_across_files_and_the_worst_comes_first() -> None:
    losses = SourceLosses()
    losses.read(
        rows(("a", ["source:web"], 300), ("a", [], 700), ("b", ["source:web", "source:old"], 200), ("b", [], 1_000))
    )
    is_lost = losing(2_200, slice(0, 150), slice(1_000, 1_200))
    with pytest.raises(GateError) as error:
        losses.check(is_lost, 0.5)
    lines = str(error.value).split("\n")
    assert lines[1:3] == [
        "  source 'old' (named in the tags): lost 200 of 200 (100.0 %)",
        "  source 'web' (named in the tags): lost 350 of 500 (70.0 %)",
    ]
    assert losses.origins() == {"a", "b", "source:web", "source:old"}


def test_fewer_than_a_hundred_lost_rows_are_no_alarm() -> None:
    losses = SourceLosses()
    losses.read(rows(("a", [], 100)))
    losses.check(losing(100, slice(0, 99)), 0.5)
    with pytest.raises(GateError, match=r"a: lost 100 of 100 \(100.0 %\)"):
        losses.check(losing(100, slice(0, 100)), 0.5)


def test_exactly_the_share_is_allowed_and_a_limit_of_one_allows_all() -> None:
    losses = SourceLosses()
    losses.read(rows(("a", [], 1_000)))
    losses.check(losing(1_000, slice(0, 300)), 0.3)
    with pytest.raises(GateError):
        losses.check(losing(1_000, slice(0, 301)), 0.3)
    losses.check(losing(1_000, slice(0, 1_000)), 1.0)
    SourceLosses().check(losing(0), 0.0)


def test_rows_lost_to_evaluation_records_are_said_to_be_and_what_to_do_is_another_thing() -> None:
    losses = SourceLosses()
    losses.read(rows(("a", [], 200), ("b", [], 200)))
    is_lost = losing(400, slice(0, 150), slice(200, 350))
    with pytest.raises(GateError) as error:
        losses.check(is_lost, 0.5, np.full(400, -1), losing(400, slice(0, 140)))
    text = str(error.value)
    assert "a: lost 150 of 200 (75.0 %); 140 of them contain records of [clusters] evaluations\n" in text
    assert "b: lost 150 of 200 (75.0 %)\n" in text
    assert "[clusters] overlap" in text
    assert "template's text, leave it out" not in text


def test_of_a_file_with_many_sources_the_source_of_the_keepers_is_named() -> None:
    losses = SourceLosses()
    losses.read(rows(("all", ["source:web"], 150), ("all", ["source:wiki"], 850), ("all", ["source:forum"], 300)))
    keepers = np.full(1_300, -1)
    keepers[:140], keepers[1_000:1_200] = 200, 1_250
    with pytest.raises(GateError) as error:
        losses.check(losing(1_300, slice(0, 140), slice(1_000, 1_200)), 0.5, keepers)
    assert str(error.value).split("\n")[1:3] == [
        "  source 'web' (named in the tags): lost 140 of 150 (93.3 %); 140 of them have their keepers in source 'wiki' "
        "(named in the tags)",
        "  source 'forum' (named in the tags): lost 200 of 300 (66.7 %); 200 of them have their keepers in the same source",
    ]


def test_many_alarms_are_counted_and_the_worst_shown() -> None:
    losses = SourceLosses()
    losses.read(rows(*((f"f{k:02}", [], 200) for k in range(15))))
    with pytest.raises(GateError, match=r"15 sources would lose(.|\n)*f09: (.|\n)*and 5 more\n"):
        losses.check(losing(3_000, slice(0, 3_000)), 0.5)


ROW = st.tuples(
    st.sampled_from("ab"), st.lists(st.sampled_from(["x", "source:x", "source:y"]), max_size=3), st.booleans()
)


@settings(deadline=None)
@given(st.lists(ROW, max_size=30), st.integers(0, 30))
def test_counts_of_origins_are_those_of_looking_at_each_row(given: list[tuple[str, list[str], bool]], cut: int) -> None:
    frame = rows(*((path, tags, 1) for path, tags, _ in given))
    is_lost = np.array([lost for *_, lost in given], np.bool_)
    expected: dict[str, tuple[int, int]] = {}
    for path, tags, lost in given:
        for name in {path, *(tag for tag in tags if tag.startswith("source:"))}:
            n, n_lost = expected.get(name, (0, 0))
            expected[name] = (n + 1, n_lost + lost)
    assert count_origins(frame, is_lost, most=9) == expected
    total: dict[str, tuple[int, int]] = {}
    for part in (slice(0, cut), slice(cut, None)):
        for name, (n, n_lost) in count_origins(frame[part], is_lost[part], most=9).items():
            old = total.get(name, (0, 0))
            total[name] = (old[0] + n, old[1] + n_lost)
    assert total == expected


def test_sources_beyond_the_most_count_together() -> None:
    frame = rows(*(("a", [f"source:{k}"], 4 - k) for k in range(4)))
    counts = count_origins(frame, losing(10, slice(0, 1), slice(8, 10)), most=2)
    assert counts == {"a": (10, 3), "source:0": (4, 1), "source:1": (3, 0), "source:*": (3, 2)}
