"""What a rank trains in each step: its packs, divided into micro-batches, read and made ready."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from trainer.compiled import padded
from trainer.data.inputs import Inputs
from trainer.data.means import reweighted, step_weight
from trainer.data.prefetch import ReadAhead
from trainer.data.stream import Cursor, Integers, costs, deal, epoch_order, micro_batches, step_packs
from trainer.job import Job
from trainer.model.decoder import Batch
from trainer.model.dropout import keys
from trainer.plan import Schedule
from trainer.world import World


class Group(NamedTuple):
    """The packs of one forward pass, in the step that they are trained in, counted from 0."""

    n_steps: int
    packs: tuple[int, ...]


class Portion(NamedTuple):
    """What one step trains."""

    chosen: list[int]
    """Packs of all ranks, in global order."""
    hand: list[int]
    """Those of this rank."""
    groups: list[Group]
    """The same in micro-batches; one without packs where the rank has none."""
    weight: float
    """What the summed losses of all ranks are divided by."""


class Feed:
    """The portions of all steps and the batches of this rank, as functions of the position in the data.

    Batches are those of `loss_mean`, with keys for what dropout leaves out, and as long as compiled code wants them.
    """

    def __init__(
        self, job: Job, inputs: Inputs, schedule: Schedule, world: World, *, hidden_size: int, vocab_size: int
    ) -> None:
        self._train, self._seed, self._packs = job.train, job.seed, inputs.packs
        self._has_dropout = job.train.dropout > 0 or (job.lora.rank > 0 and job.lora.dropout > 0)
        self._schedule, self._world, self._vocab_size = schedule, world, vocab_size
        self._cost = costs(self._packs.n_tokens, self._packs.sum_squares, hidden_size=hidden_size)
        self._orders: dict[int, Integers] = {}
        self.full: int | None = None
        """Tokens that a pack is padded to where blocks are compiled; None: no batch is padded."""

    def portion(self, cursor: Cursor) -> Portion:
        """Return what the step at `cursor` trains."""
        chosen = step_packs(self._order(cursor.epoch), cursor.step, self._train.batch)
        hand = deal(chosen, self._cost, self._world.size)[self._world.rank]
        n_steps = cursor.epoch * self._schedule.per_epoch + cursor.step
        return Portion(
            chosen=chosen,
            hand=hand,
            groups=[Group(n_steps, tuple(packs)) for packs in micro_batches(hand, self._train.micro_batch)],
            weight=step_weight(self._packs, chosen, self._train.loss_mean),
        )

    def ahead(self, cursor: Cursor) -> ReadAhead[Group]:
        """Return the batches of this rank from `cursor` to the last step, to be taken one after the other."""
        return ReadAhead(self.read, self._groups(cursor), device=self._world.device)

    def read(self, group: Group) -> Batch:
        """Return the batch of `group`, on the CPU. Raises DataError."""
        batch = self._packs.read(group.packs, vocab_size=self._vocab_size)
        if group.packs and self._has_dropout:
            sizes = self._packs.n_tokens[list(group.packs)].tolist()
            found = keys(seed=self._seed, step=group.n_steps, packs=group.packs, sizes=sizes)
            batch = replace(batch, dropout_keys_T=torch.from_numpy(found))
        batch = reweighted(batch, self._train.loss_mean)
        return batch if self.full is None else padded(batch, full=max(1, len(group.packs)) * self.full)

    def _groups(self, cursor: Cursor) -> Iterator[Group]:
        n_steps = cursor.epoch * self._schedule.per_epoch + cursor.step
        for _ in itertools.repeat(None, self._schedule.total - n_steps):
            yield from self.portion(cursor).groups
            cursor = cursor.advanced(self._schedule.per_epoch)

    def _order(self, epoch: int) -> Integers:
        if epoch not in self._orders:
            # two are in use while the end of an epoch is trained and the beginning of the next is read
            self._orders = {known: order for known, order in self._orders.items() if known == epoch - 1}
            self._orders[epoch] = epoch_order(
                self._train.order, longest_of=self._packs.longest_of, seed=self._seed, epoch=epoch
            )
        return self._orders[epoch]
