"""The command a person gives: real processes, killed, stopped, resumed, on one rank and on two."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.trainer import processes
from tests.trainer.conftest import used_bytes
from trainer.entry import main

TOTAL = 40
EXPORT = "export/model.safetensors"
SAMPLED = [0, 0, 10, 10, 20, 20, 30, 30, TOTAL, TOTAL]
"""Steps of the lines of samples.jsonl: two prompts, before training and at each evaluation."""


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]


def curve(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run)[1:]]


def weights(run: Path, step: int = TOTAL) -> list[bytes]:
    home = run / "train" / "checkpoints" / f"step-{step:08d}"
    return [path.read_bytes() for path in sorted(home.glob("*.safetensors"))]


def has_step(run: Path, step: int) -> Callable[[], bool]:
    path = run / "train" / "metrics.jsonl"
    return lambda: path.exists() and path.read_bytes().count(b"\n") > step


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    config = target / "config.toml"
    config.write_text(config.read_text().replace(str(source), str(target)))
    return target


@pytest.fixture(scope="module")
def alone(write_run_once: Callable[[str], Path]) -> Path:
    """A run trained to its end by one process, undisturbed."""
    run = write_run_once("alone")
    processes.completed(processes.train(run / "config.toml"))
    return run


@pytest.fixture(scope="module")
def pair(write_run_once: Callable[[str], Path]) -> Path:
    """The same, by two ranks."""
    run = write_run_once("pair")
    processes.completed(processes.train(run / "config.toml", world=2))
    return run


def test_every_step_is_logged_once_and_the_loss_falls(alone: Path) -> None:
    lines = metrics(alone)
    assert [line["step"] for line in lines] == list(range(TOTAL + 1))
    assert [line["epoch"] for line in lines[1:]] == [step // 5 for step in range(TOTAL)]
    assert [line["step"] for line in lines if line["val_loss"] is not None] == [0, 10, 20, 30, 40]
    assert lines[-1]["val_loss"] < 0.6 * lines[0]["val_loss"]
    assert lines[1]["lr"] == pytest.approx(2.5e-3)
    assert [line["lr"] for line in lines[2:4]] == [5e-3, 5e-3]
    assert 5e-4 < lines[-1]["lr"] < 5.2e-4
    tokens_of_epoch = lines[5]["tokens"]
    assert lines[-1]["tokens"] == 8 * tokens_of_epoch
    assert lines[-1]["supervised"] == 8 * lines[5]["supervised"] < lines[-1]["tokens"]


def test_samples_are_written_before_training_and_at_each_evaluation(alone: Path) -> None:
    samples = [json.loads(line) for line in (alone / "train" / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == SAMPLED
    for before, after in zip(samples[:2], samples[-2:], strict=True):
        assert {k: before[k] for k in ("id", "split", "prompt", "expected")} == {
            k: after[k] for k in ("id", "split", "prompt", "expected")
        }
        assert before["split"] == "validation"
        assert before["prompt"].endswith("<|im_start|>assistant\n")
        assert before["expected"].endswith("<|im_end|>")
        assert before["answer"] != after["answer"]


def test_only_the_newest_checkpoints_are_kept(alone: Path) -> None:
    home = alone / "train" / "checkpoints"
    assert sorted(path.name for path in home.iterdir()) == ["step-00000030", "step-00000040"]


def test_two_ranks_have_the_loss_curve_of_one(alone: Path, pair: Path) -> None:
    ours, theirs = metrics(pair), metrics(alone)
    for a, b in zip(ours[1:14], theirs[1:14], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    for a, b in zip(ours, theirs, strict=True):
        assert (a["step"], a["epoch"], a["tokens"], a["supervised"]) == (
            b["step"],
            b["epoch"],
            b["tokens"],
            b["supervised"],
        )
    assert ours[0]["val_loss"] == pytest.approx(theirs[0]["val_loss"], abs=1e-6)
    assert ours[-1]["val_loss"] == pytest.approx(theirs[-1]["val_loss"], abs=1e-3)


def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_as_if_it_were_not(alone: Path, run: Path) -> None:
    rng = random.Random(4)
    words = (run / "config.toml", "--set", "train.checkpoint_every=1", "--set", "train.keep_checkpoints=3")
    n_killed = 0
    for _ in range(12):
        ranks = processes.train(*words)
        # at any moment: starting, stepping, in the middle of a checkpoint, of a sample, of the export
        ranks.processes[0].join(rng.uniform(0.05, 0.9))
        ranks.send(signal.SIGKILL)
        codes = ranks.wait().codes
        n_killed += codes == [-signal.SIGKILL]
        if codes == [0]:
            break
    processes.completed(processes.train(*words))
    assert n_killed >= 2
    assert weights(run) == weights(alone)
    assert curve(run) == curve(alone)
    assert [line["step"] for line in metrics(run)] == list(range(TOTAL + 1))
    assert metrics(run)[-1]["val_loss"] == metrics(alone)[-1]["val_loss"]
    samples = [json.loads(line)["step"] for line in (run / "train" / "samples.jsonl").read_text().splitlines()]
    assert samples == SAMPLED
    assert (run / "train" / EXPORT).read_bytes() == (alone / "train" / EXPORT).read_bytes()
    leftovers = [path.name for path in (run / "train").rglob(".*") if path.name != ".lock"]
    assert leftovers == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_next_step_and_says_how_to_continue(
    number: signal.Signals, code: int, alone: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = processes.train(run / "config.toml", "--set", "train.log_every=1")
    ranks.wait_for(has_step(run, 2))
    ranks.send(number)
    done = ranks.wait()
    assert done.codes == [code], done.err
    last_line = done.out.splitlines()[-1]
    assert last_line == f"{sys.executable} -m trainer {run}/config.toml --set train.log_every=1"
    stopped_at = metrics(run)[-1]["step"]
    assert max((run / "train" / "checkpoints").iterdir()).name == f"step-{stopped_at:08d}"
    if number is signal.SIGTERM:
        assert main([str(run / "config.toml")]) == 0
        assert f"resuming after step {stopped_at} of 40" in capsys.readouterr().out
        assert weights(run) == weights(alone)


def test_a_rank_that_dies_while_the_first_answers_ends_the_run_and_one_rank_finishes_it(alone: Path, run: Path) -> None:
    ranks = processes.train(run / "config.toml", world=2)
    answers = run / "train" / "samples.jsonl"
    ranks.wait_for(lambda: answers.exists() and answers.read_bytes().count(b"\n") > 4)
    ranks.send(signal.SIGKILL, rank=1)
    done = ranks.wait()
    assert done.codes[1] == -signal.SIGKILL
    assert done.codes[0] > 0
    out = processes.completed(processes.train(run / "config.toml")).out
    assert "resuming after step 20" in out or "resuming after step 10" in out
    for ours, theirs in zip(curve(run)[:14], curve(alone)[:14], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert curve(run)[-1] == pytest.approx(curve(alone)[-1], abs=1e-3)


def test_torchrun_starts_killed_ranks_again_and_they_end_as_if_nothing_had_been(pair: Path, run: Path) -> None:
    words = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m", "trainer"]
    # what is shared out among ranks ends in the same bits, and --fresh concerns the first start
    changes = ["--set", "train.shard_optimizer=true", "--fresh"]
    command = [sys.executable, "-m", "torch.distributed.run", *words, str(run / "config.toml"), *changes]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=processes.REPOSITORY, env=environment, text=True, **pipes) as agent:
        until = time.monotonic() + 60
        while not has_step(run, 12)() and agent.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        children = psutil.Process(agent.pid).children(recursive=True)
        (rank_1,) = [child for child in children if child.environ().get("RANK") == "1"]
        rank_1.kill()
        out, err = agent.communicate(timeout=120)
    assert agent.returncode == 0, err
    assert out.count("resuming after step 10 of 40") == 1
    checkpoint = f"checkpoints/step-{TOTAL:08d}/"
    files = sorted(path.name for path in (run / "train" / checkpoint).iterdir())
    assert files == ["model.safetensors", "optimizer-00000.safetensors", "optimizer-00001.safetensors", "state.json"]
    assert weights(run)[0] == weights(pair)[0]
    assert curve(run) == curve(pair)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_torn_checkpoint_is_left_for_the_one_before(
    name: str, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(alone, tmp_path / "run")
    torn = run / "train" / "checkpoints" / "step-00000040" / name
    torn.write_bytes(torn.read_bytes()[:-3])
    assert main([str(run / "config.toml")]) == 0
    out = capsys.readouterr().out
    assert "step-00000040: " in out
    assert "trying the checkpoint before it" in out
    assert "resuming after step 30 of 40" in out
    assert [line["step"] for line in metrics(run)] == list(range(TOTAL + 1))


def test_a_finished_run_says_so_and_is_left_as_it_is(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(alone, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (run / "train").rglob("*") if path.name != ".lock"}
    assert main([str(run / "config.toml")]) == 0
    out = capsys.readouterr().out
    assert "already finished at step 40" in out
    assert "--fresh starts over" in out
    assert "sample" not in out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_that_was_refused_its_export_gets_it_when_it_is_asked_for(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(alone, tmp_path / "run")
    shutil.rmtree(run / "train" / "export")
    assert main([str(run / "config.toml")]) == 0
    assert "exported to" in capsys.readouterr().out
    samples = [json.loads(line)["step"] for line in (run / "train" / "samples.jsonl").read_text().splitlines()]
    assert samples == SAMPLED


def test_a_run_at_constant_rate_may_be_made_longer(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    constant = [str(run / "config.toml"), "--set", "train.schedule=constant", "--set", "train.n_samples=0"]
    assert main([*constant, "--set", "train.steps=3"]) == 0
    assert main([*constant, "--set", "train.steps=3"]) == 0
    assert "More train.steps continue it" in capsys.readouterr().out
    assert main([*constant, "--set", "train.steps=5"]) == 0
    assert [line["step"] for line in metrics(run)] == [0, 1, 2, 3, 4, 5]


def test_another_plan_is_refused_naming_both_sides_and_fresh_starts_over(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(alone, tmp_path / "run")
    change = [str(run / "config.toml"), "--set", "train.lr=1e-3", "--set", "train.steps=3"]
    assert main(change) == 2
    error = capsys.readouterr().err
    assert "  steps: 40 in the checkpoint, 3 now" in error
    assert "  train.lr: 0.005 in the checkpoint, 0.001 now" in error
    assert "--fresh" in error
    assert main([*change, "--fresh"]) == 0
    assert [line["step"] for line in metrics(run)] == [0, 1, 2, 3]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_flipped_bit_in_a_shard_stops_every_rank(ranks: int, run: Path) -> None:
    shard = run / "pack" / "kept" / "train" / "00001.arrow"
    data = bytearray(shard.read_bytes())
    data[used_bytes(bytes(data))["labels"][0]] ^= 4
    shard.write_bytes(bytes(data))
    # the pack is read in the first epoch, so before the sixth step
    done = processes.train(run / "config.toml", "--set", "train.checkpoint_every=6", world=ranks).wait()
    assert 3 in done.codes
    assert 0 not in done.codes
    assert done.err.count("00001.arrow: row 0 (train.jsonl:") == 1
    assert "the pack is damaged: expected checksum" in done.err
    assert "chatloom data CONFIG --verify" in done.err
    assert not (run / "train" / "checkpoints").exists()


def test_divergence_names_the_step_and_its_conversations(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run / "config.toml"), "--set", "train.lr=1e9", "--set", "train.n_samples=0"]) == 3
    error = capsys.readouterr().err
    assert "train.jsonl:" in error
    assert "the weights were not changed by this step" in error.lower()
    assert "Lower [train] lr" in error


def test_missing_data_says_how_to_build_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "pack")
    assert main([str(run / "config.toml")]) == 3
    assert f"run `chatloom data CONFIG --run {run}` first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        ("train.epochs=2 train.steps=40", "epochs = 2 and steps = 40 are both set; drop one"),
        ("train.warmup_steps=2 train.warmup_ratio=0.1", "warmup_steps = 2 and warmup_ratio = 0.1 are both set"),
        ("train.learning_rate=1", "unknown key 'learning_rate'"),
        ("train.lr=-1", "[train] lr = -1"),
        ("model.num_key_value_heads=3", "num_key_value_heads 3 does not divide num_attention_heads 4"),
        ("model.path='x'", "path and hidden_size"),
        ("seed=-1", "seed = -1"),
    ],
)
def test_a_bad_config_exits_2_and_says_what_to_do(
    assignments: str, said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run / "config.toml"), *(word for one in assignments.split() for word in ("--set", one))]) == 2
    assert said in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run / "config.toml"), "--dry-run"]) == 0
    out = {line[:17].strip(): line[18:] for line in capsys.readouterr().out.splitlines()}
    assert out["model"] == "llama, 40,608 parameters, vocabulary 304"
    assert out["steps per epoch"] == "5"
    assert out["total steps"] == "40 (8.00 epochs, 2 warm-up)"
    assert out["arithmetic"] == "float32 on 1 × cpu"
    assert not (run / "train").exists()


def test_help_is_written_for_people_and_needs_no_torch() -> None:
    code = (
        "import sys, trainer.entry as e\n"
        "try: e.main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'rich', 'pyarrow', 'numpy', 'tokenizers'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    for option in ("CONFIG", "--run", "--set", "--fresh", "--dry-run", "torchrun", "exit codes"):
        assert option in done.stdout
