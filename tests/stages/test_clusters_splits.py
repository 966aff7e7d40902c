"""Splits: drawn by group, exact where numbers are asked for, unmoved by other rows, and proven not to leak."""

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import GateError
from stages.clusters.split_gate import SplitGate
from stages.clusters.splits import draws, hold_out, join_groups
from stages.dedup import Dedup

ALL = 2**64
RELEASED = ["9aff8a10b3fad063", "6b9e5b68fd12caa4", "71d92cea9d8dd81b"]
"""Draws that a release may not change: they decide what runs of long ago held out."""


def survivors(*given: tuple[str | None, str | None]) -> pl.DataFrame:
    """Return survivors of (text, prompt), each a letter that stands for a hash."""
    return pl.DataFrame(
        {
            "id": [f"a:{i + 1}" for i in range(len(given))],
            "text_hash": [text and text.encode() * 16 for text, _ in given],
            "prompt_hash": [prompt and prompt.encode() * 16 for _, prompt in given],
            "content_hash": range(len(given)),
        },
        schema={"id": pl.String, "text_hash": pl.Binary, "prompt_hash": pl.Binary, "content_hash": pl.UInt64},
    )


def spread(*groups: tuple[float, int]) -> np.ndarray:
    """Return the draws of groups of (place between 0 and 1, rows)."""
    return np.concatenate(
        [np.full(n, int(place * 2**53) << 11, np.uint64) for place, n in groups] or [np.empty(0, np.uint64)]
    )


def strangers(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, ALL, n, dtype=np.uint64)


def split(of: np.ndarray, **config: Any) -> list[str]:
    return hold_out(of, Dedup(**config)).split(of).to_list()


# --- what a group draws


def test_survivors_of_one_prompt_draw_the_same_and_strangers_do_not() -> None:
    frame = survivors(("a", "p"), ("b", "p"), ("a", "q"), ("c", None), ("c", None), (None, None), (None, None))
    prompt = draws(frame, Dedup(split_by="prompt")).tolist()
    assert prompt[0] == prompt[1]
    assert prompt[3] == prompt[4]
    assert len(set(prompt)) == 5
    cluster = draws(frame, Dedup(split_by="cluster")).tolist()
    assert cluster[0] == cluster[2]
    assert cluster[3] == cluster[4] == prompt[3]
    assert len(set(cluster)) == 5


def test_a_draw_depends_on_nothing_but_the_group_and_the_seed() -> None:
    frame = survivors(("a", "p"), ("b", None), (None, None), ("d", "q"))
    whole = draws(frame, Dedup(seed=3))
    assert draws(frame[::-1], Dedup(seed=3))[::-1].tolist() == whole.tolist()
    assert [draws(frame[i : i + 1], Dedup(seed=3))[0] for i in range(4)] == whole.tolist()
    assert not set(draws(frame, Dedup(seed=4)).tolist()) & set(whole.tolist())
    assert draws(frame[:0], Dedup()).tolist() == []


def test_rows_without_any_token_draw_by_their_content_wherever_they_stand() -> None:
    frame = survivors((None, None), (None, None), (None, None)).with_columns(
        content_hash=pl.Series([7, 8, 7], dtype=pl.UInt64)
    )
    for split_by in ("prompt", "cluster"):
        one, other, again = draws(frame, Dedup(split_by=split_by)).tolist()
        assert one == again != other
        moved = frame.with_columns(id=pl.lit("b:") + pl.col("id"))
        assert draws(moved, Dedup(split_by=split_by)).tolist() == [one, other, one]


def mixed(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % ALL
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % ALL
    return z ^ (z >> 31)


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**63 - 1))
def test_a_draw_is_the_documented_mix(value: bytes, seed: int) -> None:
    high, low = int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big")
    expected = mixed(mixed(high ^ mixed((seed + 0x9E3779B97F4A7C15) % ALL)) ^ low)
    frame = pl.DataFrame(
        {"text_hash": [None], "prompt_hash": [value], "content_hash": [0]}, schema_overrides={"text_hash": pl.Binary}
    )
    assert draws(frame, Dedup(seed=seed)).tolist() == [expected]


def test_the_draw_of_a_text_is_the_same_in_every_release() -> None:
    frame = survivors(("a", "p"), ("b", None), (None, None))
    assert [f"{value:016x}" for value in draws(frame, Dedup(seed=0)).tolist()] == RELEASED


