"""The chat templates that come with the project. The pipeline loads them; the stage itself reads no file."""

from importlib.resources import files

from stages.render.settings import RenderError


def names() -> tuple[str, ...]:
    """Return the names of the built-in templates, sorted."""
    entries = files("stages.render").joinpath("templates").iterdir()
    return tuple(sorted(entry.name.removesuffix(".jinja") for entry in entries if entry.name.endswith(".jinja")))


def load(name: str) -> str:
    """Return the Jinja source of a built-in template; raise RenderError where there is none of that name."""
    if name not in names():
        raise RenderError(
            f"[render] template={name!r} is no built-in template; expected one of {', '.join(names())}, a path, or"
            ' "tokenizer"'
        )
    return files("stages.render").joinpath("templates").joinpath(f"{name}.jinja").read_text(encoding="utf-8")
