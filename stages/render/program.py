"""A template with all that is learned of it, kept for the life of the process."""

from functools import lru_cache
from typing import NamedTuple

import msgspec

from schemas.assets import Template
from stages.render.paths import Paths
from stages.render.probe import Probe, probe
from stages.render.renderer import Renderer, renderer
from stages.render.settings import Render


class Program(NamedTuple):
    """A template ready to run."""

    compiled: Renderer
    known: Probe
    paths: Paths
    controls: tuple[str, ...]
    """Control tokens, which only the template itself may write."""


def program(template: Template, config: Render) -> Program:
    """Return a template's program, made once per process with all that is learned of it."""
    return _made(msgspec.msgpack.encode((template, config)))


@lru_cache(maxsize=8)
def _made(encoded: bytes) -> Program:
    template, config = msgspec.msgpack.decode(encoded, type=tuple[Template, Render])
    compiled, known = renderer(template, config), probe(template, config)
    paths = Paths(compiled, known.boundaries, config)
    return Program(compiled, known, paths, (*template.control_tokens, *template.plain_control_tokens))


def for_tools(template: Template) -> Template:
    """Return the template of conversations with tools."""
    if not template.tool_use:
        return template
    return msgspec.structs.replace(template, source=template.tool_use, tool_use="", name=f"{template.name}, tool_use")
