"""Which files the inputs name."""

import glob
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.source.datasets_dir import Choice, Layout, is_dataset, layout_of
from pipeline.source.hub import SCHEME, dataset_of, find_dataset
from pipeline.source.opening import COMPRESSED, kinds_of
from pipeline.source.settings import Source
from pipeline.source.urls import identity, is_url, without_query
from schemas.settings import ConfigError
from stages.ingest.rules import NO_RULES, rules_text

_PACKED: Final = ("", *COMPRESSED)
_KINDS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
SUFFIXES: Final = tuple(kind + packed for packed in _PACKED for kind in _KINDS)
DELIMITED_SUFFIXES: Final = (".csv", ".tsv")
_ABOUT: Final = frozenset(("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"))
"""Files that the library datasets writes about a dataset: beside its records, and none of them."""
TEXT_SUFFIXES: Final = tuple(".txt" + packed for packed in _PACKED)
"""Lines of plain text: they can be compared with, but hold no conversations."""


def expand(
    inputs: Sequence[str],
    *,
    what: str = "input",
    suffixes: tuple[str, ...] = SUFFIXES,
    choice: Choice | None = None,
) -> tuple[list[str], list[str]]:
    """Return (input files, ignored files): each once, globs and directories expanded in sorted order.

    Ignored is what a directory holds beside files of a known kind, and of a dataset what `choice` leaves out; without it,
    directories are no datasets, and names of datasets on the hub are none. Raises ConfigError for an input that names no
    file, and for a file of a kind that is not read.
    """
    if not inputs:
        raise ConfigError("[source] inputs is empty: name files, directories or globs, or give --input PATH")
    paths: dict[tuple[str, str], str] = {}  # the same file under two names is read once
    ignored: list[str] = []
    for given in inputs:
        if not given.strip():  # it would be the current directory: a variable of the shell that is not set
            raise ConfigError(
                f"{what} {given!r}: expected the path of a file, a directory or a glob, got an empty text"
            )
        try:
            dataset = None if choice is None else _dataset(given, what, suffixes, choice)
            if dataset is not None:
                found, beside = dataset
            else:
                found, beside = _elsewhere(given, what, suffixes) if is_url(given) else _here(given, what, suffixes)
        except OSError as error:
            inside = f" ({error.filename})" if error.filename not in (None, given) else ""
            raise ConfigError(f"{what} {given!r}: cannot be read: {error.strerror or error}{inside}") from None
        ignored += beside
        if not found:
            raise ConfigError(f"{what} {given!r}: {_lack(given, beside, suffixes)}")
        for name in found:
            if not without_query(name).endswith(suffixes):
                raise ConfigError(f"{what} {name}: cannot read this kind of file; known: {kinds_of(suffixes)}")
            if not name.isprintable():
                raise ConfigError(f"{what} {name!a}: the name holds characters that cannot be printed; rename the file")
            paths.setdefault(identity(name), name)
    return list(paths.values()), ignored


def _lack(given: str, beside: Sequence[str], suffixes: tuple[str, ...]) -> str:
    """Return why an input names no file."""
    seen = "" if is_url(given) or given.startswith(SCHEME) else f" (seen from {Path.cwd()})"
    if beside or Path(given).is_dir():
        below = given.removesuffix("/") + "/**"
        is_deep = given.endswith("**") or not any(Path(name).is_dir() for name in beside)
        hint = "" if is_deep else f"; {below!r} reads its directories, too"
        return f"the directory holds no file that is read ({kinds_of(suffixes)}){hint}{seen}"
    if glob.has_magic(given) or is_url(given):
        return f"it names no file that is read ({kinds_of(suffixes)}){seen}"
    return f"no such file or directory{seen}"


def _dataset(given: str, what: str, suffixes: tuple[str, ...], choice: Choice) -> Layout | None:
    """Return the files of the dataset that an input names; None if it names none."""
    where, path = f"{what} {given!r}", Path(given)
    if path.is_dir():
        if any(choice) or is_dataset(path, suffixes):
            return layout_of(path, *choice, where=where, suffixes=suffixes)
        return None
    if given.startswith(SCHEME) or not (path.exists() or path.is_symlink() or is_url(given)):
        named = dataset_of(given, suffixes)
        if named is not None:
            return find_dataset(named, *choice, where=where, suffixes=suffixes)
    if any(choice):
        raise ConfigError(f"{where}: no dataset, and split or config of its set would choose a part of one; drop them")
    return None


def _elsewhere(given: str, what: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return (the files that a URL names, what its directory holds besides)."""
    from pipeline.source.remote import find

    found, is_directory = find(given, what)
    known = [name for name in found if without_query(name).endswith(suffixes)] if is_directory else found
    return known, [name for name in found if name not in known]


def _here(given: str, what: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return (the files that a path or glob names, what a directory, or dir/**, holds besides).

    Raises ConfigError for what has the name of a data file and can never be read as one, OSError.
    """
    path = Path(given)
    if path.is_dir():
        found = sorted(str(inside) for inside in path.iterdir())
    elif path.exists() or path.is_symlink():
        found = [given]
    else:
        found = sorted(name for name in set(_matching(given)) if not Path(name).is_dir())
    for name in found:
        if (name == given or name.endswith(suffixes)) and (wrong := _wrong(Path(name))):
            raise ConfigError(f"{what} {name}: {wrong}")
    if not path.is_dir() and not given.endswith("**"):
        return found, []
    known = [name for name in found if name.endswith(suffixes) and Path(name).is_file()]
    known = [name for name in known if Path(name).name not in _ABOUT]
    return known, [name for name in found if name not in known]


def _matching(pattern: str) -> Iterator[str]:
    """Yield what a glob names; below ** each directory once, whatever it is called: links may lead in a circle.

    Raises OSError for a directory below ** that may not be read.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207 - case, and names as given
        return
    at = parts.index("**")
    top, rest = "/".join(parts[:at]), "/".join(parts[at + 1 :])
    tops = sorted(glob.glob(top)) if glob.has_magic(top) else [top]  # noqa: PTH207
    seen: set[tuple[int, int]] = set()
    for each in [f"{name}/" for name in tops if Path(name or "/").is_dir()] if at else [""]:
        for directory in _below(each, seen):
            yield from _matching(f"{glob.escape(directory)}{rest or '*'}")


def _below(top: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield a directory and all below it that are not hidden, by their names with a slash behind, but for those `seen`."""
    pending = [top]
    while pending:
        directory = pending.pop()
        path = Path(directory or ".")
        status = path.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        yield directory
        names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
        pending += [f"{directory}{name}/" for name in sorted(names, reverse=True)]


def _wrong(path: Path) -> str | None:
    """Return why a path that is there is no file and no directory."""
    if path.is_symlink() and not path.exists():
        return f"a link that leads nowhere, to {path.readlink()}; mend it, or remove it"
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "not a file whose bytes lie on disk (a pipe, a socket or a device); save it to a file first"


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
    names: dict[tuple[str, str], str] = {}
    owner: dict[str, int] = {}
    groups = [(0, what, config.inputs, NO_RULES, Choice())] if config.inputs or not config.sets else []
    for number, each in enumerate(config.sets, 1):
        choice = Choice(each.split, each.config)
        groups.append((number, f"[[source.sets]] {number}", each.inputs, each.rules(), choice))
    for number, where, inputs, rules, choice in groups:
        paths, beside = expand(inputs, what=where, suffixes=suffixes, choice=choice)
        ignored += beside
        for path in paths:
            name = names.setdefault(identity(path), path)
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
