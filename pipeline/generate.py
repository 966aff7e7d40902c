"""Answers to a file of prompts, written to a file of predictions as they come."""

import shlex
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.answering import Answerer
from pipeline.excerpt import printable
from pipeline.kernel_cache import use_kernel_cache
from pipeline.predictions import Predictions
from pipeline.prompts import Prompt, Record, count_records, encode_prompts, read_records, scan_inputs
from pipeline.served import Served, find_served
from pipeline.source import Chunk
from schemas.answers import Answered, Ask, Opening, Ready, Refused
from schemas.errors import GateError
from schemas.settings import ConfigError

QUIET_SECONDS: Final = 10.0
"""Without a terminal, a line on how far it is at most this often."""
NAMED_ERRORS: Final = 20
"""Bad records that are said on the terminal; the file has all of them."""


def generate(
    model: str,
    *,
    inputs: Sequence[str],
    output: Path,
    assignments: Sequence[str],
    max_new_tokens: int | None,
    limit: int | None,
    fresh: bool,
) -> int:
    """Answer every record of `inputs` with `model` and return the exit code; see pipeline.cli for the arguments.

    A record without an answer is a line with its reason, and makes the exit code that of a GateError.
    """
    use_kernel_cache()
    console = Console(highlight=False, markup=False, soft_wrap=True)
    served = find_served(model, assignments, max_new_tokens=max_new_tokens)
    opening = Opening(generation=served.generation, stop_ids=served.stop_ids)
    with tempfile.TemporaryDirectory(prefix="chatloom-") as spool, Answerer(served.directory, opening) as answerer:
        chunks = scan_inputs(inputs, Path(spool))
        total = min(count_records(chunks), limit if limit is not None else sys.maxsize)
        _check_output(output, chunks)
        if fresh:
            output.unlink(missing_ok=True)
        predictions = Predictions(output, served.identity())
        try:
            with _Watch(console, total) as watch:
                work = _Work(served, answerer, predictions, watch)
                try:
                    work.run(islice(read_records(chunks, served), limit))
                except KeyboardInterrupt:
                    watch.close()
                    again = shlex.join(["chatloom", *(word for word in sys.argv[1:] if word != "--fresh")])
                    console.print(f"stopped; what is answered is kept in {output}. Go on with:\n{again}")
                    return 130
        finally:
            predictions.close()
        predictions.put_in_order(work.ids)
    return _summary(console, work, output)


def _check_output(output: Path, chunks: Sequence[Chunk]) -> None:
    """Raise ConfigError where predictions cannot go to `output`, before --fresh removes what is there."""
    if output.is_dir():
        raise ConfigError(f"{output}: is a directory; give the name of a file for --output")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: there is no directory {output.parent}; make it, or name another file (--output)")
    if not output.exists():
        return
    if not output.is_file():
        raise ConfigError(f"{output}: is no regular file, so it could not be continued; name another one (--output)")
    for path in dict.fromkeys(chunk.path for chunk in chunks):
        if Path(path).exists() and output.samefile(path):
            raise ConfigError(
                f"{output}: is an input; the predictions would take its place. Name another file (--output)"
            )


def _summary(console: Console, work: "_Work", output: Path) -> int:
    parts = [f"{work.n_answered:,} answered ({work.n_stopped:,} ended by themselves)"]
    parts += [f"{work.n_held:,} were there already"] if work.n_held else []
    parts += [f"{work.n_errors:,} with an error"] if work.n_errors else []
    console.print(f"{', '.join(parts)} -> {output}")
    if work.n_answered and not work.n_stopped:
        console.print("note: no answer ended by itself; raise generation.max_new_tokens, or train longer")
    return GateError.exit_code if work.n_errors else 0


