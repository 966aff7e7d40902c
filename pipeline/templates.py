"""The chat template that a config names: built in, beside the tokenizer, in a file, or in the config itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.settings import ConfigError, suggest
from stages.render import builtin
from stages.render.declaration import Declaration, declaration

DIRECTORY: Final = "additional_chat_templates"
"""Where transformers keeps the named templates of a tokenizer, one file each."""
DEFAULT: Final = "default"
TOOL_USE: Final = "tool_use"
"""Name of the template that transformers takes for conversations with tools."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A chat template, not yet compiled."""

    name: str
    """For messages to people: a built-in's name, a file's, or where in the config it stands."""
    source: str
    tool_use: str = ""
    declared: Declaration = field(default_factory=Declaration)
    """What it says of its tokens. Nothing where it came with the tokenizer, which has them."""

    @property
    def text(self) -> str:
        """All Jinja there is, for those who look for what it spells."""
        return self.source + self.tool_use


def find_template(choice: str, directory: Path, beside: Mapping[str, Any]) -> Found:
    """Return the template that `[render] template = choice` means.

    `directory` is the tokenizer's, `beside` its tokenizer_config.json. Raises ConfigError naming what was looked for.
    """
    if "{{" in choice or "{%" in choice:
        return _own("in the config", choice)
    if choice == "tokenizer" or choice.startswith("tokenizer:"):
        return _from_tokenizer(choice[len("tokenizer:") :] if ":" in choice else None, directory, beside)
    if (name := builtin.find(choice)) is not None:
        return _own(name, builtin.load(name))
    path = Path(choice)
    if path.is_file():
        return _own(path.name, _read(path))
    raise ConfigError(
        f"[render] template = {choice!r}: no such built-in and no such file; {suggest(choice, builtin.names())}"
    )


def named_templates(directory: Path, beside: Mapping[str, Any]) -> dict[str, str]:
    """Return the templates of a tokenizer by name, as transformers finds them: files come before tokenizer_config.json."""
    files = {path.stem: path for path in sorted(directory.glob(f"{DIRECTORY}/*.jinja"))}
    if (main := directory / "chat_template.jinja").is_file():
        files[DEFAULT] = main
    if files:
        return {name: _read(path) for name, path in files.items()}
    template = beside.get("chat_template")
    if isinstance(template, str):
        return {DEFAULT: template}
    entries = [entry for entry in template if isinstance(entry, dict)] if isinstance(template, list) else []
    return {str(entry["name"]): str(entry["template"]) for entry in entries if {"name", "template"} <= entry.keys()}


def _from_tokenizer(name: str | None, directory: Path, beside: Mapping[str, Any]) -> Found:
    templates = named_templates(directory, beside)
    if name is not None:
        if name in templates:
            return Found(name=f"tokenizer:{name}", source=templates[name])
        raise ConfigError(
            f"[render] template = 'tokenizer:{name}': the tokenizer in {directory} has no template of that name; "
            f"{suggest(name, templates) if templates else 'it has none at all'}"
        )
    if DEFAULT in templates:
        where = "chat_template.jinja" if (directory / "chat_template.jinja").is_file() else "tokenizer_config.json"
        return Found(name=where, source=templates[DEFAULT], tool_use=templates.get(TOOL_USE, ""))
    if templates:
        raise ConfigError(
            f"[render] template = 'tokenizer': the tokenizer in {directory} names no default among its templates; choose "
            f"one of {', '.join(repr(f'tokenizer:{name}') for name in sorted(templates))}"
        )
    raise ConfigError(
        f"[render] template = 'tokenizer': there is no chat template in {directory} (chat_template.jinja, or chat_template "
        "in tokenizer_config.json). Set it to the one that the model was trained with, or will be served with: a file, or one of "
        f"the built-in ones: {', '.join(builtin.names())}"
    )


def _own(name: str, source: str) -> Found:
    return Found(name=name, source=source, declared=declaration(source))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; a chat template is a text file") from None
