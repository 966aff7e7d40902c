"""Which copy is the best: by what the settings say, and by the texts alone where they say nothing of places."""

from datetime import UTC, datetime
from math import inf, isnan, nan
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import GateError
from stages.clusters.rank import Ranking, best_first, check_keep, check_priority

SCHEMA = {
    "id": pl.String,
    "source": pl.String,
    "tags": pl.List(pl.String),
    "score": pl.Float64,
    "created": pl.Datetime("us", "UTC"),
    "n_chars": pl.Int32,
    "content_hash": pl.UInt64,
    "text_hash": pl.Binary,
}


def rows(*given: dict[str, Any]) -> pl.DataFrame:
    """Return rows a.jsonl:1, a.jsonl:2, ..., alike in all that is not said; text is a letter that stands for a hash."""
    table = []
    for i, row in enumerate(given):
        source = row.get("source", "a.jsonl")
        text = row.get("text", "t")
        table.append(
            {
                "id": row.get("id", f"{source}:{row.get('line', i + 1)}"),
                "source": source,
                "tags": row.get("tags", []),
                "score": row.get("score"),
                "created": row.get("created"),
                "n_chars": row.get("n_chars", 10),
                "content_hash": row.get("content", 0),
                "text_hash": None if text is None else text.encode() * 16,
            }
        )
    return pl.DataFrame(table, schema=SCHEMA)


def ordered(frame: pl.DataFrame, *criteria: str, priority: tuple[str, ...] = ()) -> list[str]:
    return frame["id"].gather(best_first(frame, criteria, priority)).to_list()


def numbers(frame: pl.DataFrame, *criteria: str, priority: tuple[str, ...] = ()) -> list[int]:
    return best_first(frame, criteria, priority).tolist()


# --- criteria


def test_longest_and_shortest_go_by_characters() -> None:
    frame = rows({"n_chars": 5}, {"n_chars": 70_000}, {"n_chars": 0})
    assert numbers(frame, "longest") == [1, 0, 2]
    assert numbers(frame, "shortest") == [2, 0, 1]


def test_first_goes_by_path_and_by_the_line_as_a_number() -> None:
    frame = rows(
        {"source": "b.jsonl", "line": 1}, {"line": 10}, {"line": 9}, {"line": 2**40}, {"source": "a:7.jsonl", "line": 3}
    )
    expected = ["a.jsonl:9", "a.jsonl:10", f"a.jsonl:{2**40}", "a:7.jsonl:3", "b.jsonl:1"]
    assert ordered(frame, "first") == expected


def test_an_id_that_is_no_place_in_its_file_is_ordered_by_its_name() -> None:
    assert ordered(rows({"id": "c"}, {"id": "a.jsonl:x"}, {"id": "b"}), "first") == ["a.jsonl:x", "b", "c"]


def test_newest_and_oldest_put_rows_without_a_date_last() -> None:
    days = [datetime(2024, 5, 1, tzinfo=UTC), None, datetime(1950, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)]
    frame = rows(*({"created": day} for day in days))
    assert numbers(frame, "newest") == [3, 0, 2, 1]
    assert numbers(frame, "oldest") == [2, 0, 3, 1]


def test_the_highest_score_is_first_and_null_and_nan_are_last() -> None:
    scores = [-1.5, None, inf, 0.0, nan, -inf, -0.0, 3.25]
    frame = rows(*({"score": score} for score in scores))
    assert numbers(frame, "score") == [2, 7, 3, 6, 0, 5, 1, 4]  # minus zero is zero; NaN is no better than null