class _Work:
    """The records under way, from the input to the file, in order."""

    def __init__(self, served: Served, answerer: Answerer, predictions: Predictions, watch: "_Watch") -> None:
        self.served, self.answerer, self.predictions, self.watch = served, answerer, predictions, watch
        self.ids: list[str] = []
        self.n_answered = self.n_stopped = self.n_held = self.n_errors = 0
        self._order: deque[Prompt] = deque()
        """What is asked or done and not yet written."""
        self._asked: dict[int, Prompt] = {}
        self._done: dict[int, Answered | str] = {}

    def run(self, records: Iterator[Record]) -> None:
        """Ask for as much as keeps the model busy, and write what comes back."""
        ready = self.answerer.wait_ready()
        self.watch.say(f"{self.served.directory}: {_size(ready)} parameters, {ready.dtype}, {ready.device}")
        window = 2 * self.served.generation.batch + 1
        prompts = encode_prompts(self._new(records), self.served)
        is_more = True
        while is_more or self._asked:
            while is_more and len(self._asked) < window:
                prompt = next(prompts, None)
                is_more = prompt is not None
                if prompt is not None:
                    self._ask(prompt)
            if self._asked:
                self._hear()
            self._write()

    def _new(self, records: Iterator[Record]) -> Iterator[Record]:
        """Yield the records that have no prediction yet."""
        for record in records:
            self.ids.append(record.id)
            if self.predictions.holds(record):
                self.n_held += 1
                self.watch.advance(0)
            else:
                yield record

    def _ask(self, prompt: Prompt) -> None:
        index = prompt.record.index
        self._order.append(prompt)
        if prompt.error is not None:
            self._done[index] = prompt.error
            return
        self._asked[index] = prompt
        # the seed goes by the record, so that it is the same when an interrupted file is continued
        self.answerer.send(Ask(key=index, input_ids=prompt.input_ids, seed=self.served.seed + index))

    def _hear(self) -> None:
        reply = self.answerer.receive()
        assert isinstance(reply, Answered | Refused)
        del self._asked[reply.key]
        self._done[reply.key] = reply.reason if isinstance(reply, Refused) else reply
        self.watch.advance(len(reply.ids) if isinstance(reply, Answered) else 0)

    def _write(self) -> None:
        """Write what is next in the order of the records, as far as it is there."""
        while self._order and (found := self._done.pop(self._order[0].record.index, None)) is not None:
            prompt = self._order.popleft()
            if isinstance(found, Answered):
                self._write_answer(prompt, found)
                continue
            self.n_errors += 1
            if self.n_errors <= NAMED_ERRORS:
                self.watch.say(f"{prompt.record.id}: {found}")
            self.predictions.add(prompt.record, error=found)

    def _write_answer(self, prompt: Prompt, answer: Answered) -> None:
        self.n_answered += 1
        self.n_stopped += answer.is_stopped
        self.predictions.add(
            prompt.record,
            prediction=self.served.text(answer.ids),
            finish="stop" if answer.is_stopped else "length",
            n_prompt_tokens=len(prompt.input_ids),
            n_tokens=len(answer.ids),
            notes=prompt.notes,
        )


def _size(ready: Ready) -> str:
    millions = ready.n_parameters / 1e6
    return f"{millions:.1f} million" if millions < 1000 else f"{millions / 1000:.2f} billion"


class _Watch:
    """How far it is, as a person sees it: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total
        self._done = self._tokens = 0
        self._began = self._last = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("answered"),
                MofNCompleteColumn(),
                BarColumn(24),
                TextColumn("{task.description}"),
                TimeRemainingColumn(compact=True),
                console=console,
                transient=True,
            )
            self._bar.add_task("", total=total)
            self._bar.start()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(printable(text))

    def advance(self, n_tokens: int) -> None:
        """Count one more record as done, with so many tokens written for it."""
        self._done += 1
        self._tokens += n_tokens
        now = time.monotonic()
        text = f"{self._tokens / max(now - self._began, 1e-9):,.0f} tok/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, description=text)
        elif now - self._last > QUIET_SECONDS:
            self._last = now
            self.say(f"{self._done:,} of {self._total:,}, {text}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
