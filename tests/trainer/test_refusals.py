"""What the command refuses: with which words, which exit code, and without touching what is there."""

import json
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.trainer import processes
from trainer.entry import main

SHORT = ("--set", "train.steps=3", "--set", "train.n_samples=0")


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def trained(run: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main([str(run / "config.toml"), *SHORT]) == 0
    capsys.readouterr()
    return run


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (("model.num_key_value_heads=3",), 2, "does not divide"),
        (("train.warmup_steps=3",), 2, "the warm-up would last 3 of 3 steps"),
        (("train.n_samples=1", "generation.max_new_tokens=256"), 2, "leaves no room for a prompt"),
        (
            (
                "model.model_type='gpt2'",
                "model.num_key_value_heads=4",
                "model.max_position_embeddings=1073741824",
                "model.hidden_size=65536",
            ),
            2,
            "cpu: out of memory",
        ),
        (("lenght.min_chars=1",), 2, "unknown section 'lenght'; did you mean 'length'?"),
        (("train.lr=inf",), 2, "[train] lr = inf"),
        (("train.eps=nan",), 2, "[train] eps = nan"),
    ],
)
def test_fresh_removes_nothing_when_the_job_cannot_work(
    changes: Sequence[str], code: int, said: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(trained / "train")
    words = [word for change in changes for word in ("--set", change)]
    assert main([str(trained / "config.toml"), *SHORT, *words, "--fresh"]) == code
    assert said in capsys.readouterr().err
    assert snapshot(trained / "train") == before


def test_fresh_removes_nothing_when_the_model_is_broken(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trained / "model").mkdir()
    (trained / "model" / "config.json").write_text("[]")
    text = (trained / "config.toml").read_text()
    start, end = text.index("[model]"), text.index("[train]")
    (trained / "config.toml").write_text(f'{text[:start]}[model]\npath = "{trained}/model"\n{text[end:]}')
    before = snapshot(trained / "train")
    assert main([str(trained / "config.toml"), *SHORT, "--fresh"]) == 2
    assert "config.json: expected an object, got list" in capsys.readouterr().err
    assert snapshot(trained / "train") == before


def test_a_model_inside_what_fresh_removes_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (trained / "config.toml").read_text()
    start, end = text.index("[model]"), text.index("[train]")
    model = f'[model]\npath = "{trained}/pack/../train/export"\n'
    (trained / "config.toml").write_text(f"{text[:start]}{model}{text[end:]}")
    before = snapshot(trained / "train")
    for fresh in ([], ["--fresh"]):
        assert main([str(trained / "config.toml"), *SHORT, *fresh]) == 2
        assert "which this very run writes" in capsys.readouterr().err
    assert snapshot(trained / "train") == before


def test_checkpoints_of_which_none_is_whole_stop_it_and_stay(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint,) = (trained / "train" / "checkpoints").iterdir()
    (checkpoint / "model.safetensors").write_bytes(b"")
    before = snapshot(trained / "train")
    for _ in range(2):
        assert main([str(trained / "config.toml"), *SHORT]) == 3
        error = capsys.readouterr().err
        assert "step-00000003: corrupt checkpoint (model.safetensors" in error
        assert "--fresh" in error
    assert snapshot(trained / "train") == before
    assert main([str(trained / "config.toml"), *SHORT, "--fresh"]) == 0


def test_fresh_belongs_to_the_first_of_several_starts(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = [str(trained / "config.toml"), *SHORT, "--fresh"]
    for start, is_first in (("one", True), ("one", False), ("two", True)):
        monkeypatch.setenv("CHATLOOM_START", start)
        assert main(fresh) == 0
        assert ("already finished at step 3" in capsys.readouterr().out) != is_first
    monkeypatch.delenv("CHATLOOM_START")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun's, where nobody gave one
    for count, is_first in (("0", True), ("1", False), ("0", True)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        assert main(fresh) == 0
        assert ("already finished at step 3" in capsys.readouterr().out) != is_first


def test_another_tokenizer_beside_the_packs_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "tokenizer" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text())))  # the same tokenizer, yet other bytes
    assert main([str(run / "config.toml"), *SHORT]) == 3
    assert "tokenizer.json: not the file that the packs were made with" in capsys.readouterr().err
    assert not (run / "train").exists()


def test_a_place_that_cannot_be_written_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "train").mkdir()
    (run / "train" / "checkpoints").write_text("in the way")
    assert main([str(run / "config.toml"), *SHORT]) == 4
    error = capsys.readouterr().err
    assert "checkpoints/step-00000003: could not be written: " in error


def with_little_room(*words: str) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    return main(words)


def test_a_full_disk_ends_it_with_the_name_of_the_file(run: Path) -> None:
    done = processes.Ranks(with_little_room, str(run / "config.toml"), *SHORT).wait()
    assert done.codes == [4], done.err
    assert f"error: {run}/train/checkpoints/step-00000003: could not be written: " in done.err
    assert "Traceback" not in done.err
    assert list((run / "train" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("kind", ["plan", "warm-up", "tokenizer", "disk"])
def test_what_is_wrong_on_every_rank_is_said_once(kind: str, trained: Path) -> None:
    words, said = list(SHORT), ""
    if kind == "plan":
        words, said = [*SHORT, "--set", "train.lr=1e-4"], "was trained with another plan"
    elif kind == "warm-up":
        words, said = [*SHORT, "--set", "train.warmup_steps=3"], "the warm-up would last 3 of 3 steps"
    elif kind == "disk":
        shutil.rmtree(trained / "train" / "checkpoints")
        (trained / "train" / "checkpoints").write_text("in the way")
        said = "could not be written"
    else:
        (trained / "tokenizer" / "tokenizer.json").write_text("{}")
        said = "not the file that the packs were made with"
    done = processes.train(trained / "config.toml", *words, world=2).wait()
    assert 0 not in done.codes
    assert done.err.count(said) == 1
    assert "trainer/entry.py" not in done.err, "a rank ended with a traceback"


def test_a_dry_run_says_what_would_become_of_the_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def line(*words: str) -> str:
        assert main([str(trained / "config.toml"), "--dry-run", *words]) == 0
        rows = {text[:17].strip(): text[18:] for text in capsys.readouterr().out.splitlines()}
        assert rows["learning rate"] == "0.005, cosine"
        return rows["checkpoint"]

    before = snapshot(trained / "train")
    assert line(*SHORT) == "step-00000003 of 3: already finished"
    assert line().startswith("step-00000003: would be refused: ")
    (trained / "train" / "checkpoints" / "step-00000003" / "state.json").write_text("{")
    assert line() == "none of 1 is whole: would be refused; --fresh starts over"
    shutil.rmtree(trained / "train" / "checkpoints")
    assert line() == "none"
    before = {path: data for path, data in before.items() if not path.startswith("checkpoints")}
    assert snapshot(trained / "train") == before


def test_a_dry_run_says_how_a_model_is_changed_to_fit(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained / "model"
    shutil.copytree(trained / "train" / "export", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:2]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    text = (trained / "config.toml").read_text()
    start, end = text.index("[model]"), text.index("[train]")
    (trained / "config.toml").write_text(f'{text[:start]}[model]\npath = "{model}"\n{text[end:]}')
    assert main([str(trained / "config.toml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "embedding         would be grown from 300 to 304 rows" in out
    assert f"warning: {model}/tokenizer.json has 303 tokens, the run's tokenizer 304" in out
