"""Metrics for TensorBoard, trackio and Weights & Biases, besides metrics.jsonl.

A package that is not there is an error before training starts. Once it runs, nothing that a tracker does, or fails to do,
can stop it. A run that resumes goes on where it was: steps that are done again are not shown twice.
"""

import contextlib
import importlib
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.files import write_whole
from schemas.metrics import Metrics
from schemas.settings import ConfigError
from trainer.errors import storing

MODULES: Final = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}
PROJECT: Final = "chatloom"
"""Project in trackio and W&B, unless TRACKIO_PROJECT or WANDB_PROJECT says another."""
TAGS: Final = {"val_loss": "validation/loss", "perplexity": "validation/perplexity"}
"""Names that differ from train/<field of Metrics>."""
Values = dict[str, float]


class Tracking(msgspec.Struct, frozen=True, kw_only=True):
    """RUN/train/tracking.json: the name under which trackers know a run, so that it goes on under it."""

    id: str
    seen: int = -1
    """Last step that trackers ever had."""


@dataclass(frozen=True, kw_only=True)
class Sink:
    """A tracker at work."""

    name: str
    log: Callable[[int, Values], None]
    close: Callable[[], None]


class Trackers:
    """The trackers of one run, on rank 0. Making them imports their packages; `start` begins to write."""

    def __init__(
        self,
        names: Sequence[str],
        home: Path,
        *,
        title: str,
        settings: Mapping[str, str | float | bool],
        say: Callable[[str], None],
    ) -> None:
        """Raise ConfigError for a package that is absent."""
        self._home, self._title, self._settings, self._say = home, title, dict(settings), say
        self._modules = {name: _import(name) for name in dict.fromkeys(names)}
        self._sinks: list[Sink] = []
        self._seen = -1

    def start(self, n_steps: int, *, last: int) -> None:
        """Go on after `n_steps`, -1 for the very beginning; `last` is the last step that metrics.jsonl had before."""
        if not self._modules:
            return
        tracking = self._identify(last)
        self._seen = tracking.seen
        for name, module in self._modules.items():
            with self._surviving(name):
                self._sinks.append(_OPEN[name](module, self._home, tracking.id, self._settings, n_steps))

    def log(self, line: Metrics) -> None:
        """Hand on the numbers of a line of metrics.jsonl."""
        values = values_of(line)
        for sink in list(self._sinks):
            if sink.name == "tensorboard" or line.step > self._seen:  # its reader lets go of what is written anew
                with self._surviving(sink.name):
                    sink.log(line.step, values)

    def close(self) -> None:
        """Let the trackers finish what they still have to send."""
        for sink in list(self._sinks):
            with self._surviving(sink.name):
                sink.close()
        self._sinks.clear()

    def _identify(self, last: int) -> Tracking:
        path = self._home / "tracking.json"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Tracking)
        except (OSError, msgspec.DecodeError):
            found = Tracking(id=f"{self._title}-{secrets.token_hex(4)}")
        found = msgspec.structs.replace(found, seen=max(found.seen, last))
        with storing(path):
            write_whole(path, msgspec.json.encode(found) + b"\n")
        return found

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Any:
        """Say what went wrong once, and go on without the tracker `name`."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - they raise whatever they like, and training is worth more
            self._sinks = [sink for sink in self._sinks if sink.name != name]
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._say(
                f"warning: {name} failed, and gets nothing more: {what}. Training goes on; metrics.jsonl has it all"
            )


def values_of(line: Metrics) -> Values:
    """Return the numbers of a line by their tags, those that are there and finite."""
    found: dict[str, Any] = {}
    for field in line.__struct_fields__:
        value = getattr(line, field)
        if field in ("val_loss_by_source", "val_loss_by_tag"):
            what = "loss of" if field == "val_loss_by_source" else "loss of tag"
            found |= {f"validation/{what} {name}": loss for name, loss in (value or {}).items()}
        elif field != "step" and isinstance(value, int | float):
            found[TAGS.get(field, f"train/{field}")] = value
    return {tag: float(value) for tag, value in found.items() if math.isfinite(value)}


def _import(name: str) -> Any:
    try:
        return importlib.import_module(MODULES[name])
    except ImportError as error:
        raise ConfigError(
            f'[train] track = "{name}": its package cannot be imported ({error}); expected it to be installed: '
            f"pip install {name}, or pip install 'chatloom[track]' for all of them, or leave it out"
        ) from None


def _tensorboard(module: Any, home: Path, _: str, settings: Mapping[str, Any], n_steps: int) -> Sink:
    directory = home / "tensorboard"
    is_new = not any(directory.glob("events.*"))
    # readers let go of whatever older files have from this step on
    writer = module.SummaryWriter(log_dir=str(directory), purge_step=n_steps + 1)
    if is_new:
        summaries = importlib.import_module("torch.utils.tensorboard.summary")
        for summary in summaries.hparams(dict(settings), {"validation/loss": 0.0, "train/loss": 0.0}):
            writer.file_writer.add_summary(summary)

    def log(step: int, values: Values) -> None:
        for tag, value in values.items():
            writer.add_scalar(tag, value, step)
        writer.flush()  # a killed run goes on from a checkpoint, and must not lack what was before it

    return Sink(name="tensorboard", log=log, close=writer.close)


def _trackio(module: Any, _: Path, name: str, settings: Mapping[str, Any], __: int) -> Sink:
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    run = module.init(
        project=project, name=name, config=dict(settings), resume="allow", embed=False, auto_log_cpu=False
    )
    return Sink(name="trackio", log=lambda step, values: run.log(values, step=step), close=run.finish)


def _wandb(module: Any, home: Path, name: str, settings: Mapping[str, Any], __: int) -> Sink:
    run = module.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=name,
        id=name,
        dir=str(home),
        config=dict(settings),
        resume="allow",
        settings=module.Settings(console="off", disable_git=True),
    )
    return Sink(name="wandb", log=lambda step, values: run.log(values, step=step), close=run.finish)


_OPEN: Final[dict[str, Callable[[Any, Path, str, Mapping[str, Any], int], Sink]]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}
