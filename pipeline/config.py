"""The settings of one run: a TOML file states what differs from the defaults, and nothing unknown passes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import tomli_w

from pipeline.graph import CONFIGS
from pipeline.source import Source
from schemas.errors import GateError
from schemas.generation import Generation
from schemas.models import Lora, Model
from schemas.settings import ConfigError, Document, apply_overrides, check_names, decode_section, read_toml
from schemas.spans import FROM_DATA
from schemas.training import Train
from stages.clusters.bands import choose_bands
from stages.clusters.rank import FROM_RECORDS
from stages.mask.table import CLASSES, ROLES, weight_table

SECTIONS: Final[dict[str, Any]] = {
    "source": Source,
    **CONFIGS,
    "model": Model,
    "lora": Lora,
    "train": Train,
    "generation": Generation,
}
SEEDED: Final = ("source", "dedup")
"""Sections whose `seed` is the run's unless they state their own."""
LIMITED: Final = "tokenize"
"""The section whose `max_seq_len` is that of [pack] unless it states its own."""
MASKED: Final = "mask"
"""The section that says what becomes of answers without a stop, which [tokenize] cut_answers makes."""

_EXAMPLES: Final = {"created": "timestamp", "score": "meta.quality"}
"""A value of a setting of [ingest] that names a key, to say what such a key looks like."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A whole config, every value decided."""

    run: str
    """The run directory."""
    seed: int
    """Seed of every random choice: the split, the order of training, the initial weights."""
    sections: dict[str, Any]
    """Section name to its frozen struct."""

    @property
    def source(self) -> Source:
        """Return the section [source]."""
        section = self.sections["source"]
        assert isinstance(section, Source)
        return section

    def to_toml(self) -> bytes:
        """Return the config as TOML, defaults included; a value that is not set is left out."""
        document: Document = {"run": self.run, "seed": self.seed}
        for name, section in self.sections.items():
            document[name] = _without_null(msgspec.to_builtins(section))
        return tomli_w.dumps(document).encode()


def _without_null(value: Any) -> Any:
    """Return a value without the keys, at any depth, that have none: TOML has no null."""
    if isinstance(value, dict):
        return {key: _without_null(inside) for key, inside in value.items() if inside is not None}
    return [_without_null(inside) for inside in value] if isinstance(value, list | tuple) else value


def load_config(
    path: Path, *, assignments: Sequence[str] = (), inputs: Sequence[str] = (), run: str | None = None
) -> Config:
    """Return the config in `path`, with the command line's changes put in.

    Raises ConfigError that names file, key, what was found, what was expected and the nearest valid name.
    """
    document = apply_overrides(read_toml(path), assignments)
    changed = [*(f"--set {assignment}" for assignment in assignments), *(f"--input {given}" for given in inputs)]
    if inputs:
        given = {name: value for name, value in document.get("source", {}).items() if name != "sets"}
        document["source"] = given | {"inputs": list(inputs)}
    if run is not None:
        document["run"] = run
    where = " with ".join([str(path), ", ".join(changed)] if changed else [str(path)])
    check_names(document, ["run", "seed", *SECTIONS], where=where, sections=SECTIONS)
    seed = document.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise ConfigError(f"{where}: seed = {seed!r}: expected a whole number >= 0")
    name = document.get("run", f"runs/{path.stem}")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where}: run = {name!r}: expected the path of a directory, e.g. 'runs/{path.stem}'")
    sections = {}
    for section, kind in SECTIONS.items():
        if section in SEEDED and isinstance(document.get(section, {}), dict):
            document[section] = {"seed": seed} | document.get(section, {})
        sections[section] = decode_section(document, section, kind, where=where)
    sections[LIMITED] = _limited(sections[LIMITED], sections["pack"].max_seq_len, where)
    _refuse_idle(sections["clusters"].thresholds, sections["signatures"].scopes, where)
    _refuse_unfindable(sections["clusters"], sections["signatures"], where)
    _refuse_undecided(sections["clusters"].criteria, sections["ingest"], where)
    _refuse_unfinished(sections[LIMITED], sections[MASKED], where)
    _refuse_weightless(sections["render"], sections[MASKED], where)
    return Config(run=name, seed=seed, sections=sections)


