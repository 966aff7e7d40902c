"""A model to talk to: where it lies, and how its conversations are written, which is how its training data were."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from tokenizers import Tokenizer

from pipeline.assets import Assets, load_assets
from pipeline.config import Config
from pipeline.templates import DIRECTORY
from schemas.generation import Generation
from schemas.settings import ConfigError, apply_overrides, check_names, decode_section, read_toml
from stages.ingest import Ingest
from stages.render import Render
from stages.tokenize import Tokenize

_SECTIONS: Final[dict[str, Any]] = {
    "ingest": Ingest,
    "render": Render,
    "tokenize": Tokenize,
    "generation": Generation,
}
_OF_RUN: Final = ("train", "export")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model directory, and what turns conversations into its tokens and back."""

    directory: Path
    seed: int
    sections: dict[str, Any]
    assets: Assets
    tokenizer: Tokenizer

    @property
    def generation(self) -> Generation:
        """Return how answers are written."""
        section = self.sections["generation"]
        assert isinstance(section, Generation)
        return section

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Return the tokens with which the chat template ends a turn."""
        return tuple(self.assets.generation_config["eos_token_id"])

    def text(self, ids: Sequence[int]) -> str:
        """Return what the model wrote, control tokens included."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def identity(self) -> str:
        """Return a hash of everything that decides what is answered to a prompt.

        Weights count by name, size and time of change: to read them all would take longer than many an answer.
        """
        weights = sorted(self.directory.glob("*.safetensors"))
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
        generation = msgspec.structs.replace(self.generation, batch=1)  # changes nothing but rounding
        sections = self.sections | {"generation": generation}
        state = hashlib.sha256((self.directory / "config.json").read_bytes())
        for part in (files, self.seed, sections, self.stop_ids, self.assets.template, self.assets.vocabulary):
            state.update(hashlib.sha256(msgspec.msgpack.encode(part)).digest())
        return state.hexdigest()[:16]


def find_served(model: str, assignments: Sequence[str], *, max_new_tokens: int | None = None) -> Served:
    """Return the model that `model` names: a run directory, or one with config.json, weights and tokenizer.

    What a run's config says of reading, rendering, encoding and decoding holds for its model too, with `assignments` put in.
    Raises ConfigError.
    """
    directory, config = _places(Path(model))
    document = read_toml(config) if config is not None else {}
    document = {name: value for name, value in document.items() if name in (*_SECTIONS, "seed")}
    if max_new_tokens is not None:
        assignments = [*assignments, f"generation.max_new_tokens={max_new_tokens}"]
    document = apply_overrides(document, assignments)
    where = " with ".join([str(config or model), *([f"--set {', '.join(assignments)}"] if assignments else [])])
    check_names(document, ["seed", *_SECTIONS], where=where, sections=_SECTIONS)
    seed = document.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise ConfigError(f"{where}: seed = {seed!r}: expected a whole number >= 0")
    sections = {name: decode_section(document, name, kind, where=where) for name, kind in _SECTIONS.items()}
    sections["render"] = msgspec.structs.replace(sections["render"], template=_template(directory, sections["render"]))
    sections["tokenize"] = msgspec.structs.replace(sections["tokenize"], tokenizer=str(directory))
    assets = load_assets(Config(run=model, seed=seed, sections=sections))
    tokenizer = Tokenizer.from_buffer(assets.vocabulary.tokenizer_json)
    return Served(directory=directory, seed=seed, sections=sections, assets=assets, tokenizer=tokenizer)


def _places(path: Path) -> tuple[Path, Path | None]:
    """Return the model's directory and the config of its run, if it is of a run."""
    if not path.is_dir():
        raise ConfigError(
            f"{path}: no such directory; expected a run that `chatloom train` has finished, or a model directory with "
            f"config.json, *.safetensors and tokenizer.json (seen from {Path.cwd()})"
        )
    if (path / "config.json").is_file():
        home = path.resolve()
        config = home.parent.parent / "config.toml"
        return path, config if home.parts[-2:] == _OF_RUN and config.is_file() else None
    export = path.joinpath(*_OF_RUN)
    if (export / "config.json").is_file():
        return export, path / "config.toml"
    for adapter in (path, path / _OF_RUN[0] / "adapter"):
        if (adapter / "adapter_config.json").is_file():
            raise ConfigError(
                f"{adapter}: adapters without their model ([lora] merge = false); merge them with PEFT, or give the same "
                "`chatloom train` again with --set lora.merge=true, which exports the whole"
            )
    if (path / "pack").is_dir() or (path / "config.toml").is_file():
        raise ConfigError(f"{export}: not there; `chatloom train CONFIG --run {path}` trains the model and exports it")
    raise ConfigError(f"{path}: holds no config.json; expected a run directory, or a model directory")


def _template(directory: Path, render: Render) -> str:
    """Return where the chat template is to be taken from: always the model's own, for its run's file may be gone."""
    if render.template.startswith("tokenizer") or (directory / DIRECTORY).is_dir():
        return "tokenizer"
    return str(directory / "chat_template.jinja")  # as a file it may declare tokens of its own, as it did in the run
