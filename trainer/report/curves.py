"""The curves of a run: what its metrics become on paper."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from trainer.report.metrics import Metrics
from trainer.report.svg import Chart, Floats, Line

SMOOTHED: Final = 0.03
"""Share of the points over which the smoothed loss averages."""


def curves(lines: Sequence[Metrics]) -> list[Chart]:
    """Return the charts of a run: losses, learning rate, speed, gradient norm."""
    steps = continuous([line.step for line in lines])
    x, loss = _points(lines, steps, lambda line: line.loss)
    losses = [
        Line(name="train", x=x, y=loss, look="faint"),
        Line(name="train, smoothed", x=x, y=smooth(loss)),
        _line("validation", lines, steps, lambda line: line.val_loss, look="points"),
    ]
    return [
        Chart(title="Loss", unit="nats per trained token", lines=tuple(losses)),
        Chart(title="Learning rate", unit="per step", lines=(_line("lr", lines, steps, lambda line: line.lr),)),
        Chart(
            title="Speed",
            unit="tokens per second",
            lines=(_line("tokens", lines, steps, lambda line: line.tokens_per_s),),
        ),
        Chart(
            title="Gradient",
            unit="norm before clipping",
            lines=(_line("norm", lines, steps, lambda line: line.grad_norm),),
        ),
    ]


def continuous(steps: Sequence[int]) -> Floats:
    """Return steps that go on rising where one phase follows another and counts from 0 again."""
    found = np.asarray(steps, dtype=np.float64)
    if not len(found):
        return found
    falls = np.diff(found, prepend=found[0]) < 0
    ends = np.where(falls, np.concatenate([found[:1], found[:-1]]), 0.0)
    raised: Floats = found + np.cumsum(ends)
    return raised


def smooth(y: Floats) -> Floats:
    """Return the running mean of the last few points, fewer at the beginning; a spike moves it by its share only."""
    n = max(1, round(SMOOTHED * len(y)))
    sums = np.concatenate([[0.0], np.cumsum(y)])
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(0, ends - n)
    means: Floats = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _points(lines: Sequence[Metrics], steps: Floats, value: Callable[[Metrics], float | None]) -> tuple[Floats, Floats]:
    y = np.array([np.nan if (v := value(line)) is None else v for line in lines], dtype=np.float64)
    is_there = np.isfinite(y)
    return steps[is_there], y[is_there]


def _line(
    name: str,
    lines: Sequence[Metrics],
    steps: Floats,
    value: Callable[[Metrics], float | None],
    *,
    look: str = "main",
) -> Line:
    x, y = _points(lines, steps, value)
    return Line(name=name, x=x, y=y, look="points" if look == "points" else "main")