def _limited(section: Any, capacity: int, where: str) -> Any:
    """Return a section whose `max_seq_len` is decided. Raises ConfigError where it allows what no pack could hold."""
    if section.max_seq_len is None:
        return msgspec.structs.replace(section, max_seq_len=capacity)
    if section.max_seq_len > capacity:
        raise ConfigError(
            f"{where}: [{LIMITED}] max_seq_len = {section.max_seq_len} exceeds [pack] max_seq_len = {capacity}, so that "
            f"pack would drop what is longer; raise that of [pack], or leave out [{LIMITED}] max_seq_len, which is then the same"
        )
    return section


def _refuse_idle(thresholds: Mapping[str, float], scopes: Sequence[str], where: str) -> None:
    """Raise ConfigError for a threshold that nothing would be held to."""
    for scope in thresholds:
        if scope not in scopes:
            asked = ", ".join(f'"{name}"' for name in scopes)
            raise ConfigError(
                f'{where}: [clusters] thresholds names "{scope}", which is not compared: [signatures] scope is {asked}. Add '
                f'"{scope}" to it, or leave out its threshold'
            )


def _refuse_unfindable(clusters: Any, signatures: Any, where: str) -> None:
    """Raise ConfigError for a threshold too low for the sketches, which would stop the build when all are made."""
    for scope in signatures.scopes:
        try:
            choose_bands(signatures.num_perm, clusters.threshold_of(scope), clusters.recall)
        except GateError as error:
            raise ConfigError(f"{where}: {error}") from None


def _refuse_undecided(criteria: Sequence[str], ingest: Any, where: str) -> None:
    """Raise ConfigError for a criterion that goes by what is not read from the records: it would decide nothing."""
    for name in criteria:
        key = FROM_RECORDS.get(name)
        if key is not None and getattr(ingest, key) is None:
            raise ConfigError(
                f'{where}: [clusters] keep names "{name}", but [ingest] {key} is not set, so that no row has one. Name the key '
                f'of the records that holds it, e.g. [ingest] {key} = "{_EXAMPLES[key]}", or leave "{name}" out of keep'
            )


def _refuse_unfinished(tokenize: Any, mask: Any, where: str) -> None:
    """Raise ConfigError where answers are cut and the mask would refuse the first of them, hours into a build."""
    if tokenize.cut_answers and mask.without_stop == "refuse":
        raise ConfigError(
            f"{where}: [{LIMITED}] cut_answers = true makes answers that do not end on a stop token, and [{MASKED}] "
            'without_stop = "refuse" stops the build at the first of them; set it to "train" (the beginning of such an '
            'answer is trained) or "mask" (it is kept, untrained), or leave out cut_answers'
        )


def _refuse_weightless(render: Any, mask: Any, where: str) -> None:
    """Raise ConfigError for a rule that multiplies weights which are all zero: it would do nothing, without a word."""
    weights = weight_table(mask)
    for number, rule in enumerate(render.scoped, 1):
        roles = [role for role in ROLES if role and rule.role in (role, "*")]
        classes = [name for name in CLASSES if name in FROM_DATA and rule.class_ in (name, "*")]
        meant = weights[np.ix_([ROLES.index(role) for role in roles], [CLASSES.index(name) for name in classes])]
        if not meant.any():
            raise ConfigError(
                f"{where}: [[render.scoped]] rule {number} (pattern {rule.pattern!r}) multiplies the weight of "
                f"{rule.class_!r} of {rule.role!r}, which [{MASKED}] sets to 0, and zero stays zero; give it a weight in "
                f"[{MASKED}] weights, or leave out the rule"
            )
