"""What a log says of the time that is left."""

import pytest

from trainer.report.console import Reporter, duration


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
