"""Tokenizer and chat template, found on disk or on the hub, and from then on values."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.endings import turn_stops
from pipeline.templates import DIRECTORY, TOOL_USE, Found, find_template
from schemas.assets import Template, Vocabulary
from schemas.files import remove, write_if_changed
from schemas.hub import is_hub_name
from schemas.settings import ConfigError
from stages.render import Render
from stages.tokenize import Tokenize
from stages.tokenize.definition import Definition, TokenizerError

_NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_CONVERSATION = ("messages", "tools", "documents", "add_generation_prompt")
"""What a template is given of each conversation."""


@dataclass(frozen=True)
class Assets:
    """What enters the stages from outside, and what a trainer will need beside the shards."""

    template: Template
    vocabulary: Vocabulary
    added_tokens: dict[str, int]
    """Tokens that the template declares and the tokenizer lacked, with the ids they got."""
    tokenizer_config: dict[str, Any]
    generation_config: dict[str, Any]

    @property
    def by_name(self) -> dict[str, msgspec.Struct]:
        """Return the assets by the names that stages ask for."""
        return {"template": self.template, "vocabulary": self.vocabulary}


def load_assets(config: Config) -> Assets:
    """Load the tokenizer and the template that `config` names.

    Tokens that the template declares and the tokenizer lacks are added to it. Raises ConfigError, naming the path tried
    and what to do, when one is missing or unusable, and GateError when the template's handling of the assistant's text
    cannot be followed. A stop that is not one token of the tokenizer is refused: it would be spelled in ordinary tokens,
    which content can spell as well.
    """
    tokenize, render = config.sections["tokenize"], config.sections["render"]
    assert isinstance(tokenize, Tokenize)
    assert isinstance(render, Render)
    path = _tokenizer_json(tokenize.tokenizer)
    beside = _json(path.parent / "tokenizer_config.json")
    found = find_template(render.template, path.parent, beside)
    tokenizer_json, definition, added = _with_declared(path, found)
    named = {key: _token_text(beside[key]) for key in _NAMED_TOKENS if beside.get(key) is not None}
    variables = named | render.variables
    _check_variables(found, variables, render, definition, path)
    # One set for all: what content must not bring in as text (render) it must not become as ids (tokenize).
    written = (text for text in definition.added_tokens if text in found.text and text.strip())
    told = (text for key, text in variables.items() if key != "unk_token")
    controls = definition.controls((*written, *told, *render.stop))
    declared = found.declared.tokens  # one of them may end a turn, whatever the tokenizer's author flagged it
    special = tuple(text for text in controls if definition.added_tokens[text].special or text in declared)
    template = Template(
        name=found.name,
        source=found.source,
        tool_use=found.tool_use,
        variables=variables,
        control_tokens=special,
        plain_control_tokens=tuple(text for text in controls if text not in special),
    )
    vocabulary = Vocabulary(tokenizer_json=tokenizer_json, control_tokens=controls)
    texts = turn_stops(template, render)
    _check_stops(texts, definition, template, render, path)
    stops = [definition.id_of(text) for text in dict.fromkeys((*texts, variables.get("eos_token"))) if text]
    generation = {
        "bos_token_id": definition.id_of(variables["bos_token"]) if "bos_token" in variables else None,
        "eos_token_id": [i for i in stops if i is not None],
        "pad_token_id": definition.id_of(variables["pad_token"]) if "pad_token" in variables else None,
    }
    return Assets(
        template=template,
        vocabulary=vocabulary,
        added_tokens=added,
        tokenizer_config=_served(beside, render.variables),
        generation_config={key: value for key, value in generation.items() if value is not None},
    )


def write_tokenizer(directory: Path, assets: Assets) -> None:
    """Write tokenizer, templates and stop ids into `directory` as Hugging Face lays them out."""
    write_if_changed(directory / "tokenizer.json", assets.vocabulary.tokenizer_json)
    write_if_changed(directory / "tokenizer_config.json", _dump(assets.tokenizer_config))
    write_if_changed(directory / "chat_template.jinja", assets.template.source.encode())
    tool_use = directory / DIRECTORY / f"{TOOL_USE}.jinja"
    if assets.template.tool_use:
        write_if_changed(tool_use, assets.template.tool_use.encode())
    else:
        remove(tool_use)
    write_if_changed(directory / "generation_config.json", _dump(assets.generation_config))


def _with_declared(path: Path, found: Found) -> tuple[bytes, Definition, dict[str, int]]:
    """Return the tokenizer with the tokens that the template declares, and the ids of those that it lacked."""
    tokenizer_json = path.read_bytes()
    added: dict[str, int] = {}
    try:
        definition = Definition(tokenizer_json)
        if any(text not in definition.added_tokens for text in found.declared.tokens):
            tokenizer_json, added = definition.with_special(found.declared.tokens)
            definition = Definition(tokenizer_json)
    except TokenizerError as error:
        raise ConfigError(f"{path}: {error}") from None
    return tokenizer_json, definition, added


def _check_variables(
    found: Found, variables: dict[str, str], render: Render, definition: Definition, path: Path
) -> None:
    """Raise ConfigError unless the template has the variables that it needs, and those of the config name tokens."""
    for name in found.declared.variables:
        if not variables.get(name):
            raise ConfigError(
                f"[render] template = {found.name!r} writes {name}, and tokenizer_config.json beside {path} names none; "
                f'set [render] variables = {{{name} = "..."}} to one of its tokens{_few(definition)}'
            )
    for name, text in render.variables.items():
        if name in _CONVERSATION:
            raise ConfigError(
                f"[render] variables: {name} would hide the conversation's own {name} from the template; drop it, or "
                "choose another name"
            )
        if name.endswith("_token") and text not in definition.added_tokens:
            raise ConfigError(
                f"[render] variables: {name} = {text!r} is not a token of {path}; expected one of its added tokens, for "
                f"other text would be spelled in several{_few(definition)}"
            )


def _served(beside: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """Return the tokenizer_config.json to serve with: the config's own tokens in it, templates in files of their own."""
    tokens = {key: text for key, text in variables.items() if key in _NAMED_TOKENS}
    return {key: value for key, value in beside.items() if key != "chat_template"} | tokens


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
                f"{_few(definition)}; or have it added: {{#- tokens: {stop} -#}} in a template of your own"
            )


def _few(definition: Definition) -> str:
    special = [text for text, token in definition.added_tokens.items() if token.special]
    named = ", ".join(map(repr, special[:8]))
    return f" (it has {named}{', ...' if len(special) > 8 else ''})" if special else " (it has no special tokens)"


def _tokenizer_json(given: str) -> Path:
    """Return the path of the tokenizer.json that `[tokenize] tokenizer = given` means."""
    path = Path(given)
    if path.is_file():
        return path
    if not path.is_dir():
        return _from_hub(given) / "tokenizer.json"
    if not (path / "tokenizer.json").is_file():
        raise ConfigError(f"[tokenize] tokenizer = {given!r}: the directory holds no tokenizer.json")
    return path / "tokenizer.json"


def _from_hub(name: str) -> Path:
    if not is_hub_name(name):
        raise ConfigError(
            f"[tokenize] tokenizer = {name!r}: no such file or directory; give a directory with tokenizer.json, the file "
            "itself, or a name on the Hugging Face hub (owner/name)"
        )
    from huggingface_hub import snapshot_download

    patterns = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", f"{DIRECTORY}/*.jinja"]
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


def _token_text(value: Any) -> str:
    return str(value["content"]) if isinstance(value, dict) else str(value)


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, empty where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return value


def _dump(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