def test_sources_come_in_the_order_of_priority_by_path_or_by_tag() -> None:
    frame = rows(
        {"source": "web/1.jsonl"},
        {"source": "books/x.jsonl"},
        {"source": "web/2.jsonl", "tags": ["math", "source:wiki-en"]},
        {"source": "web/3.jsonl", "tags": ["wiki-de"]},
        {"source": "forum.jsonl"},
        {"source": "web/4.jsonl", "tags": ["source:other", "source:curated"]},
    )
    priority = ("curated", "wiki-??", "web/*")
    assert numbers(frame, "source", "first", priority=priority) == [5, 2, 0, 3, 1, 4]


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a.jsonl", "a.jsonl", True),
        ("a.jsonl", "aXjsonl", False),
        ("a", "data/a", False),
        ("*a", "data/a", True),
        ("?", "ä", True),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a*b*c", "a\nb/c", True),
        (r"\d+", r"\d+", True),
        ("<x>_~#&-^$|{1} é", "<x>_~#&-^$|{1} é", True),
    ],
)
def test_a_pattern_knows_two_wild_cards_and_matches_whole(pattern: str, path: str, matches: bool) -> None:
    frame = rows({"source": "zzz"}, {"source": path})
    assert numbers(frame, "source", priority=(pattern, "zzz"))[0] == int(matches)


def test_a_priority_that_matches_nothing_is_refused_with_the_names_there_are() -> None:
    text = r"priority = \['web'\].*none matches any; there are data/web.jsonl, wiki. .*\*name\*"
    with pytest.raises(GateError, match=text):
        check_priority(("web",), ["source:wiki", "data/web.jsonl"])
    with pytest.raises(GateError, match=r"there are 0, 1, 2, 3, 4, \.\.\."):
        check_priority(("web",), map(str, range(9)))
    check_priority(("nothing", "wik?"), ["source:wiki", "data/web.jsonl"])
    check_priority((), ["a"])
    check_priority(("a",), [])
    # rows without any of the sources are in an order all the same
    assert numbers(rows({"n_chars": 1}, {"n_chars": 2}), "source", priority=("web",)) == [1, 0]


def test_the_next_criterion_decides_between_equals() -> None:
    frame = rows({"score": 1, "n_chars": 3}, {"score": 2, "n_chars": 1}, {"score": 1, "n_chars": 2})
    assert numbers(frame, "score", "shortest") == [1, 2, 0]
    assert numbers(frame, "score", "longest") == [1, 0, 2]


# --- ties


def test_equals_are_told_apart_by_length_then_text_then_content_then_place() -> None:
    frame = rows(
        {"line": 10},
        {"line": 9},
        {"content": 2**63, "line": 1},
        {"text": "u", "line": 2},
        {"text": None, "line": 3},
        {"text": "z", "n_chars": 11, "line": 99},
    )
    assert numbers(frame, "score") == [5, 1, 0, 2, 3, 4]


ROW = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["a", "b", "c/d"]),
        "line": st.integers(1, 12),
        "n_chars": st.integers(0, 2),
        "score": st.sampled_from([None, nan, -1.0, 0.0, 2.5]),
        "created": st.sampled_from([None, *(datetime(1960 + k * 40, 1, 1, tzinfo=UTC) for k in range(3))]),
        "text": st.sampled_from([None, "s", "t"]),
        "content": st.sampled_from([0, 1, 2**40]),
        "tags": st.lists(st.sampled_from(["source:x", "source:y", "x", "z"]), max_size=2),
    }
)
CRITERIA = ["longest", "first", "newest", "score", "source"]


def last_if_none(value: float | None) -> tuple[bool, float]:
    is_last = value is None or isnan(value)
    return (is_last, 0.0 if is_last else value)


def keys_of(row: dict[str, Any], criteria: list[str]) -> list[Any]:
    """Return what the order goes by, as one would write it for a row."""
    names = [row["source"], *(tag.removeprefix("source:") for tag in row["tags"] if tag.startswith("source:"))]
    place = (row["source"], row["line"])
    by = {
        "longest": -row["n_chars"],
        "first": place,
        "newest": last_if_none(row["created"] and -row["created"].timestamp()),
        "score": last_if_none(-row["score"] if row["score"] is not None else None),
        "source": min([i for i, name in enumerate(("y", "a", "x")) if name in names], default=9),
    }
    text = (row["text"] is None, row["text"] or "")
    return [*(by[name] for name in criteria), -row["n_chars"], text, row["content"], place]


