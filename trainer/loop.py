"""Training, top to bottom: from the first step, or from the newest checkpoint, to the exported model."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from schemas.lock import locked
from trainer.checkpoint import at_step
from trainer.data.assets import other_tokenizer, vocabulary_size
from trainer.data.inputs import Inputs, open_inputs
from trainer.errors import OutOfMemory, storing
from trainer.files import sweep
from trainer.finish import check_prompts, finish, is_exported
from trainer.job import Job
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.model.weights import load_pretrained
from trainer.report.console import Reporter
from trainer.signals import Stop
from trainer.step import choose_precision
from trainer.training import Training
from trainer.world import World

LOCK = ".lock"
"""Name of the file in RUN/train that the one trainer of a run holds."""


def fit(job: Job, world: World, reporter: Reporter, stop: Stop, *, fresh: bool) -> bool:
    """Train `job` to its last step and export it, or stop at a step's end with a checkpoint when `stop` asks.

    Return whether the last step is done. Nothing is written, and `fresh` removes nothing, before it is known that data,
    model and settings work. Raises UserError for everything that a person can put right.
    """
    try:
        inputs = open_inputs(job.run, world)
        precision = choose_precision(job.train, world)
        model, notices = world.together(lambda: _usable_model(job, inputs))
        model = model.to(world.device)
        training = world.together(lambda: Training(job, world, reporter, inputs, model, precision))
        with contextlib.ExitStack() as held:
            world.together(lambda: _take_home(job, held, fresh=fresh) if world.is_first else None)
            for notice in notices:
                reporter.say(notice)
            return _run(training, stop)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"{world.device}: out of memory: {str(error).splitlines()[0]} Lower [train] micro_batch (it is "
            f"{job.train.micro_batch}; the result stays the same), or pack.max_seq_len and build the data again"
        ) from None


def _usable_model(job: Job, inputs: Inputs) -> tuple[Decoder, list[str]]:
    """Return the model at its start, and what a person should know about it. Raises before anything is trained."""
    model, notices = build_model(job, vocab_size=vocabulary_size(inputs.tokenizer), added_tokens=inputs.added_tokens)
    check_prompts(job, inputs, model)
    if job.model.path is not None and (
        warning := other_tokenizer(Path(job.model.path), inputs.tokenizer, inputs.added_tokens)
    ):
        notices.append(warning)
    longest, made_for = inputs.packs.longest, model.architecture.max_position_embeddings
    if longest > made_for:
        notices.append(
            f"the longest conversation has {longest} tokens, the model is made for {made_for} (max_position_embeddings)"
        )
    return model, notices


def build_model(job: Job, *, vocab_size: int, added_tokens: Mapping[str, int]) -> tuple[Decoder, list[str]]:
    """Return the model at its start, and how it was changed to fit."""
    if job.model.path is not None:
        return load_pretrained(Path(job.model.path), vocab_size=vocab_size, added_tokens=added_tokens)
    model = Decoder(new_architecture(job.model, vocab_size=vocab_size))
    initialise(model, seed=job.seed)
    return model, []


def _take_home(job: Job, held: contextlib.ExitStack, *, fresh: bool) -> None:
    """Lock RUN/train for as long as `held` is open, and tidy or empty it. Raises LockedError and StorageError."""
    with storing(job.home):
        held.enter_context(locked(job.home / LOCK))
        for path in job.home.iterdir() if fresh else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        sweep(job.home)


def _run(training: Training, stop: Stop) -> bool:
    """Resume, do the steps that are left or those until `stop`, and finish; return whether the last one is done."""
    job, world, reporter, total = training.job, training.world, training.reporter, training.schedule.total
    try:
        training.resume()
        is_there = world.is_first and is_exported(job.home, step=training.n_steps, dtype=job.train.export_dtype)
        if training.is_done and world.max(float(is_there))[0]:
            _say_finished(training)
            return True
        if training.n_steps:
            found = at_step(training.checkpoints, training.n_steps)
            reporter.say(f"resuming after step {training.n_steps} of {total}, from {found}")
        training.recorder.cut(training.n_steps, is_done=training.is_done)
        _step(training, stop)
        training.save()
    finally:
        training.close()
    # rank 0 samples and exports for as long as it takes; the others need not wait for it
    world.leave()
    if training.is_done and world.is_first:
        finish(job, training.inputs, training.model, training.state(), training.precision, reporter)
    if not training.is_done:
        reporter.say(f"stopped after step {training.n_steps} of {total}; to continue:")
        reporter.say(job.resume)
    return training.is_done


def _step(training: Training, stop: Stop) -> None:
    is_stopping = bool(training.world.max(float(bool(stop)))[0])
    if training.n_steps == 0 and not is_stopping:
        training.look_before()
    with training.reporter as reporter:
        reporter.start(done=training.n_steps, total=training.schedule.total)
        while not training.is_done and not is_stopping:
            is_stopping = training.advance(stop)


def _say_finished(training: Training) -> None:
    longer = (
        "more train.steps continue it"
        if training.job.train.schedule == "constant"
        else "to train longer, start another run from its export ([model] path): this schedule has come to its end"
    )
    training.reporter.say(
        f"already finished at step {training.n_steps}, exported to {training.job.home / 'export'}; "
        f"--fresh starts over, {longer}"
    )
