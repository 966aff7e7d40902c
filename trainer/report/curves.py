"""The curves of a run: what its metrics become on paper."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import numpy as np

from schemas.metrics import Metrics
from trainer.report.svg import Chart, Floats, Line

SMOOTHED: Final = 0.03
"""Share of the points over which a smoothed line averages."""


def curves(lines: Sequence[Metrics]) -> list[Chart]:
    """Return the charts of a run: losses, learning rate, speed, gradient norm."""
    steps = continuous([line.step for line in lines])
    x, y = _points(lines, steps, "val_loss")
    validation = Line(name="validation", x=x, y=y, look="points")
    x, y = _points(lines, steps, "lr")
    rate = Line(name="learning rate", x=x, y=y)
    return [
        Chart(
            title="Loss",
            unit="nats per trained token",
            lines=(*_smoothed("train, smoothed", lines, steps, "loss"), validation),
        ),
        Chart(title="Learning rate", unit="per step", lines=(rate,)),
        Chart(title="Speed", unit="tokens per second", lines=_smoothed("smoothed", lines, steps, "tokens_per_s")),
        Chart(title="Gradient", unit="norm before clipping", lines=_smoothed("smoothed", lines, steps, "grad_norm")),
    ]


def continuous(steps: Sequence[int]) -> Floats:
    """Return steps that go on rising where one phase follows another and counts from 0 again."""
    found = np.asarray(steps, dtype=np.float64)
    if not len(found):
        return found
    before = np.concatenate([found[:1], found[:-1]])
    raised: Floats = found + np.cumsum(np.where(found < before, before, 0.0))
    return raised


def smooth(y: Floats) -> Floats:
    """Return the mean of each point and those around it, fewer at both ends; a spike moves it by its share only."""
    half = round(SMOOTHED * len(y) / 2)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    starts, ends = np.maximum(0, at - half), np.minimum(len(y), at + half + 1)
    means: Floats = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _smoothed(name: str, lines: Sequence[Metrics], steps: Floats, field: str) -> tuple[Line, Line]:
    x, y = _points(lines, steps, field)
    return Line(name=field, x=x, y=y, look="faint"), Line(name=name, x=x, y=smooth(y))


def _points(lines: Sequence[Metrics], steps: Floats, field: str) -> tuple[Floats, Floats]:
    # None becomes NaN
    y = np.array([*map(attrgetter(field), lines)], dtype=np.float64)
    is_there = np.isfinite(y)
    return steps[is_there], y[is_there]
