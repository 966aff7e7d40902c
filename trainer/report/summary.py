"""What was reached, said once at the end: losses, speed, where everything lies, and what to do with it."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.metrics import Metrics
from trainer.job import Job
from trainer.report.console import aligned, duration, said_bytes
from trainer.report.metrics import read_metrics

MOST_TAGS: Final = 8
"""Tags that a line names."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """A whole run in a few numbers, resumptions included."""

    n_steps: int = 0
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    first: Metrics | None = None
    """First line with a validation loss; before training, if its step is 0."""
    last: Metrics | None = None
    """Last line with a validation loss."""
    best: Metrics | None = None
    """The line with the lowest."""
    first_loss: float | None = None
    last_loss: float | None = None
    data_share: float | None = None
    """Share of the measured time in which rank 0 waited for data."""
    mfu: float | None = None
    memory_bytes: int | None = None


def totals(lines: Sequence[Metrics]) -> Totals:
    """Add up the lines of one training's metrics.jsonl."""
    if not lines:
        return Totals()
    validated = [line for line in lines if line.val_loss is not None]
    losses = [line.loss for line in lines if line.loss is not None]
    return Totals(
        n_steps=lines[-1].step,
        tokens=lines[-1].tokens,
        supervised=lines[-1].supervised,
        seconds=lines[-1].seconds,
        first=validated[0] if validated else None,
        last=validated[-1] if validated else None,
        best=min(validated, key=lambda line: line.val_loss or 0.0) if validated else None,
        first_loss=losses[0] if losses else None,
        last_loss=losses[-1] if losses else None,
        data_share=_mean_over_time(lines, "data_share"),
        mfu=_mean_over_time(lines, "mfu"),
        memory_bytes=max((line.memory_bytes for line in lines if line.memory_bytes is not None), default=None),
    )


def _mean_over_time(lines: Sequence[Metrics], field: str) -> float | None:
    total = seconds = before = 0.0
    for line in lines:
        value: float | None = getattr(line, field)
        if value is not None:
            total += value * (line.seconds - before)
            seconds += line.seconds - before
        before = line.seconds
    return total / seconds if seconds > 0 else None


def closing(job: Job) -> str:
    """Return lines that say what the finished training of `job` reached, where everything is, and what can be done with it."""
    lines = read_metrics(job.home / "metrics.jsonl")
    found = totals(lines)
    rows = loss_rows(found) | tag_rows(lines) | speed_rows(found)
    export = job.results / "export"
    rows |= {"model": str(export)} if export.is_dir() else {}
    rows |= {"adapter": str(job.results / "adapter")} if (job.results / "adapter").is_dir() else {}
    report = job.home / "report.html"
    rows |= {"report": str(report)} if report.is_file() else {}
    rows["records"] = f"{job.home} (metrics.jsonl, samples.jsonl, checkpoints)"
    if export.is_dir() and job.is_last:
        program, run = _program(job), shlex.quote(str(job.run))
        rows["talk to it"] = f"{program} chat {run}"
        rows["answer a file"] = f"{program} generate {run} --input prompts.jsonl"
    return "\n".join(aligned(rows))


def loss_rows(found: Totals) -> dict[str, str]:
    """Return what was lost before and after, for people."""
    rows = {}
    if found.last_loss is not None and found.first_loss is not None:
        rows["training loss"] = f"{found.first_loss:.4f} at first, {found.last_loss:.4f} at last"
    if found.first is None or found.last is None or found.best is None:
        return rows
    start, end = found.first.val_loss or 0.0, found.last.val_loss or 0.0
    when = "before training" if found.first.step == 0 else f"after {found.first.step:,} steps"
    text = f"{start:.4f} {when}, {end:.4f} after {found.last.step:,} steps"
    if found.best.step != found.last.step:
        text += f"; lowest: {found.best.val_loss:.4f} after {found.best.step:,}"
    rows["validation loss"] = text
    rows["perplexity"] = f"{_perplexity(start)} {when}, {_perplexity(end)} after {found.last.step:,} steps"
    return rows


def tag_rows(lines: Sequence[Metrics]) -> dict[str, str]:
    """Return the last validation loss of each tag, and the first, for people; nothing where none was asked for."""
    measured = [found for line in lines if (found := line.val_loss_by_tag)]
    if not measured:
        return {}
    before, after = measured[0], measured[-1]
    said = [
        f"{line_of(tag)} {loss:.4f}" + (f" (first {before[tag]:.4f})" if tag in before else "")
        for tag, loss in list(after.items())[:MOST_TAGS]
    ]
    more = f", and {len(after) - MOST_TAGS:,} more in metrics.jsonl" if len(after) > MOST_TAGS else ""
    return {"loss by tag": ", ".join(said) + more}


def line_of(tag: str) -> str:
    """Return a tag as part of a line: a line end in it is written as one."""
    return tag.replace("\n", "\\n")


def speed_rows(found: Totals) -> dict[str, str]:
    """Return what was done in which time, for people."""
    if not found.tokens:
        return {}
    share = found.supervised / found.tokens
    rows = {"tokens": f"{found.tokens:,}, of them {found.supervised:,} trained ({share:.0%})"}
    if found.seconds:
        text = f"{duration(found.seconds)} of training, {found.tokens / found.seconds:,.0f} tok/s"
        text += f", data {found.data_share:.1%} of step" if found.data_share is not None else ""
        text += f", MFU {found.mfu:.0%}" if found.mfu is not None else ""
        rows["time"] = text
    if found.memory_bytes is not None:
        rows["peak memory"] = f"{said_bytes(found.memory_bytes)} on rank 0"
    return rows


def _perplexity(loss: float) -> str:
    if loss >= 100:
        return f"e^{loss:.0f}"
    value = math.exp(loss)
    return f"{value:,.0f}" if 1000 <= value < 1e9 else f"{value:.4g}"


def _program(job: Job) -> str:
    """Return how the person who started this calls chatloom."""
    first = next(iter(shlex.split(job.resume)), "")
    return shlex.quote(first) if Path(first).name == "chatloom" else "chatloom"
