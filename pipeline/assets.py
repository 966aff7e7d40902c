"""Tokenizer and chat template, found on disk or on the hub, and from then on values."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config
from schemas.assets import Template, Vocabulary
from schemas.files import write_if_changed
from schemas.settings import ConfigError, suggest
from stages.render import Render, probe
from stages.render.builtin import load as load_builtin
from stages.render.builtin import names as builtin_names
from stages.tokenize import Tokenize
from stages.tokenize.definition import Definition, TokenizerError

_NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Assets:
    """What enters the stages from outside, and what a trainer will need beside the shards."""

    template: Template
    vocabulary: Vocabulary
    tokenizer_config: dict[str, Any]
    generation_config: dict[str, Any]

    @property
    def by_name(self) -> dict[str, msgspec.Struct]:
        """Return the assets by the names that stages ask for."""
        return {"template": self.template, "vocabulary": self.vocabulary}


def load_assets(config: Config) -> Assets:
    """Load the tokenizer and the template that `config` names.

    Raises ConfigError, naming the path tried and what to do, when one is missing or unusable, and GateError when the
    template's handling of the assistant's text cannot be followed. A stop that is not one token of the tokenizer is
    refused: it would be spelled in ordinary tokens, which content can spell as well.
    """
    tokenize, render = config.sections["tokenize"], config.sections["render"]
    assert isinstance(tokenize, Tokenize)
    assert isinstance(render, Render)
    files = _tokenizer_files(tokenize.tokenizer)
    tokenizer_json = files["tokenizer.json"].read_bytes()
    try:
        definition = Definition(tokenizer_json)
    except TokenizerError as error:
        raise ConfigError(f"{files['tokenizer.json']}: {error}") from None
    beside = _json(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
    name, source = _template_source(render.template, files, beside)
    variables = {key: _token_text(beside[key]) for key in _NAMED_TOKENS if beside.get(key) is not None}
    # One set for all: what content must not bring in as text (render) it must not become as ids (tokenize).
    written = (text for text in definition.added_tokens if text in source and text.strip())
    named = (text for key, text in variables.items() if key != "unk_token")
    controls = definition.controls((*written, *named, *render.stop))
    special = tuple(text for text in controls if definition.added_tokens[text].special)
    template = Template(
        name=name,
        source=source,
        variables=variables,
        control_tokens=special,
        plain_control_tokens=tuple(text for text in controls if text not in special),
    )
    vocabulary = Vocabulary(
        tokenizer_json=tokenizer_json,
        control_tokens=controls,
    )
    probed = probe(template, render)
    _check_stops(probed.stops, definition, template, render, files["tokenizer.json"])
    stops = [definition.id_of(text) for text in dict.fromkeys((*probed.stops, variables.get("eos_token"))) if text]
    generation = {
        "bos_token_id": definition.id_of(variables["bos_token"]) if "bos_token" in variables else None,
        "eos_token_id": [i for i in stops if i is not None],
        "pad_token_id": definition.id_of(variables["pad_token"]) if "pad_token" in variables else None,
    }
    return Assets(template, vocabulary, beside, {key: value for key, value in generation.items() if value is not None})


def write_tokenizer(directory: Path, assets: Assets) -> None:
    """Write tokenizer, template and stop ids into `directory` as Hugging Face lays them out."""
    settings = {key: value for key, value in assets.tokenizer_config.items() if key != "chat_template"}
    write_if_changed(directory / "tokenizer.json", assets.vocabulary.tokenizer_json)
    write_if_changed(directory / "tokenizer_config.json", _dump(settings))
    write_if_changed(directory / "chat_template.jinja", assets.template.source.encode())
    write_if_changed(directory / "generation_config.json", _dump(assets.generation_config))


def _check_stops(
    stops: tuple[str, ...], definition: Definition, template: Template, render: Render, path: Path
) -> None:
    """Raise ConfigError unless each stop is an added token: any other text is encoded by what stands around it."""
    for stop in stops:
        if stop not in definition.added_tokens:
            where = f"[render] stop = {list(render.stop)!r}" if render.stop else f"chat template {template.name}"
            raise ConfigError(
                f"{where}: the stop {stop!r} is not a token of {path}; expected one of its added tokens, for text that is "
                "spelled in several tokens can be spelled by any message too, and no single id would end a turn. Choose "
                "a chat template whose control tokens the tokenizer has, or a tokenizer that has those of the template"
                f"{_few(definition)}"
            )


def _few(definition: Definition) -> str:
    special = [text for text, token in definition.added_tokens.items() if token.special]
    named = ", ".join(map(repr, special[:8]))
    return f" (it has {named}{', ...' if len(special) > 8 else ''})" if special else " (it has no special tokens)"


def _tokenizer_files(given: str) -> dict[str, Path]:
    path = Path(given)
    if path.is_file():
        directory, main = path.parent, path
    elif path.is_dir():
        directory, main = path, path / "tokenizer.json"
        if not main.is_file():
            raise ConfigError(f"[tokenize] tokenizer = {given!r}: the directory holds no tokenizer.json")
    else:
        directory = _from_hub(given)
        main = directory / "tokenizer.json"
    names = ("tokenizer_config.json", "chat_template.jinja")
    return {"tokenizer.json": main} | {name: directory / name for name in names if (directory / name).is_file()}


def _from_hub(name: str) -> Path:
    if name.count("/") > 1 or name.startswith((".", "/")):
        raise ConfigError(f"[tokenize] tokenizer = {name!r}: no such file or directory")
    from huggingface_hub import snapshot_download

    patterns = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    try:
        directory = Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # noqa: BLE001 - offline, unknown name, no access: the remedy is the same
        raise ConfigError(
            f"[tokenize] tokenizer = {name!r}: no such directory or file, and not found on the Hugging Face hub "
            f"({type(error).__name__}). Give the path of a directory with tokenizer.json"
        ) from None
    if not (directory / "tokenizer.json").is_file():
        raise ConfigError(f"[tokenize] tokenizer = {name!r}: that repository has no tokenizer.json")
    return directory


def _template_source(choice: str, files: dict[str, Path], beside: dict[str, Any]) -> tuple[str, str]:
    if choice == "tokenizer":
        if "chat_template.jinja" in files:
            return "chat_template.jinja", files["chat_template.jinja"].read_text(encoding="utf-8")
        template = beside.get("chat_template")
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default")
        if isinstance(template, str):
            return "tokenizer_config.json", template
        raise ConfigError(
            f"[render] template = 'tokenizer': there is no chat template beside {files['tokenizer.json']} "
            f"(chat_template.jinja, or chat_template in tokenizer_config.json); built-in ones: {', '.join(builtin_names())}"
        )
    if choice in builtin_names():
        return choice, load_builtin(choice)
    path = Path(choice)
    if path.is_file():
        return path.name, path.read_text(encoding="utf-8")
    raise ConfigError(
        f"[render] template = {choice!r}: no such built-in and no such file; {suggest(choice, builtin_names())}"
    )


def _token_text(value: Any) -> str:
    return str(value["content"]) if isinstance(value, dict) else str(value)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return value


def _dump(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
