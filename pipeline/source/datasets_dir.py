"""Directories in the layouts of the library `datasets`: what load_dataset reads, and what save_to_disk writes.

Such a directory has splits, of which one is read; a plain directory has none, and all of its files are.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.lean import with_companions
from pipeline.source.opening import kinds_of
from schemas.settings import ConfigError

TRAIN: Final = "train"
_SAVED: Final = ("dataset_dict.json", "state.json")
_KEYWORDS: Final = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARDED: Final = re.compile(r"\w+(?:\.\w+)*-\d{5}-of-\d{5}.*\..*")
_CONFIGS: Final = re.compile(r"\A\ufeff?---\s*\n(?:(?!---).*\n)*?configs:", re.MULTILINE)


class Choice(NamedTuple):
    """Which part of a dataset is meant."""

    split: str | None = None
    config: str | None = None


class Layout(NamedTuple):
    """The files of a dataset: those of the splits that are read, and what is left out, with why."""

    files: list[str]
    ignored: list[str]


def is_dataset(directory: Path, suffixes: tuple[str, ...]) -> bool:
    """Tell whether a directory has splits: by what save_to_disk leaves in it, by its card, or by the names of its files.

    Names tell when files or directories of theirs are those of two splits, or shards as load_dataset numbers them in data/.
    """
    if any((directory / name).is_file() for name in _SAVED) or _has_configs(directory):
        return True
    data = directory / "data"
    if data.is_dir() and any(_SHARDED.fullmatch(path.name) and path.name.endswith(suffixes) for path in data.iterdir()):
        return True
    files = [path.name for path in directory.iterdir() if path.name.endswith(suffixes) and path.is_file()]
    names = files or [path.name for path in directory.iterdir() if path.is_dir()]
    splits = {split for name in names if (split := _split_of(name))}
    return TRAIN in splits and (len(splits) > 1 or not files)


def _has_configs(directory: Path) -> bool:
    try:
        return _CONFIGS.match((directory / "README.md").read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return False


def _split_of(name: str) -> str | None:
    words = re.split(r"[-._ 0-9]+", name)
    return next((split for split, keywords in _KEYWORDS.items() if any(word in keywords for word in words)), None)


def layout_of(
    directory: Path, split: str | None, config: str | None, *, where: str, suffixes: tuple[str, ...]
) -> Layout:
    """Return the files of `split` ("train" unless given; several joined by +) in a directory that is_dataset.

    Raises ConfigError, beginning with `where`, for a split or config that the dataset does not have, naming those it has.
    """
    splits = _saved(directory, config, where) if _is_saved(directory) else _published(directory, config, where)
    names = list(splits)
    has_no_choice = split is None and len(splits) == 1 and _is_saved(directory)
    wanted = names if has_no_choice else (split or TRAIN).split("+")
    absent = [name for name in wanted if name not in splits]
    if absent:
        there = ", ".join(f"{name} ({len(files)} file{'s' * (len(files) != 1)})" for name, files in splits.items())
        raise ConfigError(
            f"{where}: the dataset has no split {absent[0]!r}; there are: {there or 'none'}. "
            'Set split = "..." in its [[source.sets]]'
        )
    found = list(dict.fromkeys(file for name in wanted for file in splits[name]))
    files = [file for file in found if file.endswith(suffixes)]
    if not files:
        raise ConfigError(f"{where}: split {'+'.join(wanted)} has no file that is read ({kinds_of(suffixes)})")
    left = [
        f"{file} (split {name})" for name in names if name not in wanted for file in splits[name] if file not in found
    ]
    return Layout(files, [*(file for file in found if file not in files), *left])


def _is_saved(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _SAVED)


def _saved(directory: Path, config: str | None, where: str) -> dict[str, list[str]]:
    """Return the files of each split that save_to_disk wrote."""
    if config is not None:
        raise ConfigError(f"{where}: a dataset of save_to_disk has no configs, and config = {config!r} asks for one")
    if (directory / _SAVED[0]).is_file():
        names = _names(_json(directory / _SAVED[0], where).get("splits"))
        if names is None:
            raise ConfigError(f"{where}: {_SAVED[0]} does not list its splits; save the dataset again")
        return {name: _files_of(directory / name, where) for name in names}
    split = _json(directory / _SAVED[1], where).get("_split")
    return {split if isinstance(split, str) else TRAIN: _files_of(directory, where)}


def _files_of(directory: Path, where: str) -> list[str]:
    files = _json(directory / _SAVED[1], where).get("_data_files")
    names = (
        _names([file.get("filename") if isinstance(file, dict) else None for file in files])
        if isinstance(files, list)
        else None
    )
    if names is None:
        raise ConfigError(f"{where}: {directory / _SAVED[1]} does not list its files; save the dataset again")
    absent = [name for name in names if not (directory / name).is_file()]
    if absent:
        raise ConfigError(f"{where}: {directory / absent[0]} is missing; copy the whole dataset again")
    return [str(directory / name) for name in names]


def _names(listed: Any) -> list[str] | None:
    """Return the names of files or directories that a file lists; None unless they are such, and lie beside it."""
    if not isinstance(listed, list):
        return None
    names = [name for name in listed if isinstance(name, str) and name not in ("", "..") and Path(name).name == name]
    return names if len(names) == len(listed) else None


def _json(path: Path, where: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {path} cannot be read: {error}") from None
    return value if isinstance(value, dict) else {}


def _published(directory: Path, config: str | None, where: str) -> dict[str, list[str]]:
    """Return the files of each split that load_dataset would read, found by its own rules: card, numbered shards, names."""
    with with_companions():  # the library asks for pandas; and takes its time to load
        from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
        from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData
    from huggingface_hub.repocard import RepoCard

    base = directory.absolute()
    card = directory / "README.md"
    try:
        data = RepoCard.load(card, ignore_metadata_errors=False).data if _has_configs(directory) else DatasetCardData()
        configs = MetadataConfigs.from_dataset_card_data(data)
        chosen = configs[_chosen(configs, config, configs.get_default_config_name(), where)] if configs else {}
        if config is not None and not configs:
            raise ConfigError(f"{where}: the dataset has no configs, and config = {config!r} asks for one")
        inside = base / chosen.get("data_dir", ".")
        patterns = sanitize_patterns(chosen["data_files"]) if "data_files" in chosen else get_data_patterns(str(inside))
        found = DataFilesDict.from_patterns(patterns, base_path=str(inside))
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"{where}: {_first_line(error)}") from None
    except Exception as error:  # noqa: BLE001 - a card may be wrong in any way, and what reads it is not ours
        raise ConfigError(
            f"{where}: its card, {card}, cannot be followed: {type(error).__name__}: {_first_line(error)}"
        ) from None
    return {
        str(split): [_inside(str(file), base, directory, where) for file in files] for split, files in found.items()
    }


def _chosen(configs: Sequence[str], config: str | None, default: str | None, where: str) -> str:
    names = list(configs)
    if config is None and (default is not None or len(names) == 1):
        return default or names[0]
    if config not in names:
        asked = f"no config {config!r}" if config is not None else "several configs and no default"
        raise ConfigError(
            f"{where}: the dataset has {asked}; there are: {', '.join(names)}. "
            'Set config = "..." in its [[source.sets]]'
        )
    assert config is not None
    return config


def _inside(file: str, base: Path, directory: Path, where: str) -> str:
    """Return the path of a file as the user would write it."""
    if "://" in file or ".." in Path(file).parts or not Path(file).is_relative_to(base):
        raise ConfigError(
            f"{where}: its card names {file}, which is not in the dataset; give that as an input of its own"
        )
    return str(directory / Path(file).relative_to(base))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
