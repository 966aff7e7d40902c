"""What a run writes down as it goes: metrics.jsonl, trackers, and the line on the screen."""

from pathlib import Path
from typing import Final

import msgspec

from schemas.metrics import Metrics
from trainer.errors import storing
from trainer.evaluation import Evaluation
from trainer.report.console import Reporter
from trainer.report.metrics import append, cut_after, read_metrics, replace_last
from trainer.report.trackers import Trackers

STARVING: Final = 0.05
"""Share of the time spent waiting for data from which on a person is told."""
TRUSTED_SECONDS: Final = 10.0
"""Training time before that is said: the first reads come from a cold disk."""


class Recorder:
    """Keeps the records of rank 0; the other ranks' does nothing, so that all of them call it alike."""

    def __init__(self, home: Path, reporter: Reporter, *, is_first: bool, trackers: Trackers | None = None) -> None:
        self.metrics, self.samples = home / "metrics.jsonl", home / "samples.jsonl"
        self.reporter, self._is_first, self._trackers = reporter, is_first, trackers
        self._seconds = self._measured = self._waited = 0.0
        self._is_told = False

    def cut(self, n_steps: int, *, is_done: bool, owes_evaluation: bool = False) -> None:
        """Remove what was recorded after `n_steps`, from where training goes on; all of it if nothing is done yet.

        The samples after the last step are drawn again, and those of a step whose evaluation is still to come.
        """
        if self._is_first:
            last = n_steps if n_steps else -1
            before = read_metrics(self.metrics)
            cut_after(self.metrics, last)
            cut_after(self.samples, last - 1 if is_done or owes_evaluation else last)
            if self._trackers is not None:
                self._trackers.start(last - 1 if owes_evaluation else last, last=before[-1].step if before else -1)
            self._seconds = max((line.seconds for line in before if line.step <= last), default=0.0)

    def complete(self, n_steps: int, evaluation: Evaluation | None) -> None:
        """Add an evaluation to the line of step `n_steps`, the last that there is. Raises StorageError."""
        lines = read_metrics(self.metrics) if self._is_first and evaluation is not None else []
        if not lines or evaluation is None or lines[-1].step != n_steps:
            return
        line = msgspec.structs.replace(
            lines[-1],
            val_loss=evaluation.loss,
            perplexity=evaluation.perplexity,
            val_loss_by_source=evaluation.losses(),
            val_loss_by_tag=evaluation.losses_by_tag(),
        )
        with storing(self.metrics):
            replace_last(self.metrics, line)
        if self._trackers is not None:
            self._trackers.log(line)

    def write(self, line: Metrics) -> None:
        """Record one line. Raises StorageError."""
        if self._is_first:
            with storing(self.metrics):
                append(self.metrics, line)
            if self._trackers is not None:
                self._trackers.log(line)

    def show(self, line: Metrics, *, total: int, must: bool) -> None:
        """Show a line to the person who watches; `must` even if there has just been one."""
        self.reporter.show(
            line.step,
            total,
            loss=line.loss,
            val_loss=line.val_loss,
            speed=line.tokens_per_s,
            mfu=line.mfu,
            must=must,
        )
        self._watch_data(line)

    def close(self) -> None:
        """Let the trackers finish."""
        if self._trackers is not None:
            self._trackers.close()

    def _watch_data(self, line: Metrics) -> None:
        seconds, self._seconds = line.seconds - self._seconds, line.seconds
        self._measured += seconds
        self._waited += seconds * (line.data_share or 0.0)
        share = self._waited / self._measured if self._measured else 0.0
        if share > STARVING and self._measured >= TRUSTED_SECONDS and not self._is_told:
            self._is_told = True
            self.reporter.say(
                f"warning: {share:.0%} of the time goes into waiting for data, expected less than {STARVING:.0%}; keep the run "
                "on a local disk, or lower [train] batch if other programs need the disk"
            )
