"""Reading ahead: the same batches in the same order, errors in their place, no thread left, and no rank left waiting."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import processes
from trainer.data.packs import nothing
from trainer.data.prefetch import AHEAD, ReadAhead
from trainer.errors import DataError, TrainError
from trainer.model.decoder import Batch
from trainer.world import World, joined

ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))
CPU = torch.device("cpu")
OTHER = torch.device("meta")
"""Stands for an accelerator: batches for it are read by the thread."""


def batch_of(item: int) -> Batch:
    return Batch(
        input_ids_T=torch.tensor([item]),
        positions_T=torch.tensor([0]),
        lengths=(1,),
        rows_S=torch.zeros(0, dtype=torch.int64),
        targets_S=torch.zeros(0, dtype=torch.int64),
        weights_S=torch.zeros(0),
    )


def refusing(*bad: int) -> Callable[[int], Batch]:
    def read(item: int) -> Batch:
        if item in bad:
            raise DataError(f"row {item} is damaged")
        return batch_of(item)

    return read


def readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("packs")}


@given(items=st.lists(st.integers(0, 9), max_size=12), device=st.sampled_from([CPU, OTHER]))
def test_batches_are_those_of_the_items_in_their_order(items: list[int], device: torch.device) -> None:
    with ReadAhead(batch_of, items, device=device) as ahead:
        assert [ahead.take(item).input_ids_T.tolist() for item in items] == [[item] for item in items]


@pytest.mark.parametrize("device", [CPU, OTHER])
def test_items_may_be_without_end_and_only_two_are_read_ahead(device: torch.device) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in count():
            asked.append(item)
            yield item

    with ReadAhead(batch_of, items(), device=device) as ahead:
        assert asked == []
        for item in range(50):
            assert ahead.take(item).input_ids_T.tolist() == [item]
            assert len(asked) == item + 1 + (AHEAD if device == OTHER else 0)


def test_an_accelerators_batches_are_read_while_nobody_waits() -> None:
    read = threading.Semaphore(0)

    def slowly(item: int) -> Batch:
        time.sleep(0.05)
        read.release()
        return batch_of(item)

    with ReadAhead(slowly, range(3), device=OTHER) as ahead:
        ahead.take(0)
        assert ahead.waited >= 0.04
        for _ in range(3):
            assert read.acquire(timeout=10)  # all are read, though one was taken
        before = ahead.waited
        ahead.take(1)
        assert ahead.waited - before < 0.04


@pytest.mark.parametrize("device", [CPU, OTHER])
def test_an_error_is_raised_where_its_batch_would_be(device: torch.device) -> None:
    with ReadAhead(refusing(2), range(5), device=device) as ahead:
        assert [ahead.take(item).input_ids_T.item() for item in (0, 1)] == [0, 1]
        with pytest.raises(DataError, match="row 2 is damaged"):
            ahead.take(2)
        assert [ahead.take(item).input_ids_T.item() for item in (3, 4)] == [3, 4]


def test_another_item_than_the_next_is_a_mistake() -> None:
    with ReadAhead(batch_of, range(5), device=OTHER) as ahead, pytest.raises(AssertionError, match="3 is taken, 0 was"):
        ahead.take(3)


def test_a_held_error_leaves_a_batch_that_trains_nothing_and_is_raised_later() -> None:
    with ReadAhead(refusing(1, 3), range(4), device=OTHER) as ahead:
        assert ahead.take_or_hold(0).input_ids_T.tolist() == [0]
        assert not ahead.has_failed
        ahead.raise_held(ALONE)
        held = ahead.take_or_hold(1)
        assert (held.lengths, held.rows_S.tolist()) == (nothing().lengths, [])
        assert ahead.take_or_hold(2).input_ids_T.tolist() == [2]
        ahead.take_or_hold(3)
        assert ahead.has_failed
        with pytest.raises(DataError, match="row 1 is damaged"):  # the first one
            ahead.raise_held(ALONE)


def test_the_thread_ends_when_reading_does() -> None:
    before, during = readers(), set()
    with contextlib.suppress(RuntimeError), ReadAhead(batch_of, count(), device=OTHER) as ahead:
        ahead.take(0)
        during = readers() - before
        raise RuntimeError("in the model")
    assert len(during) == 1
    assert readers() <= before
    with ReadAhead(batch_of, count(), device=CPU) as ahead:
        ahead.take(0)
        assert readers() <= before


def leaving_it_open() -> int:
    ahead = ReadAhead(batch_of, count(), device=OTHER)
    ahead.take(0)
    assert readers()
    return 7


def test_the_thread_ends_with_the_interpreter() -> None:
    done = processes.Ranks(leaving_it_open).wait()
    assert (done.codes, done.err) == ([7], "")


def a_step_with_a_damaged_pack() -> None:
    """Be a rank of a step in which rank 1 cannot read one of its packs."""
    with joined() as world:
        ahead = ReadAhead(refusing(5), [4, 5, 6] if world.rank else [1, 2, 3], device=OTHER)
        total = sum(ahead.take_or_hold(item).input_ids_T for item in ([4, 5, 6] if world.rank else [1, 2, 3]))
        assert world.sum(float(total))[0] == 1 + 2 + 3 + 4 + 6  # the ranks meet, as in the reduction of gradients
        assert float(world.any(ahead.has_failed)) == 1.0  # on all of them, though only one has the error
        with pytest.raises(TrainError, match="rank 0 says" if world.rank else "row 5 is damaged"):
            ahead.raise_held(world)
        ahead.close()


def test_ranks_leave_a_step_together_when_one_cannot_read() -> None:
    done = processes.Ranks(a_step_with_a_damaged_pack, world=2).wait()
    assert done.codes == [0, 0], done.err