def test_draws_of_similar_hashes_are_uniform() -> None:
    frame = pl.DataFrame({"content_hash": range(20_000), "text_hash": [i.to_bytes(16, "big") for i in range(20_000)]})
    frame = frame.with_columns(prompt_hash=pl.lit(None, pl.Binary))
    tenths = np.bincount((draws(frame, Dedup()) >> np.uint64(32)).astype(np.int64) * 10 >> 32, minlength=10)
    assert tenths.sum() == 20_000
    assert abs(tenths - 2_000).max() < 200  # 4.7 standard deviations


# --- shares


def test_a_share_is_taken_from_the_low_end_for_validation_and_from_the_high_end_for_test() -> None:
    of = np.array([0, ALL // 4 - 1, ALL // 4, ALL // 2, ALL - ALL // 8 - 1, ALL - ALL // 8, ALL - 1], np.uint64)
    assert "".join(name[:2] for name in split(of, validation=0.25, test=0.125)) == "vavatrtrtrtete"
    assert set(split(of, validation=0.0, test=0.0)) == {"train"}


def test_shares_are_about_as_large_as_they_say() -> None:
    found = Counter(split(strangers(50_000), validation=0.02, test=0.05))
    assert abs(found["validation"] - 1_000) < 150
    assert abs(found["test"] - 2_500) < 250


@settings(deadline=None)
@given(st.floats(0, 0.25), st.floats(0, 0.25), st.floats(0, 0.25))
def test_changing_one_share_does_not_move_the_other_and_more_takes_nothing_back(a: float, b: float, c: float) -> None:
    of = strangers(300)
    few, many = sorted((a, b))
    one, other = split(of, validation=few, test=c), split(of, validation=many, test=c)
    assert [name == "test" for name in one] == [name == "test" for name in other]
    assert all(then == "validation" for now, then in zip(one, other, strict=True) if now == "validation")


def test_added_rows_move_no_group() -> None:
    of = np.concatenate([strangers(400), np.repeat(strangers(100, 1), 3)])
    before = split(of, validation=0.1, test=0.1)
    after = split(np.concatenate([of, strangers(3_000, 2)]), validation=0.1, test=0.1)[: len(of)]
    assert all(then == now for now, then in zip(before, after, strict=True) if now != "train")
    # what was too large a group for a small corpus may enter when the corpus grows; rows alone never move
    assert before[:400] == after[:400]


def test_a_prompt_that_a_tenth_of_the_split_would_share_is_not_held_out_under_a_share() -> None:
    of = np.concatenate([spread((0.01, 11), (0.02, 10), (0.99, 11)), strangers(1_000 - 32)])
    found = split(of, validation=0.1, test=0.1)
    assert found[:11] == ["train"] * 11
    assert found[11:21] == ["validation"] * 10
    assert found[21:32] == ["train"] * 11
    # one row is never too large
    assert split(spread((0.01, 1), (0.5, 1)), validation=0.1) == ["validation", "train"]


# --- numbers


def test_a_number_is_met_exactly_by_passing_over_what_is_too_large() -> None:
    of = spread((0.1, 1), (0.2, 3), (0.3, 1), (0.4, 30), (0.5, 1), (0.6, 30), (0.7, 1), (0.9, 30))
    found = split(of, validation=4, test=0)
    assert Counter(found)["validation"] == 4
    assert [found[i] for i in (0, 1, 4, 5, 35, 66)] == [
        "validation",
        "train",
        "validation",
        "train",
        "validation",
        "validation",
    ]
    assert Counter(split(of, validation=2, test=3))["test"] == 2  # 0.7 and 0.5: the third does not fit


def test_a_large_group_is_held_out_for_a_number_only_if_the_small_ones_do_not_suffice() -> None:
    of = np.concatenate([spread((0.001, 60)), strangers(2_000)])
    assert set(split(of, validation=100)[:60]) == {"train"}
    pairs = np.repeat(strangers(20), 2)
    assert Counter(split(pairs, validation=5))["validation"] == 4
    assert Counter(split(pairs, validation=20))["validation"] == 20


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=14)


def greedy(order: list[int], sizes: list[int], n: int) -> set[int]:
    """Return the groups taken, one by one, small ones first, as the settings' documentation says it."""
    taken: set[int] = set()
    for is_turn in (lambda size: size <= max(1, n / 10), lambda size: size > max(1, n / 10)):
        for group in order:
            if is_turn(sizes[group]) and sum(sizes[k] for k in taken) + sizes[group] <= n:
                taken.add(group)
    return taken


@settings(deadline=None, max_examples=300)
@given(SIZES, st.integers(0, 40), st.integers(0, 40), st.randoms(use_true_random=False))
def test_numbers_are_drawn_as_by_taking_one_group_after_another(sizes: list[int], n: int, m: int, random: Any) -> None:
    n_rows = sum(sizes)
    n, m = n % (n_rows // 2 + 1), m % (n_rows // 2 + 1)
    if 2 * (n + m) > n_rows:
        m = 0
    places = [place << 4 for place in random.sample(range(2**60), len(sizes))]
    of = np.repeat(np.array(places, np.uint64), sizes)
    ascending = sorted(range(len(sizes)), key=places.__getitem__)
    validation = greedy(ascending, sizes, n)
    test = greedy([group for group in ascending[::-1] if group not in validation], sizes, m)
    names = ["validation" if g in validation else "test" if g in test else "train" for g in range(len(sizes))]
    shuffled = list(range(n_rows))
    random.shuffle(shuffled)
    cut = hold_out(of[shuffled], Dedup(validation=n, test=m))
    assert cut.split(np.array(places, np.uint64)).to_list() == names


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 3))
def test_numbers_of_single_rows_are_exact_and_independent(n: int, m: int, seed: int) -> None:
    of = strangers(1_600, seed)
    found = split(of, validation=n, test=m)
    assert Counter(found) == Counter({"train": 1_600 - n - m, "validation": n, "test": m})
    alone = split(of, validation=n, test=0)
    assert [name == "validation" for name in found] == [name == "validation" for name in alone]


