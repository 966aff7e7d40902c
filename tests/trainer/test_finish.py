"""The gate before the export: half of the answers must say something, and end."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from schemas.generation import Generation
from schemas.models import Lora, Model
from schemas.settings import ConfigError
from schemas.training import Train
from trainer.answers.desk import Answer
from trainer.answers.generate import Prompt
from trainer.answers.samples import is_ended
from trainer.checkpoint import State
from trainer.data.inputs import Inputs, open_inputs
from trainer.data.stream import Cursor
from trainer.errors import ExportRefused
from trainer.finish import finish, is_exported
from trainer.held_out import check_prompts
from trainer.job import Job
from trainer.loop import fit
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.report.console import Reporter
from trainer.report.metrics import read_metrics
from trainer.signals import Stop
from trainer.start import Start
from trainer.step import Precision
from trainer.trainable import select
from trainer.world import World

ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))
STOP, WORD = 303, 60


def small(room: int = 256) -> Decoder:
    sizes = Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, max_position_embeddings=room)
    model = Decoder(new_architecture(sizes, vocab_size=304))
    initialise(model, seed=0)
    return model


def scripted(n_ended: int, *, is_empty: bool = False) -> Callable[..., list[Answer]]:
    """Answers of which the first `n_ended` stop; what draws them is not under test here."""

    def answer_all(_: object, prompts: list[Prompt], *, settings: Generation, **__: object) -> list[Answer]:
        ended = Answer(ids=(STOP,) if is_empty else (WORD, STOP), is_stopped=True)
        return [
            ended if i < n_ended else Answer(ids=(WORD,) * settings.max_new_tokens, is_stopped=False)
            for i in range(len(prompts))
        ]

    return answer_all


def try_to_finish(run: Path, monkeypatch: pytest.MonkeyPatch, answering: Callable[..., list[Answer]]) -> Job:
    monkeypatch.setattr("trainer.held_out.answer_all", answering)
    job = Job(run=run, seed=0, model=Model(), train=Train(), resume="")
    job.home.mkdir()
    state = State(cursor=Cursor(), n_steps=5, plan={})
    precision = Precision(device=torch.device("cpu"), dtype=torch.float32)
    model = small()
    start = Start(model=model, learning=select(model, None), frozen="")
    finish(job, open_inputs(run, ALONE), start, state, precision, Reporter(is_silent=False))
    return job


def n_prompts(inputs: Inputs) -> int:
    return min(8, len(inputs.validation))


def test_half_of_the_answers_are_enough_and_are_counted(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    n = n_prompts(open_inputs(run, ALONE))
    assert n == 5
    job = try_to_finish(run, monkeypatch, scripted(3))
    assert "3 of 5 test answers said something and ended" in capsys.readouterr().out
    assert is_exported(job, step=5)
    assert not is_exported(job, step=6)
    assert not is_exported(replace(job, train=Train(export_dtype="bfloat16")), step=5)
    assert not is_exported(replace(job, lora=Lora(rank=2, merge=False)), step=5)
    best = replace(job, train=Train(export_weights="best"))
    assert is_exported(best, step=5, best=5)
    assert is_exported(best, step=5, best=None)
    assert not is_exported(best, step=5, best=4)


@pytest.mark.parametrize(("n_ended", "is_empty"), [(2, False), (5, True)])
def test_fewer_or_empty_ones_are_not(n_ended: int, is_empty: bool, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportRefused, match=f"only {0 if is_empty else n_ended} of 5 test answers"):
        try_to_finish(run, monkeypatch, scripted(n_ended, is_empty=is_empty))
    assert not (run / "train" / "export").exists()


def test_samples_that_all_ran_to_their_limit_are_pointed_at(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportRefused):
        try_to_finish(run, monkeypatch, scripted(0))
    assert "warning: every sample ran to its limit of 64 tokens" in capsys.readouterr().out


def test_an_answer_ends_when_it_says_something_first(run: Path) -> None:
    tokenizer = open_inputs(run, ALONE).tokenizer
    newline = tokenizer.encode("\n").ids
    assert is_ended(tokenizer, Answer(ids=(WORD, STOP), is_stopped=True))
    assert not is_ended(tokenizer, Answer(ids=(WORD, WORD), is_stopped=False))
    assert not is_ended(tokenizer, Answer(ids=(STOP,), is_stopped=True))
    assert not is_ended(tokenizer, Answer(ids=(*newline, STOP), is_stopped=True))


def test_what_could_not_be_sampled_or_tested_is_refused_before_training(run: Path) -> None:
    inputs = open_inputs(run, ALONE)

    def job(longest: int = 64, n_samples: int = 3, *, untested: bool = False) -> Job:
        train = Train(n_samples=n_samples, export_unless_stopping=untested)
        generation = Generation(max_new_tokens=longest)
        return Job(run=run, seed=0, model=Model(), train=train, generation=generation, resume="")

    check_prompts(job(255), inputs, small(256))
    check_prompts(job(999, 0), inputs, small(256))
    with pytest.raises(ConfigError, match="max_new_tokens = 256 leaves no room for a prompt"):
        check_prompts(job(256), inputs, small(256))
    with pytest.raises(ConfigError, match="export_unless_stopping"):
        check_prompts(job(n_samples=0), inputs, small(8))
    check_prompts(job(n_samples=0, untested=True), inputs, small(8))


def test_the_best_weights_are_exported_where_they_are_asked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # so high a rate that the validation loss rises from the second evaluation on
    train = Train(
        batch=5,
        steps=8,
        lr=0.3,
        schedule="constant",
        dtype="float32",
        eval_every=1,
        checkpoint_every=0,
        keep_checkpoints=1,
        n_samples=0,
        export_weights="best",
        export_unless_stopping=True,
    )
    sizes = Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    job = Job(run=run, seed=0, model=sizes, train=train, resume="")
    assert fit(job, ALONE, Reporter(is_silent=False), Stop(), fresh=False)
    losses = [line.val_loss for line in read_metrics(job.home / "metrics.jsonl")]
    best = min(range(1, 9), key=lambda step: losses[step] or 0.0)
    assert best < 8
    assert f"the weights after {best} steps are exported" in capsys.readouterr().out
    found = load_file(job.home / "export" / "model.safetensors")
    stored = load_file(job.home / "checkpoints" / f"step-{best:08d}" / "model.safetensors")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in stored.items()
    }
    # nothing is left to do, and what is asked for otherwise is written anew
    assert fit(job, ALONE, Reporter(is_silent=False), Stop(), fresh=False)
    assert "already finished" in capsys.readouterr().out
    last = replace(job, train=msgspec.structs.replace(train, export_weights="last"))
    assert fit(last, ALONE, Reporter(is_silent=True), Stop(), fresh=False)
    final = load_file(job.home / "export" / "model.safetensors")
    assert any(not torch.equal(final[name], tensor) for name, tensor in stored.items())
    assert fit(job, ALONE, Reporter(is_silent=True), Stop(), fresh=False)
    again = load_file(job.home / "export" / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in stored.items())
