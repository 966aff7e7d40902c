"""Runs that another one is compared with: whether they can be, and what they were made from."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.graph import GRAPH, Stage
from pipeline.keys import closure
from pipeline.source import expand
from pipeline.store import Store
from schemas.manifest import Manifest, read_manifest
from schemas.settings import ConfigError, decode_section, read_toml


def is_run(path: Path) -> bool:
    """Tell whether a directory is a run, finished or not."""
    return (path / GRAPH[0].name / "shards").is_dir()  # there as soon as anything is built


def comparable(run: Path, stage: Stage, key: str, config: msgspec.Struct, *, where: str) -> Manifest:
    """Return the manifest of `stage` in a run. Raises ConfigError unless its rows are made as with `key` and `config` here.

    The text says which settings or versions differ; `where` is what named the run.
    """
    manifest = read_manifest(run, stage.name)
    again = f"chatloom data {run}/config.toml --run {run} --until {stage.name}"
    if manifest is None or not all(Store(run).holds(stage.name, record) for record in manifest.shards):
        raise ConfigError(
            f"{where}: {run} is a run whose {stage.name} are not complete. Finish it ({again}), or name the files it "
            "was made from"
        )
    if manifest.settings == key:
        return manifest
    differing = _differing_settings(run, stage, config)
    if differing:
        raise ConfigError(
            f"{where}: the {stage.name} of {run} cannot be compared with those of this run: [{stage.name}] "
            f"{', '.join(differing)}. Give both runs the same, or name the files it was made from"
        )
    _, libraries = closure((stage.run.__module__,))
    versions = [
        f"{name} {manifest.libraries.get(name, 'none')} there, {version} here"
        for name, version in libraries
        if manifest.libraries.get(name) != version
    ]
    raise ConfigError(
        f"{where}: the {stage.name} of {run} were made by another version "
        f"({', '.join(versions) or 'of Chatloom or Python'}), and may not be comparable with those of this run. Bring it up to "
        f"date: {again}"
    )


def _differing_settings(run: Path, stage: Stage, mine: msgspec.Struct) -> list[str]:
    try:
        path = run / "config.toml"
        theirs = msgspec.to_builtins(decode_section(read_toml(path), stage.name, stage.config, where=str(path)))
    except ConfigError:  # of another version
        return []
    return [
        f"{name} = {_written(theirs[name])} there, {_written(value)} here"
        for name, value in msgspec.to_builtins(mine).items()
        if name not in stage.neutral and theirs[name] != value
    ]


def _written(value: Any) -> str:
    """Return a value as a config has it."""
    return json.dumps(value, ensure_ascii=False)


def inputs_of(run: Path) -> Iterator[str]:
    """Yield the files that a run was made from, as far as they can still be found."""
    try:
        inputs = read_toml(run / "config.toml").get("source", {}).get("inputs", [])
    except ConfigError:
        return
    for given in inputs:
        with contextlib.suppress(ConfigError):
            yield from expand([given])[0]
