"""Trackers: the real packages, written to and read back."""

import json
import sqlite3
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.metrics import Metrics
from schemas.settings import ConfigError
from trainer.report.console import Reporter
from trainer.report.metrics import append
from trainer.report.recorder import Recorder
from trainer.report.trackers import Trackers, Tracking, values_of

SETTINGS = {"train.lr": 0.003, "train.schedule": "cosine", "model.tie_word_embeddings": True}


def line(step: int, *, loss: float | None = None, **fields: Any) -> Metrics:
    given: dict[str, Any] = {"epoch": 0, "lr": 1e-3, "grad_norm": None, "tokens": 10 * step, "supervised": 4 * step}
    given |= {"tokens_per_s": None, "val_loss": None, "seconds": 0.5 * step}
    return Metrics(step=step, loss=10.0 - step if loss is None else loss, **given | fields)


def recorder(home: Path, *names: str, said: Callable[[str], None] = print) -> Recorder:
    home.mkdir(exist_ok=True)
    trackers = Trackers(names, home, title="run", settings=SETTINGS, say=said)
    return Recorder(home, Reporter(is_silent=True), is_first=True, trackers=trackers)


def train(home: Path, name: str, *, start: int, stop: int) -> None:
    """Record the steps after `start` up to `stop`, as a process that resumes from a checkpoint does."""
    own = recorder(home, name)
    own.cut(start, is_done=False)
    for step in range(start + 1, stop + 1):
        own.write(line(step, val_loss=5.0 if step % 3 == 0 else None))
    own.close()


def test_numbers_get_their_tags_and_what_is_not_finite_is_left_out() -> None:
    found = values_of(
        line(
            3,
            val_loss=2.0,
            perplexity=float("inf"),
            val_loss_by_source={"a/b.jsonl": 1.5},
            val_loss_by_tag={"domain:code": 1.25},
            phase="easy",
        )
    )
    assert found == {
        "train/epoch": 0.0,
        "train/loss": 7.0,
        "train/lr": 1e-3,
        "train/tokens": 30.0,
        "train/supervised": 12.0,
        "train/seconds": 1.5,
        "validation/loss": 2.0,
        "validation/loss of a/b.jsonl": 1.5,
        "validation/loss of tag domain:code": 1.25,
    }


def test_an_absent_package_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)  # as the import system marks what cannot be imported
    with pytest.raises(ConfigError, match=r'\[train\] track = "trackio".*pip install trackio'):
        recorder(tmp_path, "trackio")
    assert list(tmp_path.iterdir()) == []


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    own = recorder(tmp_path)
    own.cut(0, is_done=False)
    own.write(line(1))
    own.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_every_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, "tensorboard", start=0, stop=7)
    train(tmp_path, "tensorboard", start=4, stop=9)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert losses == [(step, 10.0 - step) for step in range(1, 10)]
    assert [event.step for event in events.Scalars("validation/loss")] == [3, 6, 9]
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"train.lr" in content
    assert b"cosine" in content


@pytest.mark.filterwarnings("ignore")
def test_wandb_goes_on_under_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    train(tmp_path, "wandb", start=0, stop=7)
    train(tmp_path, "wandb", start=4, stop=9)
    name = json.loads((tmp_path / "tracking.json").read_bytes())["id"]
    files = [path for path in sorted((tmp_path / "wandb").rglob("*.wandb")) if not path.parent.is_symlink()]
    assert [path.name for path in files] == [f"run-{name}.wandb"] * 2
    assert [wandb_losses(path) for path in files] == [
        {step: 10.0 - step for step in range(1, 8)},
        {8: 2.0, 9: 1.0},  # steps 5 to 7 had been sent before
    ]
    assert b"train.schedule" in files[0].read_bytes()


def wandb_losses(path: Path) -> dict[int, float]:
    """Return the losses in W&B's file, a log of LevelDB's format after seven bytes, by step."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole, found = path.read_bytes(), 7, b"", dict[int, float]()
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:  # no header fits into the rest of a block
            at += 32_768 - at % 32_768
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            record = wandb_internal_pb2.Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                found[row["_step"]] = row["train/loss"]
    return found


@pytest.mark.filterwarnings("ignore")
def test_trackio_has_every_step_once_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    train(tmp_path / "home", "trackio", start=0, stop=7)
    train(tmp_path / "home", "trackio", start=4, stop=9)
    (database,) = (tmp_path / "trackio").rglob("chatloom*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select step, metrics from metrics order by step").fetchall()
    assert [step for step, _ in rows] == list(range(1, 10))
    assert json.loads(rows[-1][1])["train/loss"] == 1.0


class Broken:
    """A tracker's package that works until the network is gone."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def init(self, **_: Any) -> "Broken":
        return self

    def log(self, values: dict[str, float], *, step: int) -> None:
        assert values
        if step == 3:
            raise ConnectionError("no route to host\nand much more")
        self.got.append(step)

    def finish(self) -> None:
        raise AssertionError("it has been given up")


def test_one_that_fails_is_given_up_with_one_warning_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, said = Broken(), list[str]()
    monkeypatch.setitem(sys.modules, "trackio", broken)  # type: ignore[misc]
    own = recorder(tmp_path, "trackio", said=said.append)
    own.cut(0, is_done=False)
    for step in range(1, 6):
        own.write(line(step))
    own.close()
    assert broken.got == [1, 2]
    assert said == [
        "warning: trackio failed, and gets nothing more: no route to host. Training goes on; metrics.jsonl has it all"
    ]
    assert len((tmp_path / "metrics.jsonl").read_bytes().splitlines()) == 5


def test_what_was_ever_sent_is_remembered_through_any_number_of_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent up to 7, cut to 2, crashed again at 3: steps 3 to 7 are still not sent a second time."""
    for step in range(1, 8):
        append(tmp_path / "metrics.jsonl", line(step))
    for _ in range(2):
        fake = Broken()
        monkeypatch.setitem(sys.modules, "trackio", fake)  # type: ignore[misc]
        own = recorder(tmp_path, "trackio")
        own.cut(2, is_done=False)
        own.write(line(4))
        own.write(line(8))
        assert fake.got == [8]
        (tmp_path / "metrics.jsonl").write_bytes(b"")
        append(tmp_path / "metrics.jsonl", line(3))
        seen = json.loads((tmp_path / "tracking.json").read_bytes())["seen"]
        assert seen == Tracking(id="x", seen=7).seen
