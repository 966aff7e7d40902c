"""report.html: one training on one page that needs nothing from elsewhere, for people who were not there."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from schemas.files import write_whole
from schemas.metrics import Metrics
from trainer.errors import storing
from trainer.job import Job
from trainer.report.chosen import different_settings
from trainer.report.console import printable, said_bytes
from trainer.report.curves import curves
from trainer.report.metrics import read_metrics
from trainer.report.summary import loss_rows, speed_rows, totals
from trainer.report.svg import STYLE, draw, inline, standalone

SHOWN: Final = 4000
"""Characters of a prompt or an answer that are on the page; samples.jsonl has all of them."""
PAGE_STYLE: Final = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1160px;padding:0 1rem;
color:#1f2937;background:#fff}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:1rem}svg.chart{width:100%;height:auto}
table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.25rem .9rem .25rem 0}td.n{text-align:right}
th{font-weight:600;white-space:nowrap}tr{border-bottom:1px solid #e5e7eb}pre,code{font:13px/1.45 ui-monospace,monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
.sample{border:1px solid #e5e7eb;border-radius:6px;padding:.8rem;margin:1rem 0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:1rem}
.pair h4,.sample h4{margin:.4rem 0 .2rem}
.dim{color:#6b7280}@media(prefers-color-scheme:dark){body{color:#e5e7eb;background:#111827}tr,.sample{border-color:#374151}
.dim{color:#9ca3af}}
"""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows of a line of samples.jsonl."""

    step: int
    id: str
    prompt: str
    expected: str
    answer: str
    is_stopped: bool


def write_report(job: Job, *, facts: Mapping[str, str], parameters: Sequence[str]) -> Path:
    """Write HOME/report.html and HOME/curves.svg from what lies in HOME, and return the page's path. Raises StorageError.

    `facts` stand at its head, `parameters` are the lines of trainer.trainable.Learning. Rank 0 alone calls it; ten thousand
    lines of metrics take less than 50 ms.
    """
    home = job.home
    lines = read_metrics(home / "metrics.jsonl")
    charts = {chart.title: draw(chart) for chart in curves(lines)}
    found = totals(lines)
    body = [
        _table(dict(facts) | loss_rows(found) | speed_rows(found)),
        '<h2>Curves</h2><div class="charts">',
        *(inline(title, chart) for title, chart in charts.items()),
        "</div>",
        _parts(lines, "source", lambda line: line.val_loss_by_source),
        _parts(lines, "tag", lambda line: line.val_loss_by_tag),
        _samples(_read_samples(home / "samples.jsonl")),
        "<h2>Settings that differ from the defaults</h2>",
        _table(different_settings(job), is_code=True),
        "<h2>Parameters</h2>",
        f"<pre>{_text(chr(10).join(parameters))}</pre>",
        _checkpoints(home / "checkpoints", found.best),
    ]
    name = job.run.name if job.phase is None else f"{job.run.name}, phase {job.phase}"
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_text(name)}: training</title><style>{PAGE_STYLE}{STYLE}</style></head><body>"
        f"<h1>{_text(name)}: training, {found.n_steps:,} steps</h1>{''.join(body)}</body></html>\n"
    )
    path = home / "report.html"
    with storing(path):
        write_whole(path, page.encode())
        write_whole(home / "curves.svg", standalone(charts).encode())
    return path


def _text(text: str) -> str:
    """Return hostile text as harmless HTML: nothing in it is markup, and nothing moves or reverses what is read."""
    return escape(printable(text))


def _table(rows: Mapping[str, str], *, is_code: bool = False) -> str:
    tag = "code" if is_code else "span"
    body = "".join(
        f"<tr><th>{_text(name)}</th><td><{tag}>{_text(value)}</{tag}></td></tr>" for name, value in rows.items()
    )
    return f"<table>{body}</table>" if rows else '<p class="dim">none</p>'


def _parts(lines: Sequence[Metrics], what: str, losses_of: Callable[[Metrics], Mapping[str, float] | None]) -> str:
    """Return the table of the losses of parts of the validation split, first and last."""
    measured = [(line.step, found) for line in lines if (found := losses_of(line))]
    if not measured:
        return ""
    (first, before), (last, after) = measured[0], measured[-1]
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="n">{_loss(before.get(name))}</td><td class="n">{_loss(loss)}</td></tr>'
        for name, loss in after.items()
    )
    head = f"<tr><th>{what}</th><th>step {first:,}</th><th>step {last:,}</th></tr>"
    return f"<h2>Validation loss by {what}</h2><table>{head}{rows}</table>"


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _read_samples(path: Path) -> list[Shown]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Shown))
        except msgspec.DecodeError:
            continue
    return found


def _samples(samples: Sequence[Shown]) -> str:
    """Return the answers of the first and of the last step that has any, side by side."""
    if not samples:
        return ""
    steps = [sample.step for sample in samples]
    start, end = min(steps), max(steps)
    before = {sample.id: sample for sample in samples if sample.step == start}
    blocks = []
    for after in (sample for sample in samples if sample.step == end):
        columns = [_answer(before[after.id])] if start < end and after.id in before else []
        columns += [_answer(after), _block("expected", after.expected)]
        blocks.append(
            f'<div class="sample"><div class="dim">{_text(after.id)}</div>{_block("prompt", after.prompt)}'
            f'<div class="pair">{"".join(columns)}</div></div>'
        )
    return f"<h2>Answers</h2>{''.join(blocks)}"


def _answer(sample: Shown) -> str:
    when = "before training" if sample.step == 0 else f"after {sample.step:,} steps"
    return _block(f"{when}{'' if sample.is_stopped else ' (cut off)'}", sample.answer)


def _block(name: str, text: str) -> str:
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} … ({len(text):,} characters)"
    return f"<div><h4>{_text(name)}</h4><pre>{_text(shown)}</pre></div>"


def _checkpoints(directory: Path, best: Metrics | None) -> str:
    rows = {}
    for path in sorted(directory.glob("step-*")) if directory.is_dir() else ():
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        is_best = best is not None and path.name.removeprefix("step-").lstrip("0") == str(best.step)
        rows[path.name] = said_bytes(size) + (", lowest validation loss" if is_best else "")
    return f"<h2>Checkpoints</h2>{_table(rows)}"
