"""Settings of the render stage, and the error it raises for what no row can be blamed for."""

from typing import Literal

import msgspec

from schemas.errors import GateError
from stages.render.scoped import Scoped


class RenderError(GateError):
    """The chat template cannot be used at all: a matter for the person who chose it, not for a row."""


class Render(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How conversations become text."""

    template: str = "tokenizer"
    """The chat template: "tokenizer" (the one beside it), "tokenizer:NAME" (a named one), a built-in's name, a path, or
    Jinja itself (a text with {{ or {%)."""
    variables: dict[str, str] = {}
    """Texts that the template sees by name, besides and before the tokenizer's own, e.g. {eos_token = "</s>"}."""
    date: str = "2024-07-26"
    """What strftime_now sees, as YYYY-MM-DD: never the clock, so that the same input gives the same text."""
    stop: tuple[str, ...] = ()
    """Texts that end an assistant's turn; when empty they are found by rendering a small conversation."""
    left_out: Literal["note", "drop"] = "note"
    """What becomes of a conversation of which the template leaves out or rewrites a part, such as tools that it does not
    know: note keeps it and says so in `notes`, which the build counts; drop drops it (left_out)."""
    scoped: tuple[Scoped, ...] = ()
    """Rules that weigh parts of messages: {pattern, weight, role, class}; see docs/masks.md."""
    verify: int = 16
    """How many rows of each shard are compared with plain Jinja, besides one of each way through the template."""
    max_steps: int = 200_000
    """Steps that a template may take on one conversation, besides 16 for each of its characters."""
    max_output_ratio: float = 4.0
    """Characters that a template may make of one character of input."""
    max_output_floor: int = 100_000
    """Characters that a template may make besides those."""