@settings(deadline=None)
@given(
    st.lists(ROW, max_size=25, unique_by=lambda row: (row["source"], row["line"])),
    st.lists(st.sampled_from(CRITERIA), min_size=1, max_size=3, unique=True),
    st.integers(0, 25),
)
def test_the_order_is_that_of_sorted_rows_however_they_are_cut_into_shards(
    given: list[dict[str, Any]], criteria: list[str], cut: int
) -> None:
    priority = ("y", "a", "x") if "source" in criteria else ()
    ranking = Ranking(tuple(criteria), priority)
    for part in (given[:cut], given[cut:]):
        ranking.read(rows(*part))
    expected = sorted(range(len(given)), key=lambda i: keys_of(given[i], criteria))
    assert ranking.best_first().tolist() == expected


@settings(deadline=None)
@given(
    st.lists(ROW, min_size=2, max_size=20), st.permutations(range(20)), st.sampled_from(["longest", "score", "oldest"])
)
def test_where_no_criterion_speaks_of_places_the_texts_come_in_one_order(
    given: list[dict[str, Any]], order: list[int], criterion: str
) -> None:
    moved = [given[i] for i in order if i < len(given)]
    texts = ["n_chars", "score", "created", "text_hash", "content_hash"]

    def sequence(frame: pl.DataFrame) -> pl.DataFrame:
        return frame[best_first(frame, (criterion,), ())].select(texts)

    blind = ["score", "created"] if criterion == "longest" else ["created"] if criterion == "score" else ["score"]
    here, there = (sequence(rows(*({**row, "line": i} for i, row in enumerate(each)))) for each in (given, moved))
    assert (
        here.drop(blind)
        .with_columns(pl.col(pl.Float64).fill_nan(None))
        .equals(there.drop(blind).with_columns(pl.col(pl.Float64).fill_nan(None)))
    )


def test_many_rows_are_ordered_as_polars_orders_them() -> None:
    rng = np.random.default_rng(4)
    n = 20_000
    frame = pl.DataFrame(
        {
            "id": [f"f:{i + 1}" for i in range(n)],
            "source": ["f"] * n,
            "tags": pl.Series([[]] * n, dtype=pl.List(pl.String)),
            "score": rng.integers(0, 50, n) / 7,
            "created": pl.Series([None] * n, dtype=pl.Datetime("us", "UTC")),
            "n_chars": pl.Series(rng.integers(0, 40, n), dtype=pl.Int32),
            "content_hash": rng.integers(0, 3, n, dtype=np.uint64),
            "text_hash": [bytes([v]) * 16 for v in rng.integers(0, 20, n)],
        }
    )
    by = [-pl.col("score"), -pl.col("n_chars"), "text_hash", "content_hash", pl.int_range(pl.len())]
    expected = frame.select(pl.arg_sort_by(by)).to_series().to_list()
    assert numbers(frame, "score") == expected


def test_no_rows_have_an_order() -> None:
    assert numbers(rows(), "source", priority=("a",)) == []
    assert Ranking(("first",), ()).best_first().tolist() == []


def test_a_hash_of_another_length_is_refused() -> None:
    frame = rows({}).with_columns(text_hash=pl.Series([b"abc"]))
    with pytest.raises(ValueError, match="column text_hash: expected 16 bytes in every value, got 3"):
        best_first(frame, ("longest",), ())


# --- settings


@pytest.mark.parametrize(
    ("criteria", "priority", "text"),
    [
        ((), (), "keep is empty: expected one or more of longest, shortest"),
        (("score", "longest", "score"), (), 'names "score" twice'),
        (("source",), (), "needs priority"),
        (("longest",), ("a*",), "priority says nothing without keep"),
        (("source",), ("a", ""), "empty pattern"),
        (("source",), ("b", "a", "b"), "priority names 'b' twice"),
        (("newest", "oldest"), (), "the second of them never decides"),
        (("shortest", "longest"), (), "the second of them never decides"),
    ],
)
def test_settings_that_cannot_decide_are_refused(criteria: Any, priority: tuple[str, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("*", r"\*")):
        check_keep(criteria, priority)


def test_settings_that_decide_are_taken() -> None:
    for criterion in ("longest", "shortest", "first", "newest", "oldest", "score"):
        check_keep((criterion,), ())
    check_keep(("source", "score", "newest"), ("a*", "?b"))
