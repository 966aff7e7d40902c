"""Contamination: the evaluation record of which most is in a row, found as by comparing every pair."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.clusters.overlap import EVIDENCE, EvaluationIndex
from tests.stages.signed_rows import Texts, signed


def found(evaluations: list[pl.DataFrame], rows: pl.DataFrame, minimum: float) -> dict[int, tuple[str, float]]:
    numbers, ids, overlaps = EvaluationIndex(evaluations, minimum).overlaps(rows)
    assert numbers.tolist() == sorted(set(numbers.tolist()))
    return dict(zip(numbers.tolist(), zip(ids.to_list(), overlaps.tolist(), strict=True), strict=True))


def conversations(*texts: range | list[int], source: str = "a.jsonl") -> pl.DataFrame:
    return signed([{"conversation": [list(values)]} for values in texts], source=source)


def test_the_overlap_is_the_share_of_the_evaluation_record_not_of_the_row() -> None:
    evaluation = conversations(range(100), source="eval.jsonl")
    rows = conversations(range(5_000), range(50), range(49), range(100, 200), range(60, 1_000))
    assert found([evaluation], rows, 0.5) == {0: ("eval.jsonl:1", 1.0), 1: ("eval.jsonl:1", 0.5)}
    assert found([evaluation], rows, 0.4) == {
        0: ("eval.jsonl:1", 1.0),
        1: ("eval.jsonl:1", 0.5),
        2: ("eval.jsonl:1", 0.49),
        4: ("eval.jsonl:1", 0.4),
    }


def test_phrases_that_all_records_use_do_no_harm() -> None:
    phrase = range(30)
    evaluation = conversations(*([*phrase, *range(1_000 + 100 * k, 1_040 + 100 * k)] for k in range(50)))
    assert found([evaluation], conversations([*phrase, *range(70_000, 70_200)]), 0.5) == {}


def test_of_several_records_the_largest_overlap_is_named_and_of_equals_the_first_by_path_and_line() -> None:
    same = [range(20)] * 11
    late, early = (
        conversations(*same, source="b.jsonl"),
        conversations(*([*range(15), *range(90, 95)] for _ in range(12))),
    )
    rows = conversations(range(20), range(15))
    expected = {0: ("b.jsonl:1", 1.0), 1: ("a.jsonl:1", 0.75)}
    assert found([late, early], rows, 0.5) == found([early[::-1], late[5:], late[:5]], rows, 0.5) == expected
    assert found([early[8:][::-1]], rows, 0.5)[1] == ("a.jsonl:9", 0.75)  # not line 10, though "10" < "9"


@pytest.mark.parametrize(
    ("size", "shared", "counts"),
    [
        (7, 6, False),
        (7, 7, True),
        (8, 7, False),
        (8, 8, True),
        (15, 7, False),
        (15, 8, True),
        (20, 9, False),
        (20, 10, True),
        (1, 1, True),
    ],
)
def test_a_record_counts_only_with_enough_evidence_or_if_all_of_it_is_there(
    size: int, shared: int, counts: bool
) -> None:
    evaluation, row = conversations(range(size)), conversations([*range(shared), *range(500, 600)])
    assert found([evaluation], row, 0.5) == ({0: ("a.jsonl:1", shared / size)} if counts else {})


def test_a_record_is_looked_for_by_each_of_its_texts_but_by_a_short_one_only_if_it_has_no_other() -> None:
    evaluation = signed([{"prompt": [range(30)], "answer": [[900]]}, {"prompt": [[901, 902]], "answer": [[903]]}])
    rows = signed(
        [
            {"prompt": [range(30)], "answer": [range(300, 400)]},  # the question, and another answer
            {"answer": [[900]]},
            {"answer": [[903]]},
            {"prompt": [[901, 902]]},
            {"conversation": [range(5, 25)]},
        ]
    )
    assert found([evaluation], rows, 0.5) == {
        0: ("a.jsonl:1", 1.0),
        3: ("a.jsonl:2", 1.0),
        4: ("a.jsonl:1", 20 / 30),
    }


def test_what_is_scattered_over_the_units_of_a_row_is_not_added_up() -> None:
    evaluation = conversations(range(40))
    row = signed([{"turns": [range(12), range(12, 25), range(10, 24)]}])
    assert found([evaluation], row, 0.35) == {0: ("a.jsonl:1", 14 / 40)}
    assert found([evaluation], row, 0.36) == {}


def test_nothing_is_found_where_there_is_nothing() -> None:
    rows = conversations(range(20))
    assert found([], rows, 0.5) == {}
    assert found([signed([]), signed([{}])], rows, 0.5) == {}
    assert found([conversations(range(20))], signed([]), 0.5) == {}
    assert found([conversations(range(20))], signed([{}, {}]), 0.5) == {}


LIMITS = st.sampled_from([0.01, 0.25, 0.5, 0.7, 1.0])
# shingles from few values, spread over the whole range, so that they meet in bitmap and table
SHINGLES = st.sets(st.integers(0, 24).map(lambda k: k * 171_798_691), min_size=1, max_size=20)
ROWS = st.lists(st.lists(st.tuples(st.sampled_from(["prompt", "answer", "turns"]), SHINGLES), max_size=3), max_size=8)


def texts_of(row: list[tuple[str, set[int]]]) -> Texts:
    texts: dict[str, list[list[int]]] = {}
    for scope, values in row:
        texts.setdefault(scope, []).append(sorted(values))
    return texts


@settings(deadline=None, max_examples=200)
@given(ROWS, ROWS, LIMITS, st.integers(0, 8))
def test_overlaps_are_those_of_comparing_every_pair(
    evaluations: list[list[tuple[str, set[int]]]], rows: list[list[tuple[str, set[int]]]], minimum: float, cut: int
) -> None:
    expected = {}
    for i, row in enumerate(rows):
        best = (0.0, 0)
        for record, texts in enumerate(evaluations):
            units = [set(values) for lists in texts_of(texts).values() for values in lists]
            spoken = [unit for unit in units if len(unit) >= EVIDENCE] or sorted(units, key=len)[-1:]
            if len(units) > 1 and len(spoken) == 1 and len(spoken[0]) < EVIDENCE:
                spoken = [next(unit for unit in units if len(unit) == len(spoken[0]))]
            for unit in spoken:
                for _, values in row:
                    share = len(unit & values) / len(unit)
                    has_evidence = len(unit & values) >= min(EVIDENCE, len(unit))
                    if share >= minimum and has_evidence:
                        best = max(best, (share, -record))
        if best[0]:
            expected[i] = (f"a.jsonl:{1 - best[1]}", best[0])
    frame = signed([texts_of(row) for row in evaluations])
    shard = signed([texts_of(row) for row in rows])
    assert found([frame[cut:], frame[:cut]], shard, minimum) == expected
    assert found([frame], shard[cut:], minimum) == {i - cut: each for i, each in expected.items() if i >= cut}


def test_many_records_are_found_in_many_rows() -> None:
    rng = np.random.default_rng(8)
    records = [rng.integers(0, 2**32, 60, dtype=np.uint32).tolist() for _ in range(3_000)]
    rows = [[*records[k][: k % 60], *rng.integers(0, 2**32, 200, dtype=np.uint32).tolist()] for k in range(3_000)]
    result = found([conversations(*records)], conversations(*rows), 0.5)
    assert result == {k: (f"a.jsonl:{k + 1}", (k % 60) / 60) for k in range(3_000) if k % 60 >= 30}
