"""Steps that go wrong or are stopped, seen from inside."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.lock import LockedError, locked
from schemas.models import Model
from schemas.training import Train
from tests.trainer import processes
from trainer.data.inputs import open_inputs
from trainer.data.packs import nothing
from trainer.data.stream import order
from trainer.errors import Diverged, OutOfMemory
from trainer.job import Job
from trainer.loop import fit
from trainer.report.console import Reporter
from trainer.signals import Stop
from trainer.start import make_start
from trainer.step import choose_precision
from trainer.training import Training
from trainer.world import World, joined

ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))


def training_of(run: Path, model: Model, train: Train, world: World = ALONE) -> Training:
    job = Job(run=run, seed=7, model=model, train=train, resume="")
    job.home.mkdir(exist_ok=True)
    inputs = open_inputs(run, world)
    precision = choose_precision(train, world)
    start = make_start(job, inputs, precision.dtype, named=model)
    return Training(job, world, Reporter(is_silent=True), inputs, start, precision)


def test_a_loss_that_is_not_finite_names_the_conversations_of_its_packs_and_changes_nothing(run: Path) -> None:
    sizes = Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, tie_word_embeddings=False)
    training = training_of(run, sizes, Train(batch=5, steps=9, dtype="float32"))
    packs = training.inputs.packs
    first_step = order(len(packs), seed=7, epoch=0)[:5].tolist()
    held = {token: [p for p in first_step if token in packs.tokens(p)[0]] for token in range(304)}
    token, bad = next((token, bad) for token, bad in held.items() if len(bad) == 1)
    with torch.no_grad():
        training.model.embed_tokens.weight[token] = torch.nan
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    with pytest.raises(Diverged) as caught:
        training.advance(Stop())
    assert f"step 1 (epoch 0, lr 2e-05): the loss is not finite on {', '.join(packs.ids(bad))[:200]}" in str(
        caught.value
    )
    innocent = packs.ids([pack for pack in first_step if pack not in bad])
    assert not {f" {name}," for name in innocent} & {f"{word}" for word in str(caught.value).split()}
    for old, new in zip(before, training.model.parameters(), strict=True):
        assert np.array_equal(old.numpy(), new.detach().numpy(), equal_nan=True)


def test_only_matrices_decay(run: Path) -> None:
    training = training_of(
        run, Model(hidden_size=16, num_attention_heads=2, model_type="qwen2"), Train(weight_decay=0.1)
    )
    decayed, plain = training.optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert {parameter.dim() for parameter in decayed["params"]} == {2}
    assert {parameter.dim() for parameter in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(training.model.parameters()))


SMALL = Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=1)


def test_steps_that_train_nothing_have_no_loss(run: Path) -> None:
    training = training_of(run, SMALL, Train(batch=5, steps=9, dtype="float32", eval_every=0))
    training.inputs.packs.weights[:] = 0.0
    training.feed.read = lambda _: nothing()  # type: ignore[method-assign]
    training.advance(Stop())
    (line,) = [json.loads(text) for text in training.recorder.metrics.read_text().splitlines()]
    assert line["loss"] is None


def test_a_due_evaluation_is_left_out_once_a_stop_is_asked_for(run: Path) -> None:
    training = training_of(run, SMALL, Train(batch=5, steps=4, dtype="float32", eval_every=1, schedule="constant"))
    stop = Stop()
    assert not training.advance(stop)
    stop.signal = signal.SIGTERM
    assert training.advance(stop)
    assert training.advance(stop)
    # the last step's is part of being done
    assert training.advance(stop)
    lines = [json.loads(text) for text in training.recorder.metrics.read_text().splitlines()]
    assert [line["val_loss"] is not None for line in lines] == [True, False, False, True]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_stops_leave_no_trace_in_what_is_recorded(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    train = Train(batch=5, steps=4, dtype="float32", eval_every=2, eval_tag="lang", log_every=2, n_samples=2)
    undisturbed = training_of(run, SMALL, train)
    for _ in range(4):
        undisturbed.advance(Stop())
    for n_steps in (1, 2, 4):  # stopped between two lines, and where an evaluation is due
        training, stop = training_of(other, SMALL, train), Stop()
        training.resume()
        training.recorder.cut(training.n_steps, is_done=False, owes_evaluation=training.owes_evaluation)
        assert training.owes_evaluation == (n_steps == 4)
        if training.owes_evaluation:
            training.catch_up()
        while training.n_steps < n_steps:
            stop.signal = signal.SIGTERM if training.n_steps + 1 == n_steps else None
            training.advance(stop)
        training.save()
    assert recorded(training) == recorded(undisturbed)
    assert training.best_step == undisturbed.best_step


def recorded(training: Training) -> list[dict[str, object]]:
    """Return the lines of both records, without what is measured by a clock."""
    times = {"seconds", "tokens_per_s", "data_share", "mfu", "memory_bytes"}
    text = training.recorder.metrics.read_text() + training.recorder.samples.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in line.items() if name not in times} for line in lines]


def three_ranks(run: Path) -> None:
    """Do two steps and save, then the third twice: going on, and in the place of a trainer that has been started again."""
    train = Train(batch=7, steps=3, dtype="float32", eval_every=0, log_every=9, n_samples=0)
    with joined() as world:
        undisturbed = training_of(run, SMALL, train, world)
        for _ in range(2):
            undisturbed.advance(Stop())
        undisturbed.save()
        resumed = training_of(run, SMALL, train, world)
        resumed.resume()
        assert resumed.n_steps == 2
        for training in (undisturbed, resumed):
            training.advance(Stop())
            training.close()
        pairs = zip(undisturbed.model.parameters(), resumed.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_three_ranks_go_on_bit_for_bit_in_whichever_order_gradients_lie(run: Path) -> None:
    processes.completed(processes.Ranks(three_ranks, run, world=3))


def test_what_does_not_fit_the_accelerator_says_what_to_lower(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr("trainer.training.accumulate", fail)
    job = Job(run=run, seed=7, model=SMALL, train=Train(batch=5, steps=2, n_samples=0), resume="")
    with pytest.raises(OutOfMemory, match=r"Tried to allocate 2\.00 GiB\. Lower \[train\] micro_batch \(it is 1"):
        fit(job, ALONE, Reporter(is_silent=True), Stop(), fresh=False)


def test_a_second_trainer_is_refused_naming_the_first(run: Path) -> None:
    job = Job(run=run, seed=7, model=SMALL, train=Train(batch=5, steps=2, n_samples=0), resume="")
    with locked(job.home / ".lock"), pytest.raises(LockedError, match=f"pid {os.getpid()} on") as caught:
        fit(job, ALONE, Reporter(is_silent=True), Stop(), fresh=True)
    assert caught.value.exit_code == 75
    assert [path.name for path in job.home.iterdir()] == [".lock"]