def test_more_than_half_is_refused_with_what_to_ask_for() -> None:
    with pytest.raises(
        GateError, match=r"validation = 300 and test = 250.*only 1,000 are left.*at most 500 in all.*share"
    ):
        hold_out(strangers(1_000), Dedup(validation=300, test=250))
    with pytest.raises(GateError, match=r"validation = 0.3 and test = 250: expected at most half"):
        hold_out(strangers(1_000), Dedup(validation=0.3, test=250))
    assert Counter(split(strangers(1_000), validation=250, test=250))["train"] == 500
    assert split(strangers(0), validation=500) == []


def test_shares_of_more_than_half_are_refused_where_they_are_written() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"validation = 0.4 and test = 0.2 hold out 0.6.*at most half"):
        msgspec.convert({"validation": 0.4, "test": 0.2}, Dedup)
    assert msgspec.convert({"validation": 0.3, "test": 0.2}, Dedup).test == 0.2
    assert msgspec.convert({"validation": 0.5, "test": 700}, Dedup).test == 700


# --- groups that hang together over clusters


def test_groups_of_one_cluster_draw_the_same_and_others_keep_theirs() -> None:
    of = np.array([10, 20, 20, 30, 40, 50, 50], np.uint64)
    clusters = np.array([0, 0, 1, 1, 2, 3, 3])
    joined = join_groups(of, clusters).tolist()
    assert joined[:4] == [mixed(10)] * 4
    assert joined[4:] == [40, 50, 50]
    assert join_groups(of, np.arange(7)).tolist() == of.tolist()
    assert join_groups(of[:0], clusters[:0]).tolist() == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30), st.randoms(use_true_random=False))
def test_rows_are_joined_exactly_as_far_as_prompts_and_clusters_reach(
    pairs: list[tuple[int, int]], random: Any
) -> None:
    of = np.array([prompt for prompt, _ in pairs], np.uint64)
    clusters = np.array([cluster for _, cluster in pairs], np.int32)
    joined = join_groups(of, clusters).tolist()
    group = list(range(len(pairs)))
    for _ in pairs:  # the slow way: until nothing changes any more
        for i, a in enumerate(pairs):
            for j, b in enumerate(pairs):
                if a[0] == b[0] or a[1] == b[1]:
                    group[i] = group[j] = min(group[i], group[j])
    for i in range(len(pairs)):
        for j in range(i):
            assert (joined[i] == joined[j]) == (group[i] == group[j])
    order = list(range(len(pairs)))
    random.shuffle(order)
    assert join_groups(of[order], clusters[order]).tolist() == [joined[i] for i in order]


# --- the proof


def fates(*given: tuple[str, str | None, str, str | None]) -> pl.DataFrame:
    """Return rows of (cluster, prompt, split, reason)."""
    schema = {"cluster": pl.String, "prompt": pl.String, "split": pl.String, "reason": pl.String}
    frame = pl.DataFrame(given, schema=schema, orient="row").with_row_index("id", 1)
    prompt = pl.col("prompt").map_elements(lambda text: text.encode() * 16, return_dtype=pl.Binary)
    return frame.with_columns(id="a:" + pl.col("id").cast(pl.String), prompt_hash=prompt)


CLEAN = (
    ("c", "p", "train", None),
    ("c", "q", "train", "near_duplicate"),
    ("d", "p", "train", None),
    ("e", "q", "validation", None),
    ("f", None, "train", None),
    ("g", None, "test", None),
)


