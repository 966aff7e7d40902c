"""What a terminal and a log say of the time that is left."""

import io
import re

import pytest
from rich.console import Console

from trainer.report.console import Reporter, aligned, duration, said_bytes, short


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0s"), (59.4, "59s"), (60, "1m00s"), (3599.7, "1h00m"), (7500, "2h05m")]
)
def test_a_length_of_time_reads_as_people_say_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_plain_line_says_when_it_will_be_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([100.0, 130.0, 140.0])
    monkeypatch.setattr("trainer.report.console.time.monotonic", lambda: next(now))
    reporter = Reporter(is_silent=False)
    reporter.start(done=10, total=40)
    reporter.show(20, 40, loss=1.0, val_loss=None, speed=None, must=True)
    reporter.show(40, 40, loss=None, val_loss=2.0, speed=None, must=True)
    assert capsys.readouterr().out.splitlines() == [
        "step 20/40  loss 1.0000  ETA 1m00s",
        "step 40/40  validation 2.0000",
    ]


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (870.4, "870"), (999.6, "1k"), (12_345, "12.3k"), (999_600, "1M"), (4.56e6, "4.56M"), (2e9, "2G")],
)
def test_a_number_fits_into_five_characters(number: float, said: str) -> None:
    assert short(number) == said


@pytest.mark.parametrize(
    ("n", "said"), [(12, "12 B"), (999_999, "1000 kB"), (1_250_000_000, "1.25 GB"), (141e9, "141 GB")]
)
def test_a_size_reads_as_people_say_it(n: float, said: str) -> None:
    assert said_bytes(n) == said


def test_rows_stand_below_each_other() -> None:
    assert aligned({"a": "1", "long": "2"}) == ["a     1", "long  2"]
    assert aligned({}) == []


@pytest.mark.parametrize("total", [9, 100_000])
def test_the_live_line_fits_into_80_columns_and_keeps_the_last_validation_loss(
    monkeypatch: pytest.MonkeyPatch, total: int
) -> None:
    screen = io.StringIO()
    reporter = Reporter(is_silent=False)
    monkeypatch.setattr(reporter, "_console", Console(file=screen, force_terminal=True, width=80, color_system=None))
    reporter.start(done=0, total=total)
    for i, val_loss in ((1, None), (3, 4.5407), (8 * total // 9, None)):
        reporter.show(i, total, loss=12.82051, val_loss=val_loss, speed=1_253_124.0, mfu=0.411, must=True)
    assert reporter._progress is not None
    reporter._progress.refresh()
    lines = [line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())) if line]
    reporter.stop()
    assert max(map(len, lines)) <= 80
    assert f"step {8 * total // 9}/{total} " in lines[-1]
    assert "loss 12.8205  val 4.5407  1.25M tok/s  MFU 41%" in lines[-1]
