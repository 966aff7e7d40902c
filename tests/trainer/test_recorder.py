"""What a run writes down, and when it says that data is what it waits for."""

from pathlib import Path

import pytest

from tests.trainer.test_curves import metrics
from trainer.report.console import Reporter
from trainer.report.meter import Meter, Window
from trainer.report.metrics import read_metrics
from trainer.report.recorder import Recorder


def show(home: Path, shares: list[float]) -> None:
    """Show a line after every 4 seconds of training, of which such shares were spent waiting."""
    recorder = Recorder(home, Reporter(is_silent=False), is_first=True)
    recorder.cut(0, is_done=False)
    for i, share in enumerate(shares, start=1):
        recorder.show(metrics(8 * i, data_share=share), total=1000, must=False)


@pytest.mark.parametrize(
    ("shares", "n_told"),
    [([0.04] * 9, 0), ([0.06] * 2, 0), ([0.06] * 3, 1), ([0.9] * 9, 1), ([0.12, 0.01, 0.01, 0.01], 0)],
)
def test_waiting_for_data_is_said_once_when_it_takes_more_than_a_twentieth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shares: list[float], n_told: int
) -> None:
    show(tmp_path, shares)
    assert capsys.readouterr().out.count("goes into waiting for data") == n_told


def test_after_a_resume_only_what_this_process_did_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Recorder(tmp_path, Reporter(is_silent=True), is_first=True)
    for step in (100, 200):
        first.write(metrics(step, data_share=0.0))
    second = Recorder(tmp_path, Reporter(is_silent=False), is_first=True)
    second.cut(100, is_done=False)
    assert [line.step for line in read_metrics(tmp_path / "metrics.jsonl")] == [100]
    second.show(metrics(130, data_share=0.5), total=1000, must=False)
    assert "warning: 50% of the time" in capsys.readouterr().out


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, Reporter(is_silent=True), is_first=False)
    recorder.cut(0, is_done=False)
    recorder.write(metrics(1))
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_lines_of_an_older_trainer_and_spoilt_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    old = (
        '{"step":5,"epoch":0,"loss":1.5,"lr":1e-3,"grad_norm":1.0,"tokens":10,"supervised":4,"tokens_per_s":2.0,'
        '"val_loss":null,"seconds":5.0}'
    )
    path.write_text(f'{old}\n{{"step": "six"}}\nrubbish\n{old.replace("5,", "7,", 1)}\n{old[:40]}')
    assert [(line.step, line.loss, line.mfu) for line in read_metrics(path)] == [(5, 1.5, None), (7, 1.5, None)]
    assert read_metrics(tmp_path / "absent") == []


def test_a_window_ends_where_the_next_begins() -> None:
    meter = Meter(tokens=1000, supervised=300, seconds=7.0)
    meter.add(tokens=100, supervised=50, seconds=2.0, waited=0.5, flops=1e9)
    meter.add(tokens=300, supervised=50, seconds=2.0, waited=0.1, flops=3e9)
    window = meter.take()
    assert window == Window(tokens=400, supervised=100, seconds=4.0, waited=0.6, flops=4e9)
    assert (window.tokens_per_s, window.supervised_share) == (100.0, 0.25)
    assert window.data_share == pytest.approx(0.15)
    assert meter.take() == Window()
    assert Window().data_share is Window().supervised_share is Window().tokens_per_s is None
    assert (meter.tokens, meter.supervised, meter.seconds) == (1400, 400, 11.0)
