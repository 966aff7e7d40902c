"""A build as a person watches it: one line per stage, a bar where there is a terminal."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status

from pipeline import progress
from pipeline.source import Chunk
from schemas.manifest import Manifest, ShardRecord


class TerminalProgress(progress.Progress):
    """Writes to `console`; plain lines when it is no terminal, and then a sign of life every 10 seconds."""

    def __init__(self, console: Console, check: Callable[[], None] = lambda: None) -> None:
        self._console, self._check = console, check
        self._bar: Progress | None = None
        self._task: Any = None
        self._status: Status | None = None
        self._done = self._total = 0
        self._last = time.monotonic()
        self._what = ""

    def compiling(self) -> None:
        """Say why the first build is slow."""
        self._print(
            "kernels", "compiled once for this version of the code, in the first build: up to a minute of its time"
        )

    def scanning(self, path: str, done: int, total: int) -> None:
        """Say how far the inputs have been looked at, where that takes its time."""
        self._check()
        text = f"{path}: {megabytes(done)} of {megabytes(total)}"
        if not self._console.is_terminal:
            if time.monotonic() - self._last > 10:
                self._last = time.monotonic()
                self._print("scanning", text)
        elif time.monotonic() - self._last > 0.5:
            self._last = time.monotonic()
            if self._bar is not None:
                self._bar.update(self._task, description=escape(f"scanning {text}"))
            elif self._status is None:
                self._status = self._console.status(escape(f"scanning {text}"))
                self._status.start()
            else:
                self._status.update(escape(f"scanning {text}"))

    def found(self, paths: Sequence[str], ignored: Sequence[str], chunks: Sequence[Chunk]) -> None:
        """Print how much there is."""
        self.close()
        size = sum(chunk.end - chunk.start for chunk in chunks)
        self._print("source", f"{len(paths)} file(s), {megabytes(size)}, {len(chunks)} shard(s)")
        read = {chunk.path for chunk in chunks}
        if empty := [path for path in paths if path not in read]:
            self._print("", f"without a record: {_named(empty)}")
        if ignored:
            self._print("", f"not read, of no known kind or of another split: {_named(ignored)}")

    def referred(
        self, name: str, paths: Sequence[str], n_records: int, unreadable: Mapping[str, int], directory: Path
    ) -> None:
        """Print what the corpus is compared with."""
        self._print(name, f"{n_records:,} record(s) of {', '.join(paths[:3])}{', ...' if paths[3:] else ''}")
        if unreadable:
            reasons = ", ".join(f"{why} {n:,}" for why, n in sorted(unreadable.items(), key=lambda pair: -pair[1]))
            self._print(
                "",
                f"{sum(unreadable.values()):,} could not be read, and are compared with nothing: {reasons}. See one: chatloom "
                f"look {directory} ingest --dropped",
            )

    def added(self, template: str, tokens: dict[str, int]) -> None:
        """Print which tokens are new: the trainer will have to make rows for them."""
        named = ", ".join(f"{text} = {i}" for text, i in tokens.items())
        self._print("tokenizer", f"{len(tokens)} token(s) added that template {template} declares: {named}")

    def started(self, stages: Sequence[str], n_stale: int, n_shards: int) -> None:
        """Begin a bar."""
        self.close()
        self._done, self._total, self._last = 0, n_stale, time.monotonic()
        self._what = stages[0] if len(stages) == 1 else f"{stages[0]} to {stages[-1]}"
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("shards"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=n_stale)
        elif n_stale != n_shards:
            self._print(self._what, f"{n_stale} of {n_shards} shards are not up to date")

    def advanced(self, stages: Sequence[str], records: Sequence[ShardRecord]) -> None:  # noqa: ARG002 - as declared
        """Move the bar."""
        self._check()
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
            if self._done == self._total:
                self.close()
        elif time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            self._print(self._what, f"{self._done} of {self._total} shards")

    def reading(self, stage: str, name: str, n_read: int, n_shards: int) -> None:
        """Say how far a stage over the corpus has come."""
        self._check()
        passes, at = divmod(n_read - 1, n_shards)
        text = f"reading {name} {at + 1}/{n_shards}" + (f", pass {passes + 1}" if passes else "")
        if self._bar is not None:
            self._bar.update(self._task, description=f"{stage}: {text}")
        elif time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            self._print(stage, text)

    def finished(self, manifest: Manifest, seconds: float | None) -> None:
        """Print a stage's line."""
        self._check()
        totals = manifest.totals
        n_dropped = sum(totals.dropped.values())
        line = f"{totals.kept:>11,} kept {n_dropped:>9,} dropped"
        if totals.tokens:
            line += f"  {totals.tokens:,} tokens"
        if totals.supervised:
            line += f", {totals.supervised / totals.tokens:.0%} trained"
        if totals.counts.get("records", totals.rows_in) != totals.rows_in:
            line += f"  of {totals.counts['records']:,} records"
        reasons = sorted(totals.dropped.items(), key=lambda pair: -pair[1])
        if reasons:
            line += "  " + ", ".join(f"{reason} {n:,}" for reason, n in reasons[:4]) + (", ..." if reasons[4:] else "")
        self._print(manifest.stage, line, "up to date" if seconds is None else f"{seconds:.2f} s")

    def close(self) -> None:
        """End the bar, or what stands in its place, if there is one."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, name: str, text: str, note: str = "") -> None:
        self._console.print(f"  {name:<11}{note:>11}  {text}", highlight=False, markup=False, soft_wrap=True)


def megabytes(size: int) -> str:
    """Return a number of bytes as people say it."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


def _named(paths: Sequence[str]) -> str:
    """Return how many files there are, and the names of the first."""
    return f"{len(paths)} ({', '.join(paths[:3])}{', ...' if paths[3:] else ''})"
