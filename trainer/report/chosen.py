"""The settings of a run as people compare them: those that differ from the defaults, and all of them."""

from typing import Any, Final

import msgspec

from trainer.job import Job

SECTIONS: Final = ("model", "lora", "train", "generation")


def all_settings(job: Job) -> dict[str, str | float | bool]:
    """Return every setting of `job` that is set, by section.key; what is no number and no text, as JSON."""
    found: dict[str, Any] = {"seed": job.seed}
    for name in SECTIONS:
        section = getattr(job, name)
        found |= {f"{name}.{key}": value for key, value in msgspec.to_builtins(section).items() if value is not None}
    return {key: value if isinstance(value, str | int | float) else _as_json(value) for key, value in found.items()}


def different_settings(job: Job) -> dict[str, str]:
    """Return the settings of `job` that are not at their default, by section.key, as a config has them."""
    found = {"seed": str(job.seed)} if job.seed else {}
    for name in SECTIONS:
        section = getattr(job, name)
        own, default = msgspec.to_builtins(section), msgspec.to_builtins(type(section)())
        found |= {f"{name}.{key}": _as_json(value) for key, value in own.items() if value != default[key]}
    return found


def _as_json(value: Any) -> str:
    # JSON has no infinity, TOML has
    return str(value) if isinstance(value, float) else msgspec.json.encode(value).decode()