def check_splits(rows: pl.DataFrame, split_by: Any = "prompt") -> None:
    """Read one table through the gate, and check it."""
    gate = SplitGate(split_by)
    gate.read(rows)
    gate.check(lambda numbers: rows["id"].gather(list(numbers)).to_list())


def test_splits_that_divide_no_cluster_and_no_prompt_pass() -> None:
    check_splits(fates(*CLEAN))
    check_splits(fates())


def test_a_cluster_in_two_splits_is_found_even_if_only_one_of_its_rows_is_kept() -> None:
    leaking = fates(*CLEAN, ("e", "r", "train", "near_duplicate"))
    for split_by in ("prompt", "cluster"):
        with pytest.raises(GateError, match=r"1 cluster in more than one split.*a:7 in train and a:4 in validation"):
            check_splits(leaking, split_by)


def test_a_prompt_in_two_splits_is_found_among_kept_rows_if_prompts_are_not_to_be_divided() -> None:
    leaking = fates(*CLEAN, ("h", "p", "test", None))
    with pytest.raises(GateError, match=r"1 first user message in more than one split.*a:1 in train and a:7 in test"):
        check_splits(leaking, "prompt")
    check_splits(leaking, "cluster")
    check_splits(fates(*CLEAN, ("h", "p", "test", "against")), "prompt")


def test_rows_lost_to_something_outside_are_in_no_cluster() -> None:
    check_splits(fates(*CLEAN, ("e", "r", "train", "against"), ("e", "r", "test", "contaminated")))


def test_rows_without_a_prompt_share_none_not_even_one_whose_hash_is_zero() -> None:
    check_splits(fates(("c", "\0", "train", None), ("d", None, "test", None), ("e", "\0", "validation", "against")))
    with pytest.raises(GateError, match="a:1 in train and a:2 in test"):
        check_splits(fates(("c", "\0", "train", None), ("d", "\0", "test", None)))


def test_leaks_across_shards_are_found_and_named_by_number() -> None:
    gate = SplitGate("prompt")
    asked: list[list[int]] = []
    for k in range(40):
        gate.read(fates(*((f"c{k}-{i}", chr(97 + i) if k < 20 else None, "train", None) for i in range(20))))
    gate.read(fates(("c3-7", None, "validation", None), ("x", "d", "test", None)))
    with pytest.raises(GateError, match="row 67 in train and row 800 in validation"):
        gate.check(lambda numbers: asked.append(list(numbers)) or [f"row {n}" for n in numbers])
    assert asked == [[67, 800]]


def test_many_leaks_are_counted_and_the_first_few_named() -> None:
    rows = [(f"c{i}", None, name, None) for i in range(50) for name in ("train", "test")]
    with pytest.raises(GateError, match=r"50 clusters in more than one split.*; and 47 more"):
        check_splits(fates(*rows))


def test_a_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of train, validation, test, got valid"):
        check_splits(fates(("c", None, "valid", None)))


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from([None, *"pqrst"]),
        st.sampled_from(["train", "validation", "test"]),
        st.sampled_from([None, "near_duplicate"]),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=300)
@given(ROWS, st.sampled_from(["prompt", "cluster"]))
def test_the_proof_holds_exactly_when_no_pair_of_rows_leaks(rows: list[Any], split_by: Any) -> None:
    leaks = any(
        a[2] != b[2]
        and (a[0] == b[0] or (split_by == "prompt" and a[1] is not None and a[1] == b[1] and a[3] is b[3] is None))
        for a in rows
        for b in rows
    )
    try:
        check_splits(fates(*rows), split_by)
    except GateError:
        assert leaks
    else:
        assert not leaks


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 15)), max_size=40),
    st.sampled_from([{"validation": 0.3, "test": 0.2}, {"validation": 3, "test": 2}, {"validation": 0.5}]),
    st.integers(0, 5),
)
def test_what_is_drawn_passes_the_proof(pairs: list[tuple[int, int]], config: dict[str, Any], seed: int) -> None:
    if any(isinstance(part, int) for part in config.values()) and len(pairs) < 10:
        return
    dedup = Dedup(**config, seed=seed)
    frame = survivors(*((chr(100 + i), chr(65 + prompt)) for i, (prompt, _) in enumerate(pairs)))
    clusters = np.array([cluster for _, cluster in pairs], np.int64)
    of = join_groups(draws(frame, dedup), clusters)
    drawn = frame.with_columns(
        cluster=pl.Series(clusters).cast(pl.String), reason=pl.lit(None, pl.String), split=hold_out(of, dedup).split(of)
    )
    check_splits(drawn, "prompt")
