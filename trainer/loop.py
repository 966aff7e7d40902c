"""Training, top to bottom: from the first step, or from the newest checkpoint, to the exported model."""

import gc
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from trainer import checkpoint
from trainer.architecture import new_architecture
from trainer.checkpoint import State
from trainer.console import Reporter
from trainer.errors import Diverged
from trainer.finish import finish, show_samples
from trainer.inputs import Inputs, open_inputs, vocabulary_size
from trainer.job import Job
from trainer.metrics import Metrics, append, cut_after
from trainer.model import Batch, Decoder, initialise
from trainer.optim import learning_rate, make_adamw
from trainer.plan import identity, make_schedule
from trainer.signals import Stop
from trainer.step import accumulate, choose_precision, validation_loss
from trainer.stream import Cursor, Integers, costs, deal, micro_batches, order, step_packs
from trainer.weights import load_pretrained
from trainer.world import World

NAMED_IDS = 20
"""Conversations that an error names; the rest are counted."""


def fit(job: Job, world: World, reporter: Reporter, stop: Stop, *, fresh: bool) -> None:
    """Train `job` to its last step and export it, or stop at a step's end with a checkpoint when `stop` asks.

    Raises TrainError for everything that a person can put right.
    """
    inputs = open_inputs(job.run, world)
    if world.is_first:
        if fresh and job.home.exists():
            shutil.rmtree(job.home)
        job.home.mkdir(parents=True, exist_ok=True)
    model, notices = build_model(job, vocab_size=vocabulary_size(inputs.tokenizer))
    for notice in notices:
        reporter.say(notice)
    if inputs.packs.longest > model.architecture.max_position_embeddings:
        reporter.say(
            f"the longest conversation has {inputs.packs.longest} tokens, the model is made for "
            f"{model.architecture.max_position_embeddings} (max_position_embeddings)"
        )
    training = Training(job, world, reporter, inputs, model.to(world.device))
    try:
        training.resume()
        _train(training, stop)
        if training.is_done and world.is_first:
            finish(job, inputs, model, training.state(), training.precision, reporter)
    finally:
        training.close()


def _train(training: "Training", stop: Stop) -> None:
    """Do the steps that are left, or those until `stop`; leave a checkpoint of the last one."""
    job, reporter, total = training.job, training.reporter, training.schedule.total
    if training.n_steps == 0:
        training.look_before()
    with reporter:
        reporter.start(done=training.n_steps, total=total)
        while not training.is_done:
            if training.world.max(float(bool(stop)))[0]:
                break
            training.advance()
    training.save()
    if not training.is_done:
        reporter.say(f"stopped after step {training.n_steps} of {total}; to continue:")
        reporter.say(job.resume)


def build_model(job: Job, *, vocab_size: int) -> tuple[Decoder, list[str]]:
    """Return the model at its start, and what a person should know about it."""
    if job.model.path is not None:
        return load_pretrained(Path(job.model.path), vocab_size=vocab_size)
    model = Decoder(new_architecture(job.model, vocab_size=vocab_size))
    initialise(model, seed=job.seed)
    return model, []


