"""Which files the inputs name."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.source.opening import COMPRESSED
from pipeline.source.settings import Source
from schemas.settings import ConfigError
from stages.ingest.rules import NO_RULES, rules_text

_PACKED: Final = ("", *COMPRESSED)
SUFFIXES: Final = tuple(kind + packed for packed in _PACKED for kind in (".jsonl", ".ndjson", ".json"))
TEXT_SUFFIXES: Final = tuple(".txt" + packed for packed in _PACKED)
"""Lines of plain text: they can be compared with, but hold no conversations."""


def expand(
    inputs: Sequence[str], *, what: str = "input", suffixes: tuple[str, ...] = SUFFIXES
) -> tuple[list[str], list[str]]:
    """Return (input files, ignored files): each once, globs and directories expanded in sorted order.

    Ignored is what a directory holds beside files of a known kind. Raises ConfigError for an input that names no file, and
    for a file of a kind that is not read.
    """
    if not inputs:
        raise ConfigError("[source] inputs is empty: name files, directories or globs, or give --input PATH")
    paths: dict[tuple[int, int], str] = {}  # the same file under two names is read once
    ignored: list[str] = []
    for given in inputs:
        if not given.strip():  # it would be the current directory: a variable of the shell that is not set
            raise ConfigError(
                f"{what} {given!r}: expected the path of a file, a directory or a glob, got an empty text"
            )
        path = Path(given)
        if path.is_file():
            found = [given]
        elif path.is_dir():
            inside = sorted(str(p) for p in path.iterdir())
            found = [name for name in inside if name.endswith(suffixes) and Path(name).is_file()]
            ignored += [name for name in inside if name not in found]
        else:
            found = sorted(p for p in glob.glob(given, recursive=True) if Path(p).is_file())  # noqa: PTH207 - ** and case
        if not found:
            lacks = "the directory holds" if path.is_dir() else "no such file, and there is"
            raise ConfigError(f"{what} {given!r}: {lacks} no {', '.join(suffixes)} file (seen from {Path.cwd()})")
        for name in found:
            if not name.endswith(suffixes):
                raise ConfigError(f"{what} {name}: cannot read this kind of file; known: {', '.join(suffixes)}")
            if not name.isprintable():
                raise ConfigError(f"{what} {name!a}: the name holds characters that cannot be printed; rename the file")
            status = Path(name).stat()
            paths.setdefault((status.st_dev, status.st_ino), name)
    return list(paths.values()), ignored


def expand_sets(
    config: Source, *, what: str = "input", suffixes: tuple[str, ...] = SUFFIXES
) -> tuple[dict[str, str | None], list[str], dict[str, int]]:
    """Return (each input file with the rules of its set, as stages.ingest.rules writes them, or None; ignored files; the
    number of each file's set, from 1, or 0).

    The files of `inputs` come first, then those of each set; a file that both name belongs to the set, in its place among
    `inputs`. Raises ConfigError as expand does, and for a file that two sets name.
    """
    found: dict[str, str | None] = {}
    ignored: list[str] = []
    names: dict[tuple[int, int], str] = {}
    owner: dict[str, int] = {}
    groups = [(0, what, config.inputs, NO_RULES)] if config.inputs or not config.sets else []
    for number, each in enumerate(config.sets, 1):
        groups.append((number, f"[[source.sets]] {number}", each.inputs, each.rules()))
    for number, where, inputs, rules in groups:
        paths, beside = expand(inputs, what=where, suffixes=suffixes)
        ignored += beside
        for path in paths:
            status = Path(path).stat()
            name = names.setdefault((status.st_dev, status.st_ino), path)
            if number and (other := owner.setdefault(name, number)) != number:
                raise ConfigError(
                    f"[[source.sets]] {number}: {path} is also in set {other}; a file has the settings of one set, so take it "
                    "out of one of them"
                )
            found[name] = rules_text(rules) if rules != NO_RULES else None
    return (
        found,
        [path for path in dict.fromkeys(ignored) if path not in found],
        {path: owner.get(path, 0) for path in found},
    )
