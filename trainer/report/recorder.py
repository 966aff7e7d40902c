"""What a run writes down as it goes: metrics.jsonl, and the line on the screen."""

from pathlib import Path

from trainer.errors import storing
from trainer.report.console import Reporter
from trainer.report.metrics import Metrics, append, cut_after


class Recorder:
    """Keeps the records of rank 0; the other ranks' does nothing, so that all of them call it alike."""

    def __init__(self, home: Path, reporter: Reporter, *, is_first: bool) -> None:
        self.metrics, self.samples = home / "metrics.jsonl", home / "samples.jsonl"
        self.reporter, self._is_first = reporter, is_first

    def cut(self, n_steps: int, *, is_done: bool) -> None:
        """Remove what was recorded after `n_steps`, from where training goes on; all of it if nothing is done yet.

        The samples after the last step are drawn again.
        """
        if self._is_first:
            last = n_steps if n_steps else -1
            cut_after(self.metrics, last)
            cut_after(self.samples, last - 1 if is_done else last)

    def write(self, line: Metrics) -> None:
        """Record one line. Raises StorageError."""
        if self._is_first:
            with storing(self.metrics):
                append(self.metrics, line)

    def show(self, line: Metrics, *, total: int, must: bool) -> None:
        """Show a line to the person who watches; `must` even if there has just been one."""
        self.reporter.show(line.step, total, loss=line.loss, val_loss=line.val_loss, speed=line.tokens_per_s, must=must)