class Training:
    """A run between two steps, and the ways to go on.

    Weights, moments, cursor and counters are equal on all ranks; only `loss_sum` is a rank's own share.
    """

    def __init__(self, job: Job, world: World, reporter: Reporter, inputs: Inputs, model: Decoder) -> None:
        self.job, self.world, self.reporter, self.inputs, self.model = job, world, reporter, inputs, model
        self.schedule = make_schedule(len(inputs.packs), job.train)
        self.plan = identity(job, self.schedule, inputs.files)
        self.precision = choose_precision(job.train, world)
        self.optimizer = make_adamw(model, job.train)
        packs = inputs.packs
        self.cost = costs(packs.n_tokens, packs.sum_squares, hidden_size=model.architecture.hidden_size)
        self.checkpoints = job.home / "checkpoints"
        self.metrics = job.home / "metrics.jsonl"
        self.cursor, self.n_steps = Cursor(), 0
        self.tokens, self.supervised, self.seconds = 0, 0, 0.0
        self.loss_sum, self.weight_sum = 0.0, 0.0
        self.window_tokens, self.window_seconds = 0, 0.0
        self.val_loss: float | None = None
        self.first_val_loss: float | None = None
        self._epoch: tuple[int, Integers] | None = None
        self._saved_at = -1
        self._network: Decoder | DistributedDataParallel | None = None

    def network(self) -> Decoder | DistributedDataParallel:
        """Return what a step runs forward: the model, wrapped for several ranks once its weights are in place."""
        if self._network is None:
            self._network = self.model
            if self.world.size > 1:
                self._network = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        return self._network

    @property
    def is_done(self) -> bool:
        """Tell whether the last step is done."""
        return self.n_steps >= self.schedule.total

    def close(self) -> None:
        """Let go of the other ranks: the wrapper must be gone before the process group is."""
        self._network = None
        gc.collect()  # it is part of a reference cycle

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one. Raises PlanMismatch if it is not ours."""
        found = checkpoint.find(self.checkpoints, self.reporter.say) if self.world.is_first else None
        n_steps = int(self.world.max(-1.0 if found is None else float(checkpoint.step_of(found)))[0])
        if n_steps < 0:
            if self.world.is_first:
                cut_after(self.metrics, -1)
                cut_after(self.job.home / "samples.jsonl", -1)
            return
        path = checkpoint.at_step(self.checkpoints, n_steps)
        state = checkpoint.read_state(path)
        checkpoint.check_plan(path, state.plan, self.plan)
        checkpoint.restore(path, state, self.model, self.optimizer)
        self.cursor, self.n_steps, self._saved_at = state.cursor, state.n_steps, state.n_steps
        self.tokens, self.supervised, self.seconds = state.tokens, state.supervised, state.seconds
        self.loss_sum, self.weight_sum = state.loss_sum if self.world.is_first else 0.0, state.weight_sum
        self.val_loss, self.first_val_loss = state.val_loss, state.first_val_loss
        if self.world.is_first:
            cut_after(self.metrics, n_steps)
            cut_after(self.job.home / "samples.jsonl", n_steps)
        self.reporter.say(f"resuming after step {n_steps} of {self.schedule.total}, from {path}")

    def look_before(self) -> None:
        """Record what the untrained model does: its validation loss and its answers."""
        self.evaluate()
        self.first_val_loss = self.val_loss
        if not self.world.is_first:
            return
        self._write(loss=None, lr=None, grad_norm=None, val_loss=self.val_loss)
        show_samples(self.job, self.inputs, self.model, 0, self.precision, self.reporter)

    def evaluate(self) -> None:
        """Measure the validation loss on all ranks."""
        self.val_loss = validation_loss(
            self.model,
            self.inputs.validation,
            self.world,
            micro_batch=self.job.train.micro_batch,
            precision=self.precision,
        )

    def advance(self) -> None:
        """Do one step: gradients, update, and what is due after it. Raises Diverged before a bad update."""
        train, packs, before = self.job.train, self.inputs.packs, time.perf_counter()
        chosen = step_packs(self._order(), self.cursor.step, train.batch)
        weight = float(packs.weights[chosen].sum())
        groups = micro_batches(deal(chosen, self.cost, self.world.size)[self.world.rank], train.micro_batch)
        lr = learning_rate(self.n_steps, n_steps=self.schedule.total, train=train)
        scale = self.world.size / weight if weight else 0.0
        losses = accumulate(self.network(), groups, self._read, scale=scale, precision=self.precision)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip))
        # the reduced gradient is not finite on every rank when it is on one, so all stop together
        if not torch.isfinite(torch.tensor(grad_norm)):
            self._raise_diverged(chosen, groups, losses, lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += float(sum(losses))
        self.weight_sum += weight
        n_tokens = int(packs.n_tokens[chosen].sum())
        self.tokens += n_tokens
        self.window_tokens += n_tokens
        self.supervised += int(packs.n_supervised[chosen].sum())
        epoch = self.cursor.epoch
        self.cursor, self.n_steps = self.cursor.advanced(self.schedule.per_epoch), self.n_steps + 1
        elapsed = time.perf_counter() - before
        self.seconds += elapsed
        self.window_seconds += elapsed
        self._after(epoch, lr, grad_norm)

    def _after(self, epoch: int, lr: float, grad_norm: float) -> None:
        train, step = self.job.train, self.n_steps
        is_last = step == self.schedule.total
        is_evaluated = is_last or (train.eval_every > 0 and step % train.eval_every == 0)
        if is_evaluated:
            self.evaluate()
        if is_evaluated or step % train.log_every == 0:
            self._log(epoch, lr, grad_norm, is_evaluated=is_evaluated, is_last=is_last)
        if train.checkpoint_every and step % train.checkpoint_every == 0:
            self.save()

    def _log(self, epoch: int, lr: float, grad_norm: float, *, is_evaluated: bool, is_last: bool) -> None:
        total = self.world.sum(self.loss_sum)[0]
        loss = total / self.weight_sum if self.weight_sum else 0.0
        speed = self.window_tokens / self.window_seconds if self.window_seconds else None
        self.loss_sum = self.weight_sum = 0.0
        if self.world.is_first:
            self._write(
                loss=loss,
                lr=lr,
                grad_norm=grad_norm,
                val_loss=self.val_loss if is_evaluated else None,
                epoch=epoch,
                speed=speed,
            )
        self.window_tokens, self.window_seconds = 0, 0.0
        self.reporter.show(
            self.n_steps,
            self.schedule.total,
            loss=loss,
            val_loss=self.val_loss if is_evaluated else None,
            speed=speed,
            must=is_evaluated or is_last,
        )

    def _write(
        self,
        *,
        loss: float | None,
        lr: float | None,
        grad_norm: float | None,
        val_loss: float | None,
        epoch: int = 0,
        speed: float | None = None,
    ) -> None:
        line = Metrics(
            step=self.n_steps,
            epoch=epoch,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            tokens=self.tokens,
            supervised=self.supervised,
            tokens_per_s=speed,
            val_loss=val_loss,
            seconds=self.seconds,
        )
        append(self.metrics, line)

    def save(self) -> None:
        """Write a checkpoint, unless this step or no step has one to write. The loss so far is summed over ranks."""
        if self.n_steps in (0, self._saved_at):
            return
        total = self.world.sum(self.loss_sum)[0] if self.weight_sum else 0.0
        # the first rank carries the sum on, as it would after resuming, so that both go on bit for bit alike
        self.loss_sum = total if self.world.is_first else 0.0
        if self.world.is_first:
            keep = self.job.train.keep_checkpoints
            checkpoint.save(self.checkpoints, self.state(), self.model, self.optimizer, keep=keep)
        self._saved_at = self.n_steps

    def state(self) -> State:
        """Return everything but the tensors."""
        return State(
            cursor=self.cursor,
            n_steps=self.n_steps,
            plan=self.plan,
            tokens=self.tokens,
            supervised=self.supervised,
            seconds=self.seconds,
            loss_sum=self.loss_sum,
            weight_sum=self.weight_sum,
            val_loss=self.val_loss,
            first_val_loss=self.first_val_loss,
        )

    def _order(self) -> Integers:
        if self._epoch is None or self._epoch[0] != self.cursor.epoch:
            self._epoch = (
                self.cursor.epoch,
                order(self.schedule.n_packs, seed=self.job.seed, epoch=self.cursor.epoch),
            )
        return self._epoch[1]

    def _read(self, group: Sequence[int]) -> Batch:
        return self.inputs.packs.read(group, vocab_size=self.model.architecture.vocab_size)

    def _raise_diverged(self, chosen: list[int], groups: list[list[int]], losses: list[Tensor], lr: float) -> None:
        own = {pack for group, loss in zip(groups, losses, strict=True) if not torch.isfinite(loss) for pack in group}
        bad = self.world.max(*(float(pack in own) for pack in chosen))
        named = [pack for pack, is_bad in zip(chosen, bad, strict=True) if is_bad]
        ids = self.inputs.packs.ids(named or chosen)
        rest = f" and {len(ids) - NAMED_IDS} more" if len(ids) > NAMED_IDS else ""
        what = "the loss is not finite on" if named else "the losses are finite, but the gradient is not, on"
        raise Diverged(
            f"step {self.n_steps + 1} (epoch {self.cursor.epoch}, lr {lr:.3g}): {what} "
            f"{', '.join(ids[:NAMED_IDS])}{rest}. The weights were not changed by this step. Lower [train] lr, "
            "lengthen the warm-up, or look at these conversations (`chatloom look`)."
        )
