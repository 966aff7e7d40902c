"""Whether the data of a run were built with the settings that a config has now: training reads packs, not these settings."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from schemas.settings import SECTION_NAMES, ConfigError, apply_overrides, read_toml
from trainer.job import SECTIONS

ITS_OWN = {*SECTIONS, "source"}
"""Sections of training, and the one that `chatloom data --input` replaces."""
SHOWN = 4


def other_settings(config: Path, overrides: Sequence[str], run: Path) -> str | None:
    """Return what `config` says of the data and RUN/config.toml, of what was built, says otherwise; None where nothing.

    Only what the config states is compared, not its defaults, and no tables, whose defaults the built
    one has. A run without a readable config.toml is taken as it is.
    """
    try:
        built = read_toml(run / "config.toml")
    except (ConfigError, OSError, tomllib.TOMLDecodeError):
        return None
    stated = apply_overrides(read_toml(config), overrides)
    found = [
        f"[{name}] {key} = {section[key]!r}, built with {built[name].get(key)!r}"
        for name in SECTION_NAMES
        if name not in ITS_OWN and isinstance(section := stated.get(name), dict) and isinstance(built.get(name), dict)
        for key in section
        if section[key] != built[name].get(key) and not _is_nested(section[key])
    ]
    if not found:
        return None
    rest = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f"note: {run} was built with other settings: {'; '.join(found[:SHOWN])}{rest}. What was built is trained; "
        "to train what the config says now, give `chatloom data` the same config first"
    )


def _is_nested(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value))
