"""Training, top to bottom: from the first step, or from the newest checkpoint, to the exported model."""

import contextlib
import functools
from collections.abc import Callable, Sequence

import torch

from schemas.lock import locked
from schemas.settings import ConfigError
from trainer.checkpoint import at_step
from trainer.course import write_plan
from trainer.data.inputs import Inputs, open_inputs
from trainer.errors import OutOfMemory, PlanMismatch, storing
from trainer.files import sweep
from trainer.finish import finish, is_exported
from trainer.fresh import empty, is_emptied
from trainer.job import Job
from trainer.phases import after, check_tokenizers, foreseen, join_records, phase_jobs
from trainer.report.console import Reporter
from trainer.report.summary import closing
from trainer.signals import Stop
from trainer.start import check, make_start, with_local_model
from trainer.step import choose_precision
from trainer.training import Training
from trainer.world import World

LOCK = ".lock"
"""Name of the file in RUN/train that the one trainer of a run holds."""


def fit(job: Job, world: World, reporter: Reporter, stop: Stop, *, fresh: bool) -> bool:
    """Train `job`, phase by phase if it has several, or stop at a step's end with a checkpoint when `stop` asks.

    Return whether the last step is done. Nothing is written, and `fresh` removes nothing, before it is known that data,
    model and settings work. Raises UserError for everything that a person can put right.
    """
    jobs = phase_jobs(job)
    if len(jobs) > 1:
        world.together(lambda: check_tokenizers(jobs))
        _check_ahead(job, world)
    with contextlib.ExitStack() as held:
        for i, one in enumerate(jobs):
            if one.phase is not None:
                reporter.say(f"phase {i + 1} of {len(jobs)}: {one.phase}")
            if i > 0:
                one = world.together(functools.partial(after, one, jobs[i - 1]))
            take = functools.partial(_take_home, job, one, held if i == 0 else None, fresh=fresh)
            is_done = _fit_one(one, world, reporter, stop, take)
            if one.phase is not None:
                _join(job, jobs, world, are_together=is_done and not one.is_last)
            if not is_done:
                return False
    return True


def _check_ahead(job: Job, world: World) -> None:
    """Raise what a later phase would be refused for, before an earlier one takes its time."""
    for one in foreseen(job)[1:]:
        inputs = open_inputs(one.data, world)
        local = with_local_model(one, world)

        def check_one(local: Job = local, inputs: Inputs = inputs) -> None:
            try:
                check(local, inputs)
            except ConfigError as error:
                raise ConfigError(f"[[train.phases]] {local.phase!r}: {error}") from None

        world.together(check_one)


def _join(job: Job, jobs: Sequence[Job], world: World, *, are_together: bool) -> None:
    """Join the records of all phases, on the first rank; after the last phase, or a stop, it is alone."""

    def join() -> None:
        if world.is_first:
            join_records(job, jobs)

    if are_together:
        world.together(join)
    else:
        join()


def _fit_one(job: Job, world: World, reporter: Reporter, stop: Stop, take: Callable[[], None]) -> bool:
    """Train to the last step and export; `take` is called, on the first rank, once it is known that everything works."""
    try:
        inputs = open_inputs(job.data, world)
        named, job = job.model, with_local_model(job, world)
        precision = choose_precision(job.train, world)
        start = world.together(lambda: make_start(job, inputs, precision.dtype, named=named))
        start.model.to(world.device)
        training = world.together(lambda: Training(job, world, reporter, inputs, start, precision))
        world.together(lambda: take() if world.is_first else None)
        for notice in start.notices:
            reporter.say(notice)
        return _run(training, stop)
    except RuntimeError as error:
        # a CPU's allocator has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise OutOfMemory(
            f"{world.device}: out of memory: {str(error).splitlines()[0]} Lower [train] micro_batch (it is "
            f"{job.train.micro_batch}; the result stays the same), set gradient_checkpointing, or pack.max_seq_len lower and "
            "build the data again"
        ) from None


