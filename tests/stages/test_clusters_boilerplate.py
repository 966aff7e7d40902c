"""Boilerplate: shingles of too many texts, counted exactly, and signatures without them."""

from collections import Counter

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conform import conform
from schemas.tables import SIGNED
from stages.clusters.boilerplate import FEWEST, find_common, without_boilerplate, without_common
from stages.signatures import sketch_permutations
from stages.signatures.sketch_kernel import sketch_rows
from tests.stages.signed_rows import Texts, signed

PERMUTATIONS = sketch_permutations(32, 1)


def units_of(frame: pl.DataFrame) -> list[list[tuple[str, list[int]]]]:
    return [[(unit["scope"], unit["shingles"]) for unit in units] for units in frame["units"].to_list()]


def test_a_shingle_of_enough_texts_is_common_in_its_scope_alone() -> None:
    rows: list[Texts] = [
        {"prompt": [[7, 100 + k]], "answer": [[200 + k, *([7] if k < 9 else []), *([8] if k < 10 else [])]]}
        for k in range(20)
    ]
    found = find_common([signed(rows[:5]), signed([]), signed(rows[5:])], 0.5)
    assert {scope: values.tolist() for scope, values in found.items()} == {"prompt": [7], "answer": [8]}
    assert find_common([], 0.5) == {}


def test_a_share_of_few_texts_is_not_common() -> None:
    rows: list[Texts] = [{"conversation": [[1, 10 + k]]} for k in range(FEWEST - 1)]
    assert find_common([signed(rows)], 0.1)["conversation"].tolist() == []
    assert find_common([signed([*rows, {"conversation": [[1]]}])], 0.1)["conversation"].tolist() == [1]


def test_a_share_is_met_by_the_number_that_a_person_would_say() -> None:
    # 0.14 * 100 is 14.000000000000002 where it is reckoned carelessly
    rows: list[Texts] = [
        {"conversation": [[k + 10, *([1] if k < 14 else []), *([2] if k < 13 else [])]]} for k in range(100)
    ]
    assert find_common([signed(rows)], 0.14)["conversation"].tolist() == [1]


VALUES = st.sampled_from([0, 1, 2, 1_023, 1_024, 1_025, 2**31, 2**32 - 1_024, 2**32 - 1])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["prompt", "turns"]), st.sets(VALUES, min_size=1)), min_size=1, max_size=40),
    st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    st.integers(0, 40),
    st.sampled_from([1, 2, 64]),
)
def test_common_shingles_are_those_of_counting_each(
    texts: list[tuple[str, set[int]]], share: float, cut: int, places: int
) -> None:
    rows: list[Texts] = [{scope: [sorted(values)]} for scope, values in texts]
    found = find_common([signed(rows[:cut]), signed(rows[cut:])], share, places=places)
    for scope in {scope for scope, _ in texts}:
        counts = Counter(value for of, values in texts for value in values if of == scope)
        n = sum(of == scope for of, _ in texts)
        assert found[scope].tolist() == sorted(v for v, k in counts.items() if k / n >= share and k >= FEWEST)


def test_units_lose_what_is_common_in_their_scope_and_a_unit_of_nothing_else_keeps_all() -> None:
    frame = signed(
        [
            {"prompt": [[1, 2, 3]], "answer": [[1, 2, 9]]},
            {},
            {"prompt": [[1, 2]], "turns": [[2, 3], [5]]},
            {"answer": [[9]]},
        ]
    )
    common = {"prompt": np.array([1, 2], np.uint32), "answer": np.array([9], np.uint32)}
    out = without_common(frame, common, PERMUTATIONS)
    assert units_of(out) == [
        [("prompt", [3]), ("answer", [1, 2])],
        [],
        [("prompt", [1, 2]), ("turns", [2, 3]), ("turns", [5])],
        [("answer", [9])],
    ]
    assert out.drop("units").equals(frame.drop("units"))
    old, new = (each["units"].explode().drop_nulls().struct.unnest() for each in (frame, out))
    assert new.drop("shingles", "minhash").equals(old.drop("shingles", "minhash"))
    assert conform(out.to_arrow(), SIGNED).num_rows == 4


@settings(deadline=None)
@given(st.lists(st.lists(st.sets(VALUES, min_size=1), max_size=3), max_size=8), st.sets(VALUES), st.integers(0, 8))
def test_filtered_units_and_their_sketches_are_those_made_of_what_is_left(
    rows: list[list[set[int]]], common: set[int], cut: int
) -> None:
    frame = signed([{"turns": [sorted(values) for values in texts]} for texts in rows])[cut:]  # a slice shares buffers
    out = without_common(frame, {"turns": np.array(sorted(common), np.uint32)}, PERMUTATIONS)
    expected = [[("turns", sorted(values - common or values)) for values in texts] for texts in rows[cut:]]
    assert units_of(out) == expected
    for units in out["units"].to_list():
        for unit in units:
            values = np.array(unit["shingles"], np.uint32)
            assert unit["minhash"] == sketch_rows(values, np.array([0, len(values)]), *PERMUTATIONS)[0].tolist()


def test_all_shards_and_what_they_are_compared_with_are_sketched_alike() -> None:
    rows: list[Texts] = [{"conversation": [[1, 100 + k]]} for k in range(12)]
    other = signed([{"conversation": [[1, 100]]}, {}])
    moved = other.with_columns(
        pl.col("units").list.eval(
            pl.element().struct.with_fields(pl.lit([0] * 32, pl.List(pl.UInt32)).alias("minhash"))
        )
    )
    shards, against = without_boilerplate([signed(rows[:6]), signed(rows[6:]), signed([{}])], [moved], 1.0)
    assert [len(shards), len(shards[1:]), len(against)] == [3, 2, 1]
    assert units_of(shards[0])[0] == units_of(against[0])[0] == [("conversation", [100])]
    assert shards[0]["units"][0].to_list() == against[0]["units"][0].to_list()
    assert units_of(shards[1:][0])[5] == [("conversation", [111])]
    assert units_of(shards[2]) == [[]]
