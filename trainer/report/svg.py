"""One chart as SVG: axes with round ticks and units, lines, points; readable by light and in the dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from trainer.report.console import short

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 40, 40
"""Room around the plot, in the pixels of the chart, for its title, ticks and units."""
BUCKETS: Final = 400
"""A line is thinned out to the lowest and the highest point of each of so many stretches."""
LOGARITHMIC_FROM: Final = 20.0
"""Ratio of the highest to the lowest value from which on an axis is logarithmic."""
STYLE: Final = """
.chart text{font:12px system-ui,sans-serif;fill:#6b7280}.chart .title{fill:#1f2937;font-size:14px;font-weight:600}
.chart path{fill:none;stroke-linejoin:round}.chart .paper{fill:#fff}.chart .grid{stroke:#e5e7eb;stroke-width:1}
.chart .faint{stroke:#2563eb;stroke-width:1;opacity:.3}.chart .main{stroke:#2563eb;stroke-width:1.8}
.chart .points{stroke:#c2410c;stroke-width:1.4}.chart .dot{fill:#c2410c}
.chart .key-main{fill:#2563eb}.chart .key-points{fill:#c2410c}
@media(prefers-color-scheme:dark){.chart text{fill:#9ca3af}.chart .title{fill:#e5e7eb}.chart .paper{fill:#111827}
.chart .grid{stroke:#374151}.chart .faint,.chart .main{stroke:#60a5fa}.chart .points{stroke:#fb923c}.chart .dot{fill:#fb923c}
.chart .key-main{fill:#60a5fa}.chart .key-points{fill:#fb923c}}
"""
"""Plain rules without variables, which viewers other than browsers do not know."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points from left to right, and how they are drawn: faint behind others, as a line, or as a line with dots."""

    name: str
    x: Floats
    y: Floats
    look: Literal["faint", "main", "points"] = "main"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What one chart shows."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    x_unit: str = "step"


def thin(x: Floats, y: Floats, buckets: int = BUCKETS) -> tuple[Floats, Floats]:
    """Return at most 2 · `buckets` + 2 of the points, in order: first, last, and each stretch's lowest and highest."""
    if len(x) <= 2 * buckets:
        return x, y
    size = -(-len(y) // buckets)
    rows = np.pad(y, (0, -len(y) % size), mode="edge").reshape(-1, size)
    starts = np.arange(len(rows)) * size
    at = np.concatenate([[0, len(y) - 1], starts + rows.argmin(1), starts + rows.argmax(1)])
    chosen = np.unique(np.minimum(at, len(y) - 1))
    return x[chosen], y[chosen]


def round_ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Return about `n` multiples of 1, 2 or 5 times a power of ten that lie from `low` to `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) if abs(step) > 1e-9 else i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten from `low` to `high`, and 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = -(-len(powers) // 8)
    sizes = (1, 2, 5) if len(powers) <= 4 else (1,)
    ticks = [size * 10.0**power for power in powers if power % every == 0 for size in sizes]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def draw(chart: Chart) -> str:
    """Return what a chart of WIDTH by HEIGHT consists of, as SVG, for `standalone` or `inline`."""
    body = [
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="18">{escape(chart.title)}</text>',
    ]
    lines = [line for line in chart.lines if len(line.x)]
    if lines:
        body += _plot(chart, lines)
    else:
        body.append(f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">nothing measured yet</text>')
    return "".join(body)


def standalone(drawn: Mapping[str, str], *, columns: int = 2) -> str:
    """Return charts, drawn, by their titles, side by side as a whole SVG document."""
    columns = min(columns, max(1, len(drawn)))
    width, height = columns * WIDTH, -(-len(drawn) // columns) * HEIGHT
    groups = [
        f'<g transform="translate({i % columns * WIDTH} {i // columns * HEIGHT})">{chart}</g>'
        for i, chart in enumerate(drawn.values())
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(", ".join(drawn))}"><style>{STYLE}</style>'
        f'<rect class="paper" width="{width}" height="{height}"/>{"".join(groups)}</svg>\n'
    )


def inline(title: str, drawn: str) -> str:
    """Return a chart for a page that has STYLE in its head, as wide as its place."""
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{drawn}</svg>'


def _plot(chart: Chart, lines: Sequence[Line]) -> list[str]:
    x_all, y_all = np.concatenate([line.x for line in lines]), np.concatenate([line.y for line in lines])
    low, high = float(y_all.min()), float(y_all.max())
    is_log = low > 0 and high / low >= LOGARITHMIC_FROM
    if not is_log:
        margin = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
        low, high = (low if 0 <= low < margin else low - margin), high + margin
        if float(y_all.min()) >= 0:
            low = max(0.0, low)
    left, right = float(x_all.min()), max(float(x_all.max()), float(x_all.min()) + 1)

    def at_x(value: Floats | float) -> Floats | float:
        return LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def at_y(value: Floats | float) -> Floats | float:
        share = np.log(value / low) / math.log(high / low) if is_log else (value - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    body = []
    for tick in log_ticks(low, high) if is_log else round_ticks(low, high):
        y = at_y(tick)
        body.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_said(tick)}</text>')
    body += [
        f'<text x="{at_x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_said(tick)}</text>'
        for tick in round_ticks(left, right, 6)
        if tick == round(tick)
    ]
    unit = f"{chart.unit}{', logarithmic' if is_log else ''}"
    body.append(f'<text x="{LEFT}" y="34">{escape(unit)}</text>')
    body.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(chart.x_unit)}</text>')
    for line in lines:
        body += _line(line, at_x(line.x), at_y(line.y))
    return body + _legend(lines)


def _line(line: Line, x: Floats | float, y: Floats | float) -> list[str]:
    x, y = thin(np.asarray(x), np.asarray(y))
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    drawn = [f'<path class="{line.look}" d="M{path}"/>']
    if len(line.x) == 1 or (line.look == "points" and len(line.x) <= 200):
        for a, b, step, value in zip(x.tolist(), y.tolist(), line.x.tolist(), line.y.tolist(), strict=True):
            said = escape(f"{line.name}, step {step:g}: {value:.4g}")
            drawn.append(f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="3"><title>{said}</title></circle>')
    return drawn


def _legend(lines: Sequence[Line]) -> list[str]:
    """Return the names of the lines at the upper right, the last one outermost."""
    named = [line for line in lines if line.look != "faint"]
    if len(named) < 2:
        return []
    body, right = [], float(WIDTH - RIGHT)
    for line in reversed(named):
        body.append(f'<text x="{right:g}" y="34" text-anchor="end">{escape(line.name)}</text>')
        right -= 6.6 * len(line.name) + 14
        body.append(f'<rect class="key-{line.look}" x="{right:g}" y="25" width="10" height="10" rx="2"/>')
        right -= 10
    return body


def _said(value: float) -> str:
    """Return a tick as people write it."""
    size = abs(value)
    if size >= 10_000:
        return ("-" if value < 0 else "") + short(size)
    if size and size < 0.001:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}"