def _take_home(job: Job, phase: Job, held: contextlib.ExitStack | None, *, fresh: bool) -> None:
    """Make the home of `phase`; with `held`, first lock RUN/train for as long as it is open, and tidy or empty it.

    Raises LockedError, StorageError, and PlanMismatch where RUN/train was trained in phases and is not now, or the reverse.
    """
    home = job.train_home
    with storing(home):
        if held is not None:
            held.enter_context(locked(home / LOCK))
            if fresh and not is_emptied(home):
                empty(home, but=LOCK)
            sweep(home)
            other = home / ("checkpoints" if job.train.phases else "phases")
            if other.is_dir():
                was, now = ("without", "with") if job.train.phases else ("with", "without")
                raise PlanMismatch(
                    f"{other}: this run was trained {was} [[train.phases]], and now comes {now} them. Restore the old settings "
                    "to continue, start over with --fresh (it removes what was trained), or use another run (--run)"
                )
        phase.home.mkdir(parents=True, exist_ok=True)
        sweep(phase.home)


def _run(training: Training, stop: Stop) -> bool:
    """Resume, do the steps that are left or those until `stop`, and finish; return whether the last one is done."""
    job, world, reporter, total = training.job, training.world, training.reporter, training.schedule.total
    try:
        training.resume()
        is_there = world.is_first and is_exported(job, step=training.n_steps, best=training.best_step)
        if training.is_done and world.max(float(is_there))[0]:
            _say_finished(training)
            return True
        if training.n_steps:
            found = at_step(training.checkpoints, training.n_steps)
            reporter.say(f"resuming after step {training.n_steps} of {total}, from {found}")
        reporter.say(_about(training))
        if not training.start.learning.is_everything:
            reporter.say("\n".join(training.start.learning.lines()))
        if training.schedule.left_out:
            reporter.say(f"{training.schedule.left_out} packs of each epoch are left out ([train] drop_last)")
        world.together(lambda: _write_plan(training) if world.is_first else None)
        training.recorder.cut(training.n_steps, is_done=training.is_done, owes_evaluation=training.owes_evaluation)
        _step(training, stop)
        training.save()
    finally:
        training.close()
    end = functools.partial(_end, training)
    if training.is_done and not job.is_last:
        world.together(lambda: end() if world.is_first else None)
        return True
    # rank 0 samples and exports for as long as it takes; the others need not wait for it
    world.leave()
    if training.is_done and world.is_first:
        end()
    if not training.is_done:
        reporter.say(f"stopped after step {training.n_steps} of {total}; to continue:")
        reporter.say(job.resume)
    return training.is_done


def _end(training: Training) -> None:
    job, reporter = training.job, training.reporter
    finish(job, training.inputs, training.start, training.state(), training.precision, reporter)
    training.draw()
    reporter.say(closing(job))


def _about(training: Training) -> str:
    """Return what is trained, on what, and where, in a line."""
    job, world, learning = training.job, training.world, training.start.learning
    model = f"{training.model.architecture.model_type}, {learning.n_own:,} parameters"
    ranks = "1 process" if world.size == 1 else f"{world.size} processes"
    device = "GPU" if world.device.type == "cuda" else "CPU"
    schedule = f"{training.schedule.total:,} steps of {job.train.batch} packs"
    return f"{model}; {schedule} from {job.data}; {training.precision.name}, {ranks} on {device}"


def _write_plan(training: Training) -> None:
    write_plan(
        training.job,
        training.schedule,
        training.inputs.files["train"],
        hidden_size=training.model.architecture.hidden_size,
        dtype=training.precision.name,
    )


def _step(training: Training, stop: Stop) -> None:
    is_stopping = bool(training.world.max(float(bool(stop)))[0])
    if training.n_steps == 0 and not is_stopping:
        training.look_before()
    elif training.owes_evaluation and not is_stopping:
        training.catch_up()
    with training.reporter as reporter:
        reporter.start(done=training.n_steps, total=training.schedule.total)
        while not training.is_done and not is_stopping:
            is_stopping = training.advance(stop)


def _say_finished(training: Training) -> None:
    job = training.job
    longer = (
        "More train.steps continue it"
        if job.train.schedule == "constant"
        else "Its schedule has come to its end; to train on, start another run from its export ([model] path)"
    )
    where = job.results / ("export" if job.lora.rank == 0 or job.lora.merge else "adapter")
    said = f"already finished at step {training.n_steps}, exported to {where}"
    training.reporter.say(f"{said}. {longer}; --fresh starts over" if job.is_last else said)
