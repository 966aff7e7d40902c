"""Several trainings one after the other, against the same done by hand."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.models import Lora, Model
from schemas.settings import ConfigError
from schemas.training import Phase, Train
from tests.trainer import processes
from trainer.entry import main
from trainer.job import Job
from trainer.phases import phase_jobs

SETTINGS = """
[train]
batch = 5
micro_batch = 2
dtype = "float32"
eval_every = 0
checkpoint_every = 1
n_samples = 1
export_unless_stopping = true
"""
FIRST = 'steps = 4\nlr = 1e-2\ntrainable = "last_block"\nschedule = "constant"\n'
SECOND = "epochs = 2\nlr = 2e-3\nwarmup_ratio = 0.2\n"


def write_config(run: Path, text: str, *, model: str | None = None) -> Path:
    """Write a config beside that of `run`, with its [model] or another."""
    own = (run / "config.toml").read_text()
    start, end = own.index("[model]"), own.index("[train]")
    path = run / "phases.toml"
    sizes = own[start:end] if model is None else f'[model]\npath = "{model}"\n'
    path.write_text(f'run = "{run}"\nseed = 7\n{sizes}{text}')
    return path


def phased(run: Path, other: Path, first: str = FIRST, second: str = SECOND) -> Path:
    one = f'[[train.phases]]\nname = "easy"\n{first}'
    two = f'[[train.phases]]\nname = "hard"\nrun = "{other}"\n{second}'
    return write_config(run, f"{SETTINGS}{one}{two}")


def newest(home: Path) -> tuple[bytes, bytes]:
    path = max((home / "checkpoints").glob("step-*"))
    return (path / "model.safetensors").read_bytes(), (path / "optimizer.safetensors").read_bytes()


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def other(write_run: Callable[..., Path], tmp_path: Path) -> Path:
    """Another finished run of the same tokenizer, with other packs."""
    return write_run(tmp_path / "other", n_train=16, n_validation=3, weighted=True)


@pytest.mark.parametrize(
    ("second", "said"),
    [(SECOND + 'trainable = "zzz"', "zzz"), ("steps = 8\nwarmup_steps = 8", "the warm-up would last 8 of 8 steps")],
)
def test_what_a_later_phase_is_refused_for_is_said_before_the_first(
    second: str, said: str, run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(phased(run, other, second=second))]) == 2
    problem = capsys.readouterr().err
    assert "[[train.phases]] 'hard': " in problem
    assert said in problem
    assert not (run / "train" / "phases").exists()


def test_two_phases_killed_in_the_second_are_two_runs_by_hand_bit_for_bit(
    run: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = run / "train"
    started = processes.train(phased(run, other))
    started.wait_for((home / "phases" / "hard" / "checkpoints" / "step-00000003").exists)
    started.send(signal.SIGKILL)
    assert started.wait().codes == [-signal.SIGKILL]
    assert not (home / "export").exists()

    assert main([str(run / "phases.toml")]) == 0
    out = capsys.readouterr().out
    assert "phase 1 of 2: easy\nalready finished at step 4, exported to " in out
    assert "phase 2 of 2: hard\nresuming after step " in out
    assert out.count("exported to") == 2

    by_hand = tmp_path / "by-hand"
    one = write_config(run, SETTINGS + FIRST).rename(run / "one.toml")
    assert main([str(one), "--run", str(_copy_of(run, by_hand / "1"))]) == 0
    two = write_config(run, SETTINGS + SECOND, model=str(by_hand / "1" / "train" / "export"))
    assert main([str(two), "--run", str(_copy_of(other, by_hand / "2"))]) == 0
    assert newest(home / "phases" / "easy") == newest(by_hand / "1" / "train")
    assert newest(home / "phases" / "hard") == newest(by_hand / "2" / "train")
    export = "export/model.safetensors"
    assert (home / export).read_bytes() == (by_hand / "2" / "train" / export).read_bytes()
    assert not (home / "phases" / "hard" / "export").exists()

    lines = [(line["phase"], line["step"]) for line in records(home / "metrics.jsonl")]
    assert lines == [("easy", step) for step in range(5)] + [("hard", step) for step in range(9)]
    assert {line["phase"] for line in records(home / "samples.jsonl")} == {"easy", "hard"}
    capsys.readouterr()

    # two ranks wait for each other between phases, and take the same packs
    two_ranks = processes.train(phased(run, other), "--run", _copy_of(run, tmp_path / "two"), world=2)
    processes.completed(two_ranks)
    found = records(tmp_path / "two" / "train" / "metrics.jsonl")
    assert [(line["phase"], line["step"], line["tokens"]) for line in found] == [
        (line["phase"], line["step"], line["tokens"]) for line in records(home / "metrics.jsonl")
    ]
    assert found[-1]["val_loss"] == pytest.approx(records(home / "metrics.jsonl")[-1]["val_loss"], abs=1e-3)

    # a change of what is finished is no continuation, in the phase itself and in what follows it
    assert main([str(phased(run, other, FIRST.replace("1e-2", "2e-2")))]) == 2
    assert "train.lr: 0.01 in the checkpoint, 0.02 now" in capsys.readouterr().err
    assert main([str(phased(run, other, FIRST.replace("steps = 4", "steps = 5")))]) == 2
    assert "phase before: " in capsys.readouterr().err
    assert main([str(one)]) == 2
    assert "this run was trained with [[train.phases]], and now comes without" in capsys.readouterr().err


def _copy_of(run: Path, target: Path) -> Path:
    """Return a run with the same data and nothing trained."""
    target.mkdir(parents=True)
    for name in ("pack", "tokenizer"):
        (target / name).symlink_to(run / name)
    return target


def test_a_signal_stops_between_steps_of_a_phase_and_fresh_starts_with_the_first(
    run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, home = phased(run, other), run / "train"
    started = processes.train(config)
    started.wait_for((home / "phases" / "hard" / "checkpoints" / "step-00000002").exists)
    started.send(signal.SIGTERM)
    assert "to continue:" in processes.completed(started).out
    assert len(records(home / "metrics.jsonl")) > 6
    assert main([str(config), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.index("phase easy\n") < out.index(": already finished") < out.index("phase hard\n")
    assert "training would continue after step" in out
    assert main([str(config), "--fresh", "--set", "train.steps=1", "--set", "train.batch=16"]) == 0
    assert [line["phase"] for line in records(home / "metrics.jsonl")] == ["easy"] * 5 + ["hard"] * 3


def test_packs_of_another_tokenizer_are_refused(run: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = other / "tokenizer" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    manifest = json.loads((other / "pack" / "manifest.json").read_text())
    manifest["assets"] = {}
    (other / "pack" / "manifest.json").write_text(json.dumps(manifest))
    for words in ([], ["--dry-run"]):
        assert main([str(phased(run, other)), *words]) == 2
        error = capsys.readouterr().err
        assert f"'hard': {path} is not the tokenizer of phase 'easy'" in error
    assert not (run / "train").exists()


def test_a_phase_has_what_it_sets_and_else_what_the_whole_has() -> None:
    phases = (
        Phase(name="a", steps=7, warmup_steps=2, lr=1.0),
        Phase(name="b", lora=False, run="runs/b", trainable="head", schedule="constant"),
        Phase(name="c", epochs=2, order="short_first"),
    )
    train = Train(epochs=3, warmup_ratio=0.5, batch=4, phases=phases, export_dtype="bfloat16")
    lora = Lora(rank=4, merge=False)
    job = Job(run=Path("r"), seed=1, model=Model(hidden_size=96), lora=lora, train=train, resume="again")
    a, b, c = phase_jobs(job)
    assert (a.train.steps, a.train.epochs, a.train.warmup_steps, a.train.warmup_ratio) == (7, None, 2, None)
    assert (b.train.steps, b.train.epochs, b.train.warmup_steps, b.train.warmup_ratio) == (None, 3, None, 0.5)
    assert (c.train.steps, c.train.epochs, c.train.order) == (None, 2, "short_first")
    assert (a.train.lr, b.train.lr, b.train.trainable, b.train.schedule) == (1.0, 2e-5, "head", "constant")
    assert [one.train.phases for one in (a, b, c)] == [()] * 3
    assert [one.train.batch for one in (a, b, c)] == [4] * 3
    assert [one.lora.rank for one in (a, b, c)] == [4, 0, 4]
    assert [one.lora.merge for one in (a, b, c)] == [True, True, False]
    assert [one.model.path for one in (a, b, c)] == [None, "r/train/phases/a/export", "r/train/phases/b/export"]
    assert [str(one.home) for one in (a, b, c)] == [f"r/train/phases/{name}" for name in "abc"]
    assert [str(one.results) for one in (a, b, c)] == ["r/train/phases/a", "r/train/phases/b", "r/train"]
    assert [str(one.data) for one in (a, b, c)] == ["r", "runs/b", "r"]
    assert [one.train.export_dtype for one in (a, b, c)] == ["float32", "float32", "bfloat16"]
    assert [one.train.export_unless_stopping for one in (a, b, c)] == [True, True, False]


def test_a_phase_that_says_two_things_is_named() -> None:
    train = Train(phases=(Phase(name="a", steps=7, epochs=1),))
    job = Job(run=Path("r"), seed=1, model=Model(), train=train, resume="")
    with pytest.raises(ConfigError, match=r"\[\[train.phases\]\] 'a': epochs = 1 and steps = 7 are both set; drop one"):
        phase_jobs(job)


def test_adapters_that_no_phase_trains_are_refused() -> None:
    phases = (Phase(name="a", lora=False), Phase(name="b", lora=False))
    job = Job(run=Path("r"), seed=0, model=Model(), lora=Lora(rank=2), train=Train(phases=phases), resume="")
    with pytest.raises(ConfigError, match=r"\[lora\] rank = 2 and every phase has lora = false"):
        phase_jobs(job)


def test_a_constant_phase_of_a_falling_training_needs_no_word_more() -> None:
    phases = (Phase(name="a", schedule="constant"), Phase(name="b"))
    job = Job(run=Path("r"), seed=0, model=Model(), train=Train(min_lr_ratio=0.0, phases=phases), resume="")
    assert [(one.train.schedule, one.train.min_lr_ratio) for one in phase_jobs(job)] == [
        ("constant", 0.1),
        ("cosine", 0.0),
    ]
