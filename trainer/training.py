"""A run between two steps, and the ways to go on: resume, step, measure, save."""

import gc
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from schemas.metrics import Metrics
from trainer import checkpoint
from trainer.checkpoint import State
from trainer.compiled import compile_blocks, is_compiled
from trainer.data.inputs import Inputs
from trainer.data.prefetch import ReadAhead
from trainer.data.stream import Cursor
from trainer.diverged import diverged
from trainer.errors import storing
from trainer.evaluation import Evaluation, evaluate
from trainer.feed import Feed, Group, Portion
from trainer.held_out import show_samples
from trainer.job import Job
from trainer.model.decoder import Decoder
from trainer.optim import learning_rate, make_adamw, set_learning_rate
from trainer.plan import identity, make_schedule
from trainer.report.chosen import all_settings
from trainer.report.console import Reporter
from trainer.report.flops import count_work
from trainer.report.meter import Meter, Yardstick
from trainer.report.page import write_report
from trainer.report.recorder import Recorder
from trainer.report.trackers import Trackers
from trainer.sharded import ShardedAdamW
from trainer.signals import Stop
from trainer.start import Start
from trainer.step import Precision, accumulate
from trainer.world import World


class Training:
    """A run between two steps, and the ways to go on.

    Weights, moments, cursor and counters are equal on all ranks; only `loss_sum`, which stays on the device until it is
    logged, is a rank's own share. Making one writes nothing and raises ConfigError for a schedule that cannot be.
    """

    def __init__(
        self, job: Job, world: World, reporter: Reporter, inputs: Inputs, start: Start, precision: Precision
    ) -> None:
        self.job, self.world, self.reporter, self.inputs = job, world, reporter, inputs
        self.start, self.model = start, start.model
        model = start.model
        self.schedule = make_schedule(len(inputs.packs), job.train)
        self.precision = precision
        self.plan = identity(job, self.schedule, inputs.files, model.architecture, precision.name, frozen=start.frozen)
        self.optimizer = make_adamw(model, job.train)
        if job.train.shard_optimizer and world.size > 1:
            self.optimizer = ShardedAdamW(self.optimizer, world)
        a = model.architecture
        self.feed = Feed(job, inputs, self.schedule, world, hidden_size=a.hidden_size, vocab_size=a.vocab_size)
        self.checkpoints = job.home / "checkpoints"
        title, settings = job.run.name, all_settings(job)
        trackers = Trackers(job.train.track, job.home, title=title, settings=settings, say=reporter.say)
        self.recorder = Recorder(
            job.home, reporter, is_first=world.is_first, trackers=trackers if world.is_first else None
        )
        self.meter, self.work = Meter(), count_work(model)
        self.yardstick = Yardstick(world.device, precision.dtype, n_devices=world.size)
        self.cursor, self.n_steps = Cursor(), 0
        self.loss_sum, self.weight_sum = self._as_sum(0.0), 0.0
        self.evaluation: Evaluation | None = None
        self.owes_evaluation = False
        self.val_loss: float | None = None
        self.first_val_loss: float | None = None
        self.best_val_loss: float | None = None
        self.best_step: int | None = None
        self._saved_at = -1
        self._batches: ReadAhead[Group] | None = None
        self._network: Decoder | DistributedDataParallel | None = None
        model.gradient_checkpointing = job.train.gradient_checkpointing
        model.dropout = job.train.dropout
        if is_compiled(job.train, world.device):
            self.feed.full = int(inputs.packs.n_tokens.max())
            compile_blocks(model)

    def network(self) -> Decoder | DistributedDataParallel:
        """Return what a step runs forward: the model, wrapped for several ranks once its weights are in place."""
        if self._network is None:
            self._network = self.model
            if self.world.size > 1:
                self._network = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
                self._settle(self._network)
        return self._network

    def _settle(self, network: DistributedDataParallel) -> None:
        """Let the wrapper lay out gradients for good: it does so after its first backward pass, here one of no packs.

        Where an element lies decides in which order more than two ranks add it, so a run that is resumed must not take its
        first step with another layout than one that was never stopped.
        """
        accumulate(network, [Group(self.n_steps, ())], self.feed.read, scale=0.0, precision=self.precision)
        network.zero_grad(set_to_none=True)

    @property
    def is_done(self) -> bool:
        """Tell whether the last step is done."""
        return self.n_steps >= self.schedule.total

    def close(self) -> None:
        """End reading ahead, and let go of the other ranks: the wrapper must be gone before the process group is."""
        self.recorder.close()
        if self._batches is not None:
            self._batches.close()
        self._network = None
        gc.collect()  # it is part of a reference cycle

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one.

        Raises PlanMismatch if it is not ours, CheckpointsUnusable if none of those that lie there is whole.
        """
        found = self.world.together(
            lambda: checkpoint.find(self.checkpoints, self.reporter.say) if self.world.is_first else None
        )
        n_steps = int(self.world.max(-1.0 if found is None else float(checkpoint.step_of(found)))[0])
        if n_steps < 0:
            return
        path = checkpoint.at_step(self.checkpoints, n_steps)
        state = self.world.together(lambda: self._restored(path))
        self.cursor, self.n_steps, self._saved_at = state.cursor, state.n_steps, state.n_steps
        self.meter = Meter(tokens=state.tokens, supervised=state.supervised, seconds=state.seconds, window=state.window)
        self.loss_sum = self._as_sum(state.loss_sum if self.world.is_first else 0.0)
        self.weight_sum, self.owes_evaluation = state.weight_sum, state.owes_evaluation
        self.val_loss, self.first_val_loss = state.val_loss, state.first_val_loss
        self.best_val_loss, self.best_step = state.best_val_loss, state.best_step

    def _restored(self, path: Path) -> State:
        state = checkpoint.read_state(path)
        checkpoint.check_plan(path, state.plan, self.plan)
        checkpoint.restore(path, state, self.model, self.optimizer)
        return state

    def look_before(self) -> None:
        """Record what the untrained model does: its validation loss and its answers."""
        self.evaluate()
        self.first_val_loss = self.val_loss
        self.recorder.write(self._line(is_evaluated=True))
        self._sample()

    def catch_up(self) -> None:
        """Do the evaluation that was put off when the run was stopped, as if it had been done then."""
        self.evaluate()
        self.recorder.complete(self.n_steps, self.evaluation)
        self._is_best()  # its checkpoint is the one that was resumed
        if not self.is_done:  # else finish does it
            self._sample()
        self.owes_evaluation = False

    def _sample(self) -> None:
        # together, so that what goes wrong on the first rank ends all of them
        self.world.together(lambda: self._answer_and_draw() if self.world.is_first else None)

    def _answer_and_draw(self) -> None:
        show_samples(self.job, self.inputs, self.model, self.n_steps, self.precision, self.reporter)
        self.draw()

    def draw(self) -> None:
        """Write the report of what was recorded so far; for rank 0. Raises StorageError."""
        arithmetic = f"{self.precision.name} on {self.world.size} × {self.world.device.type}"
        write_report(self.job, facts={"arithmetic": arithmetic}, parameters=self.start.learning.lines())

    def evaluate(self) -> None:
        """Measure the validation loss on all ranks."""
        self.evaluation = evaluate(
            self.model,
            self.inputs.validation,
            self.world,
            micro_batch=self.job.train.micro_batch,
            precision=self.precision,
            kind=self.job.train.eval_tag,
        )
        self.val_loss = None if self.evaluation is None else self.evaluation.loss

    def advance(self, stop: Stop) -> bool:
        """Do one step: gradients, update, and what is due after it; return whether `stop` was asked for on some rank.

        Raises Diverged before a bad update, and DataError where a pack cannot be read.
        """
        train, packs, before = self.job.train, self.inputs.packs, time.perf_counter()
        batches = self._batches = self._batches or self.feed.ahead(self.cursor)
        waited = batches.waited
        portion = self.feed.portion(self.cursor)
        lr = learning_rate(self.n_steps, n_steps=self.schedule.total, train=train)
        scale = self.world.size / portion.weight if portion.weight else 0.0
        losses = accumulate(
            self.network(),
            portion.groups,
            batches.take_or_hold,
            scale=scale,
            precision=self.precision,
            z_loss=train.z_loss,
        )
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip)
        # the one moment of a step in which the host waits for the device
        flags = self.world.any(bool(stop), batches.has_failed)
        grad_norm, is_asked, has_failed = torch.cat((norm.double()[None], flags)).tolist()
        if has_failed:
            batches.raise_held(self.world)
        # the reduced gradient is not finite on every rank when it is on one, so all stop together
        if not math.isfinite(grad_norm):
            self._raise_diverged(portion, lr=lr, grad_norm=grad_norm, scale=scale)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += torch.stack(losses).sum()
        self.weight_sum += portion.weight
        epoch = self.cursor.epoch
        self.cursor, self.n_steps = self.cursor.advanced(self.schedule.per_epoch), self.n_steps + 1
        self.meter.add(
            tokens=int(packs.n_tokens[portion.chosen].sum()),
            supervised=int(packs.n_supervised[portion.chosen].sum()),
            seconds=time.perf_counter() - before,
            waited=batches.waited - waited,
            flops=self.work.of_packs(packs, portion.chosen),
        )
        self._after(epoch, lr, grad_norm, is_stopping=bool(is_asked))
        return bool(is_asked)

    def _after(self, epoch: int, lr: float, grad_norm: float, *, is_stopping: bool) -> None:
        train, step = self.job.train, self.n_steps
        is_last = step == self.schedule.total
        is_due = is_last or (train.eval_every > 0 and step % train.eval_every == 0)
        # whoever asked to stop may not wait for as long as an evaluation takes
        is_evaluated = is_last or (is_due and not is_stopping)
        self.owes_evaluation = is_due and not is_evaluated
        if is_evaluated:
            self.evaluate()
        if is_due or step % train.log_every == 0:
            total = self.world.sum(float(self.loss_sum))[0]
            loss = total / self.weight_sum if self.weight_sum else None
            self.loss_sum, self.weight_sum = self._as_sum(0.0), 0.0
            line = self._line(epoch=epoch, loss=loss, lr=lr, grad_norm=grad_norm, is_evaluated=is_evaluated)
            self.recorder.write(line)
            self.recorder.show(line, total=self.schedule.total, must=is_evaluated or is_last)
        is_best = is_evaluated and self._is_best()
        if is_evaluated and not is_last:  # after the last step, finish does it
            self._sample()
        if is_best or (train.checkpoint_every and step % train.checkpoint_every == 0):
            self.save()

    def _is_best(self) -> bool:
        """Tell whether the validation loss is the lowest so far, and remember that it is."""
        if self.val_loss is None or not self.job.train.keep_best:
            return False
        if self.best_val_loss is not None and self.val_loss >= self.best_val_loss:
            return False
        self.best_val_loss, self.best_step = self.val_loss, self.n_steps
        return True

    def _line(
        self,
        *,
        epoch: int = 0,
        loss: float | None = None,
        lr: float | None = None,
        grad_norm: float | None = None,
        is_evaluated: bool,
    ) -> Metrics:
        window, measured = self.meter.take(), self.evaluation if is_evaluated else None
        return Metrics(
            phase=self.job.phase,
            step=self.n_steps,
            epoch=epoch,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            tokens=self.meter.tokens,
            supervised=self.meter.supervised,
            tokens_per_s=window.tokens_per_s,
            val_loss=None if measured is None else measured.loss,
            perplexity=None if measured is None else measured.perplexity,
            val_loss_by_source=None if measured is None else measured.losses(),
            val_loss_by_tag=None if measured is None else measured.losses_by_tag(),
            supervised_share=window.supervised_share,
            data_share=window.data_share,
            mfu=self.yardstick.mfu(window) if self.world.is_first else None,
            memory_bytes=self.yardstick.memory_bytes() if self.world.is_first else None,
            seconds=self.meter.seconds,
        )

    def save(self) -> None:
        """Write a checkpoint, unless this step or no step has one to write. The loss so far is summed over ranks."""
        if self.n_steps in (0, self._saved_at):
            return
        total = self.world.sum(float(self.loss_sum))[0] if self.weight_sum else 0.0
        # the first rank carries the sum on, as it would after resuming, so that both go on bit for bit alike
        self.loss_sum = self._as_sum(total if self.world.is_first else 0.0)
        keep, best = self.job.train.keep_checkpoints, () if self.best_step is None else (self.best_step,)
        own = (self.checkpoints, self.state(), self.model, self.optimizer)
        if isinstance(self.optimizer, ShardedAdamW):
            checkpoint.save_shares(*own, self.world, keep=keep, also=best)
        else:
            # together, so that a full disk ends every rank with one message
            self.world.together(
                lambda: (
                    self._stored(lambda: checkpoint.save(*own, keep=keep, also=best)) if self.world.is_first else None
                )
            )
        self._saved_at = self.n_steps

    def _stored(self, do: Callable[[], object]) -> None:
        with storing(checkpoint.at_step(self.checkpoints, self.n_steps)):
            do()

    def state(self) -> State:
        """Return everything but the tensors."""
        return State(
            cursor=self.cursor,
            n_steps=self.n_steps,
            plan=self.plan,
            tokens=self.meter.tokens,
            supervised=self.meter.supervised,
            seconds=self.meter.seconds,
            loss_sum=float(self.loss_sum),
            weight_sum=self.weight_sum,
            window=self.meter.window,
            owes_evaluation=self.owes_evaluation,
            val_loss=self.val_loss,
            first_val_loss=self.first_val_loss,
            best_val_loss=self.best_val_loss,
            best_step=self.best_step,
        )

    def _as_sum(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.world.device)

    def _raise_diverged(self, portion: Portion, *, lr: float, grad_norm: float, scale: float) -> None:
        raise diverged(
            self.job,
            self.world,
            self.inputs.packs,
            self.model,
            lambda packs: self.feed.read(Group(self.n_steps, tuple(packs))),
            self.precision,
            chosen=portion.chosen,
            hand=portion.hand,
            step=self.n_steps + 1,
            epoch=self.cursor.epoch,
            lr=lr,
            grad_norm=grad_norm,
            scale=scale,
            z_loss=self.job.train.z_loss,
        )
