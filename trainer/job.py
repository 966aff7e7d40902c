"""What a person asked for: the config file and its overrides, decoded strictly. Imports no torch."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.settings import ConfigError, apply_overrides, decode_section, read_toml
from schemas.training import Model, Train


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run, resolved."""

    run: Path
    seed: int
    model: Model
    train: Train
    resume: str
    """The shell command that continues it."""

    @property
    def home(self) -> Path:
        """Return the directory that holds everything the trainer writes."""
        return self.run / "train"


def read_job(config: Path, *, run: Path | None, overrides: Sequence[str], world_size: int) -> Job:
    """Return the job that `config` describes after `overrides`; `run` replaces the config's own run directory.

    Raises ConfigError for anything unknown, mistyped or contradictory. Other rooms' sections are not looked at.
    """
    where = str(config)
    document = apply_overrides(read_toml(config), overrides)
    directory = run or Path(_top(document, "run", str, where=where))
    seed = _top(document, "seed", int, where=where, default=0)
    if not 0 <= seed < 2**63:
        raise ConfigError(f"{where}: seed = {seed}: expected 0 to 2^63 - 1")
    return Job(
        run=directory,
        seed=seed,
        model=decode_section(document, "model", Model, where=where),
        train=decode_section(document, "train", Train, where=where),
        resume=_command(config, run, overrides, world_size),
    )


def _top(document: dict[str, Any], key: str, kind: type, *, where: str, default: Any = None) -> Any:
    value = document.get(key, default)
    if value is None:
        raise ConfigError(f"{where}: {key} is missing; add `{key} = ...` at the top, or give --{key}")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{where}: {key} = {value!r}: expected {kind.__name__}")
    return value


def _command(config: Path, run: Path | None, overrides: Sequence[str], world_size: int) -> str:
    start = ["torchrun", "--nproc-per-node", str(world_size)] if world_size > 1 else [Path(sys.executable).name]
    words = [*start, "-m", "trainer", str(config)]
    if run is not None:
        words += ["--run-dir", str(run)]
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)
