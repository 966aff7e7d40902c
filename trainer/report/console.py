"""What a person sees while a model trains: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

QUIET_SECONDS = 5.0
"""Without a terminal, a line at most this often, so that a log stays readable."""


def printable(text: str) -> str:
    """Return `text` with every character escaped that could move the cursor, colour or reverse what is shown."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def duration(seconds: float) -> str:
    """Return a length of time as a person says it: 45s, 3m12s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def short(number: float) -> str:
    """Return a number in at most five characters: 870, 12.3k, 4.56M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{letter}" if number < 999.5 * size else f"{number / size:.0f}{letter}"
    return f"{number:.0f}"


def said_bytes(n: float) -> str:
    """Return a number of bytes as a person says it: 830 kB, 1.25 GB."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= size:
            return f"{n / size:.3g} {unit}" if n < 999.5 * size else f"{n / size:.0f} {unit}"
    return f"{n:.0f} B"


def aligned(rows: Mapping[str, str]) -> list[str]:
    """Return a line for each row: its name, and what it says, one below the other."""
    width = max(map(len, rows), default=0)
    return [f"{name:<{width}}  {value}" for name, value in rows.items()]


class Reporter:
    """Speaks for rank 0; every other rank's is silent."""

    def __init__(self, *, is_silent: bool) -> None:
        self._console = Console(quiet=is_silent, highlight=False, soft_wrap=True)
        self._is_silent = is_silent
        self._progress: Progress | None = None
        self._last_line = 0.0
        self._val_loss: float | None = None
        self._began, self._done = 0.0, 0

    def say(self, text: str) -> None:
        """Print lines, above the live one if there is one."""
        self._console.print(Text(printable(text)))

    def start(self, *, done: int, total: int) -> None:
        """Open the live line at `done` of `total` steps."""
        self._began, self._done = time.monotonic(), done
        if self._is_silent or not self._console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(None),  # as wide as the rest leaves it
            TextColumn("{task.description}"),
            _Eta(),
            console=self._console,
            transient=True,
            expand=True,
        )
        self._progress.start()
        self._progress.add_task("", total=total, completed=done)

    def show(
        self,
        step: int,
        total: int,
        *,
        loss: float | None,
        val_loss: float | None,
        speed: float | None,
        mfu: float | None = None,
        must: bool,
    ) -> None:
        """Tell how step `step` went; `must` prints it even to a log that has just had a line."""
        if self._progress is not None and val_loss is None:
            val_loss = self._val_loss  # a live line keeps showing the last one
        self._val_loss = val_loss
        is_live = self._progress is not None  # where a line must fit into 80 columns
        parts = [f"loss {loss:.4f}"] if loss is not None else []
        parts += [f"{'val' if is_live else 'validation'} {val_loss:.4f}"] if val_loss is not None else []
        parts += [f"{short(speed) if is_live else f'{speed:,.0f}'} tok/s"] if speed is not None else []
        parts += [f"MFU {mfu:.0%}"] if mfu is not None else []
        text = "  ".join(parts)
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=step, description=text)
            return
        now = time.monotonic()
        if must or now - self._last_line >= QUIET_SECONDS:
            self._last_line = now
            self.say(f"step {step}/{total}  {text}{self._remaining(step, total, now)}")

    def _remaining(self, step: int, total: int, now: float) -> str:
        if step <= self._done or step >= total:
            return ""
        return f"  ETA {duration((total - step) * (now - self._began) / (step - self._done))}"

    def stop(self) -> None:
        """Close the live line."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Eta(ProgressColumn):
    """Time that remains."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        left = task.time_remaining
        return Text("" if left is None else f"ETA {duration(left)}", no_wrap=True)
