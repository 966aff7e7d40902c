"""Which packs a step trains, in which order, on which rank: pure functions of pack metadata, seed and epoch.

World size enters only when a step's packs are dealt to ranks, so any number of ranks trains the same packs in the
same steps, and the position in the data is two integers.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from trainer.splitmix import mixed, sequence

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Order = Literal["shuffle", "as_built", "short_first"]


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Position in the data: `step` steps of `epoch` are done."""

    epoch: int = 0
    step: int = 0

    def advanced(self, steps_per_epoch: int) -> "Cursor":
        """Return the position one step further."""
        if self.step + 1 < steps_per_epoch:
            return Cursor(epoch=self.epoch, step=self.step + 1)
        return Cursor(epoch=self.epoch + 1, step=0)


def order(n_packs: int, *, seed: int, epoch: int) -> Integers:
    """Return the permutation of all packs in which `epoch` reads them.

    Packs are sorted by a SplitMix64 hash of (seed, epoch, pack), so the order is ours and does not
    depend on the version of a random-number library.
    """
    x = sequence(mixed(seed, epoch), n_packs)
    return np.argsort(x, kind="stable").astype(np.int64)


def epoch_order(kind: Order, *, longest_of: Integers, seed: int, epoch: int) -> Integers:
    """Return the order in which `epoch` reads all packs; packs are ordered, never the conversations inside one.

    shuffle is `order`; as_built is that of the shards; short_first is by the longest conversation of each pack, which
    `longest_of` has in tokens, and among equals by index. The last two are the same in every epoch.
    """
    if kind == "shuffle":
        return order(len(longest_of), seed=seed, epoch=epoch)
    if kind == "as_built":
        return np.arange(len(longest_of), dtype=np.int64)
    return np.argsort(longest_of, kind="stable").astype(np.int64)


def steps_per_epoch(n_packs: int, batch: int, *, drop_last: bool = False) -> int:
    """Return how many steps an epoch has; the last one may be short, or is left out with `drop_last`."""
    return n_packs // batch if drop_last else -(-n_packs // batch)


def step_packs(packs: Integers, step: int, batch: int) -> list[int]:
    """Return the packs of `step` of an epoch, in global order."""
    return [int(pack) for pack in packs[step * batch : (step + 1) * batch]]


def costs(n_tokens: Integers, sum_squares: Integers, *, hidden_size: int) -> Floats:
    """Return the relative work of each pack: linear in its tokens plus attention inside each of its documents.

    A block's matrices cost about 24 · C² operations per token, its causal attention 2 · C per pair of tokens.
    """
    return n_tokens + sum_squares / (12.0 * hidden_size)


def deal(packs: Sequence[int], cost: Floats, world: int) -> list[list[int]]:
    """Return the packs of each rank: the dearest pack first, always to the rank with the least work so far.

    Every pack goes to exactly one rank; inside a rank the global order is kept. A rank may get none.
    """
    hands: list[list[int]] = [[] for _ in range(world)]
    load = [0.0] * world
    dearest_first = sorted(range(len(packs)), key=lambda i: (-cost[packs[i]], i))
    for i in dearest_first:
        rank = min(range(world), key=lambda r: (load[r], r))
        hands[rank].append(i)
        load[rank] += float(cost[packs[i]])
    return [[packs[i] for i in sorted(hand)] for hand in hands]


def micro_batches(hand: Sequence[int], size: int) -> list[list[int]]:
    """Return a rank's packs of one step in groups of at most `size`: one forward pass each, and at least one.

    A rank without packs gets one empty group, so that it joins the step's collectives.
    """
    return [list(hand[i : i + size]) for i in range(0, len(hand), size)] or [[]]
