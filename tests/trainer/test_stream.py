"""The plan: every pack once an epoch, in an order that knows nothing of ranks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.stream import Cursor, costs, deal, epoch_order, micro_batches, order, step_packs, steps_per_epoch


@given(n=st.integers(0, 300), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
def test_an_epoch_is_a_permutation_of_all_packs(n: int, seed: int, epoch: int) -> None:
    assert sorted(order(n, seed=seed, epoch=epoch).tolist()) == list(range(n))


def test_the_order_of_an_epoch_is_fixed_for_ever() -> None:
    # a change here would make every checkpoint continue with other data
    assert order(8, seed=0, epoch=0).tolist() == [0, 7, 2, 5, 4, 6, 3, 1]
    assert order(8, seed=0, epoch=1).tolist() == [0, 6, 7, 4, 3, 2, 1, 5]
    assert order(8, seed=1, epoch=0).tolist() == [7, 4, 2, 0, 3, 6, 5, 1]


def test_an_epoch_may_also_go_as_built_or_from_short_conversations_to_long() -> None:
    longest = np.array([9, 3, 9, 1, 3])
    for epoch in (0, 1):
        assert epoch_order("as_built", longest_of=longest, seed=5, epoch=epoch).tolist() == [0, 1, 2, 3, 4]
        # equals stay in the order of the shards
        assert epoch_order("short_first", longest_of=longest, seed=5, epoch=epoch).tolist() == [3, 1, 4, 0, 2]
        shuffled = epoch_order("shuffle", longest_of=longest, seed=5, epoch=epoch)
        assert shuffled.tolist() == order(5, seed=5, epoch=epoch).tolist()


def test_packs_come_first_equally_often() -> None:
    firsts = [int(order(4, seed=seed, epoch=0)[0]) for seed in range(2000)]
    assert all(430 < firsts.count(pack) < 570 for pack in range(4))


@given(
    n=st.integers(1, 60),
    batch=st.integers(1, 20),
    world=st.integers(1, 16),
    micro=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_any_number_of_ranks_trains_the_same_packs_in_the_same_steps(
    n: int, batch: int, world: int, micro: int, seed: int
) -> None:
    packs = order(n, seed=seed, epoch=0)
    lengths = np.random.default_rng(seed).integers(1, 50, n)
    cost = costs(lengths, lengths**2, hidden_size=8)
    seen: list[int] = []
    for step in range(steps_per_epoch(n, batch)):
        chosen = step_packs(packs, step, batch)
        hands = deal(chosen, cost, world)
        groups = [micro_batches(hand, micro) for hand in hands]
        assert len(hands) == world
        assert all(len(of_rank) >= 1 and len(group) <= micro for of_rank in groups for group in of_rank)
        assert [[pack for group in of_rank for pack in group] for of_rank in groups] == hands
        assert sorted(pack for hand in hands for pack in hand) == sorted(chosen)
        # inside a rank the global order is kept
        assert all([chosen.index(p) for p in hand] == sorted(chosen.index(p) for p in hand) for hand in hands)
        seen += chosen
    assert seen == packs.tolist()


def test_work_is_dealt_evenly_not_packs() -> None:
    cost = np.array([8.0, 1.0, 1.0, 1.0, 5.0])
    assert deal([0, 1, 2, 3, 4], cost, 2) == [[0], [1, 2, 3, 4]]


def test_a_rank_without_packs_has_one_empty_group() -> None:
    hands = deal([0, 1], np.ones(2), 3)
    assert [micro_batches(hand, 4) for hand in hands] == [[[0]], [[1]], [[]]]


def test_long_documents_cost_more_than_short_ones_of_the_same_total() -> None:
    short, long = costs(np.array([100, 100]), np.array([4 * 25**2, 100**2]), hidden_size=4)
    assert (short, long) == (100 + 2500 / 48, 100 + 10_000 / 48)


@given(per_epoch=st.integers(1, 9), n=st.integers(0, 40))
def test_a_cursor_counts_steps_and_epochs(per_epoch: int, n: int) -> None:
    cursor = Cursor()
    for _ in range(n):
        cursor = cursor.advanced(per_epoch)
    assert cursor == Cursor(epoch=n // per_epoch, step=n % per_epoch)
