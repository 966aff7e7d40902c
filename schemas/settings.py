"""Strict settings: TOML in, frozen structs out; what is unknown, mistyped or impossible is an error with a remedy."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from schemas.errors import UserError

T = TypeVar("T")
Document = dict[str, Any]

SECTION_NAMES: Final = (
    "source",
    "ingest",
    "length",
    "signatures",
    "clusters",
    "dedup",
    "render",
    "tokenize",
    "mask",
    "pack",
    "model",
    "lora",
    "train",
    "generation",
)
"""Every section of a config, in order; pipeline.config says what is in them."""

_ELSEWHERE = {
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps",
    "batch_size": "batch",
    "eval_steps": "eval_every",
    "learning_rate": "lr",
    "logging_steps": "log_every",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lr_scheduler_type": "schedule",
    "max_grad_norm": "clip",
    "max_length": "max_seq_len",
    "max_seq_length": "max_seq_len",
    "max_steps": "steps",
    "max_tokens": "max_new_tokens",
    "model_name_or_path": "path",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "micro_batch",
    "r": "rank",
    "report_to": "track",
    "save_steps": "checkpoint_every",
    "save_total_limit": "keep_checkpoints",
    "target_modules": "targets",
}
"""Names that other trainers (transformers, TRL, PEFT) have for settings of this project."""

_INSTEAD = {
    "train.epochs": "train.steps",
    "train.steps": "train.epochs",
    "train.warmup_ratio": "train.warmup_steps",
    "train.warmup_steps": "train.warmup_ratio",
}
"""Settings of which one may be given, each with the other: the file's gives way to what is said on the command line."""

_PROBLEM = re.compile(r"^(?P<what>.*?)(?: - at (?P<of>`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"[^.\[\]]+|\[[^\]]*\]")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `([^`]*)`")


class ConfigError(UserError, ValueError):
    """The user's configuration cannot be used; the text says where, what was found and what to do."""


def read_toml(path: Path) -> Document:
    """Return the document in `path`. Raises ConfigError when it is missing or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such config file; name one, seen from {Path.cwd()} (the project's own are in its configs/)"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory; give a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def apply_overrides(document: Document, assignments: Iterable[str]) -> Document:
    """Return a copy of `document` with each `section.key=value` put in; values are TOML, or else plain text.

    Where two settings say the same in two ways, the one that is put in replaces the document's other.
    """
    assignments = tuple(assignments)
    changed: Document = {name: dict(value) if isinstance(value, dict) else value for name, value in document.items()}
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        names = [name.strip() for name in dotted.split(".")]
        if not equals or len(names) > 2 or not all(names):
            raise ConfigError(
                f"--set {assignment!r}: expected KEY=VALUE or SECTION.KEY=VALUE, e.g. --set length.min_chars=20"
            )
        target = changed if len(names) == 1 else changed.setdefault(names[0], {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {assignment!r}: {names[0]} is a value, not a section")
        target[names[-1]] = _toml_value(text)
        given = {assigned.partition("=")[0].strip() for assigned in assignments}
        if (other := _INSTEAD.get(".".join(names))) is not None and other not in given:
            target.pop(other.partition(".")[2], None)
    return changed


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names what `name` is called here, or the closest known name, or all of them."""
    names = sorted(known)
    if (ours := _ELSEWHERE.get(name)) in names:
        return f"it is called {ours!r} here"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def check_names(
    document: Mapping[str, Any], known: Sequence[str], *, where: str, sections: Mapping[str, type] | None = None
) -> None:
    """Raise ConfigError if `document` has a top-level name that is not `known`; `sections` help to say what was meant."""
    for name in document:
        if name not in known:
            kind = "section" if isinstance(document[name], dict) else "key"
            homes = [section for section, fields in (sections or {}).items() if name in get_type_hints(fields)]
            if homes and kind == "key":
                raise ConfigError(
                    f"{where}: unknown key {name!r}; did you mean {' or '.join(f'{h}.{name}' for h in homes)}?"
                )
            raise ConfigError(f"{where}: unknown {kind} {name!r}; {suggest(name, known)}")


def decode_section(document: Mapping[str, Any], name: str, kind: type[T], *, where: str) -> T:
    """Return section `name` of `document` as a `kind`, every absent key at its default.

    Raises ConfigError that names the file, section and key, what was expected, what was found and the nearest name.
    """
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: {name} must be a section, [{name}]; got {section!r}")
    known = get_type_hints(kind)
    for key in section:
        if key not in known:
            raise ConfigError(f"{where}: [{name}] unknown key {key!r}; {suggest(key, known)}")
    try:
        return msgspec.convert(section, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(str(error), name, section, known)}") from None


def _explain(problem: str, name: str, section: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return what is wrong in a section: where, what was found, what would be right."""
    match = _PROBLEM.match(problem)
    assert match is not None
    what, path = match["what"], (match["path"] or "").lstrip(".")
    if not path:  # keys that contradict each other; the text names them
        return f"[{name}] {what}"
    key, *steps = _STEP.findall(path)
    text = f"[{name}] {path} = {_value_at(section.get(key), steps)!r}: {what[:1].lower()}{what[1:]}"
    kinds = _kinds_at(known.get(key), steps)
    if what.startswith("Invalid enum value"):
        choices = [choice for kind in kinds for choice in _choices(get_args(kind)[0] if match["of"] else kind)]
        text += f"; choose one of {', '.join(dict.fromkeys(choices))}"
    elif (field := _UNKNOWN_FIELD.match(what)) is not None:
        text += f"; {suggest(field[1], [name for kind in kinds for name in _fields(kind)])}"
    elif what == "Expected `array`, got `object`" and any(map(_fields, _kinds_at(known.get(key), [*steps, "[...]"]))):
        text += f"; a table of several begins with two brackets: [[{name}.{path}]]"
    elif what == "Expected `array`, got `str`":
        text += "; write brackets around it, also where there is only one"
    return text


def _value_at(value: Any, steps: Sequence[str]) -> Any:
    """Return what stands where `steps`, names of keys and [number], lead to in a value; what is before one that leads nowhere."""
    for step in steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and (number := step.strip("[]")).isdecimal():
            value = value[int(number)]
        else:
            break
    return value


def _kinds_at(kind: Any, steps: Sequence[str]) -> list[Any]:
    """Return the types that stand where `steps`, names of fields and [...] of containers, lead to within a type."""
    if get_origin(kind) in (Union, UnionType):
        return [found for part in get_args(kind) for found in _kinds_at(part, steps)]
    if not steps:
        return [kind]
    inner = [_fields(kind)[steps[0]]] if steps[0] in _fields(kind) else []
    # the values of a mapping and the items of a sequence come last
    inner = inner or [part for part in get_args(kind) if part is not Ellipsis][-1:]
    return [found for part in inner for found in _kinds_at(part, steps[1:])]


def _fields(kind: Any) -> dict[str, Any]:
    """Return the types of a struct's fields under the names that a config uses; none for another type."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    hints = get_type_hints(kind)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}


def _choices(kind: Any) -> list[str]:
    """Return the values that a Literal, or the Literals of a union, allow."""
    if get_origin(kind) is Literal:
        return [repr(value) for value in get_args(kind)]
    return [choice for part in get_args(kind) for choice in _choices(part)]
