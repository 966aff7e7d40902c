"""The chat templates that come with the project. The pipeline loads them; the stage itself reads no file."""

from importlib.resources import files
from typing import Final

from schemas.settings import suggest
from stages.render.settings import RenderError

ALIASES: Final = {"tinyllama": "zephyr", "tinyllamachat": "zephyr"}
"""Other names, spelled as `_plain` spells them."""


def names() -> tuple[str, ...]:
    """Return the names of the built-in templates, sorted."""
    entries = files("stages.render").joinpath("templates").iterdir()
    return tuple(sorted(entry.name.removesuffix(".jinja") for entry in entries if entry.name.endswith(".jinja")))


def find(name: str) -> str | None:
    """Return the built-in template that `name` means, whatever its case and dashes, or None."""
    known = {_plain(own): own for own in names()} | ALIASES
    return known.get(_plain(name))


def load(name: str) -> str:
    """Return the Jinja source of a built-in template; raise RenderError where there is none of that name."""
    own = find(name)
    if own is None:
        raise RenderError(f"[render] template = {name!r} is no built-in template; {suggest(name, names())}")
    return files("stages.render").joinpath("templates").joinpath(f"{own}.jinja").read_text(encoding="utf-8")


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(".", "").replace(" ", "")
