"""Rows of a finished run, found by number or by id; nothing is read of a row that is not asked for."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.manifest import REFERENCES, REFERENCES_DIRECTORY, FileRecord, Manifest, read_manifest
from schemas.settings import ConfigError, Document, read_toml, suggest

Row = dict[str, Any]
TEXTS: Final = "length"
"""The stage that has the messages of every row that is compared."""


def need_manifest(run: Path, stage: str) -> Manifest:
    """Return the manifest of a finished stage. Raises ConfigError, with the command that finishes it."""
    manifest = read_manifest(run, stage)
    if manifest is None:
        config = run / "config.toml" if (run / "config.toml").is_file() else f"CONFIG --run {run}"
        raise ConfigError(
            f"{run / stage}: not built, or not up to date; `chatloom data {config} --until {stage}` builds it"
        )
    return manifest


def files_of(manifest: Manifest, half: str = "kept") -> list[FileRecord]:
    """Return the files of a stage's kept or dropped rows, in the order of their rows."""
    return [file for shard in manifest.shards for file in shard.files if file.path.startswith(half)]


def row_at(directory: Path, files: Sequence[FileRecord], row: int) -> tuple[int, Row] | None:
    """Return (number, values) of a row by its number; None if there are not so many."""
    position = row
    for file in files:
        if 0 <= position < file.rows:
            return row, _values(directory / file.path, position)
        position -= file.rows
    return None


def find_reason(directory: Path, files: Sequence[FileRecord], reason: str, nth: int) -> tuple[int, Row] | int:
    """Return (number, values) of the `nth` row, from 0, that was dropped for a reason; or how many there are, if not so many."""
    first = n_found = 0
    for file in files:
        with pa.memory_map(str(directory / file.path)) as source:
            column = pa.ipc.open_file(source).read_all()["drop_reason"]
        at = np.flatnonzero(pc.equal(column, reason).to_numpy())
        if 0 <= nth - n_found < len(at):
            place = int(at[nth - n_found])
            return first + place, _values(directory / file.path, place)
        n_found += len(at)
        first += file.rows
    return n_found


def find(directory: Path, files: Sequence[FileRecord], wanted: str) -> tuple[int, Row] | None:
    """Return (number, values) of the row with an id, or of the pack that holds it; None if there is none."""
    first = 0
    for file in files:
        with pa.memory_map(str(directory / file.path)) as source:
            table = pa.ipc.open_file(source).read_all()
            if "ids" in table.column_names:
                column = table["ids"].combine_chunks()
                at = pc.index(column.flatten(), wanted).as_py()
                at = column.value_parent_indices()[at].as_py() if at >= 0 else -1
            else:
                at = pc.index(table["id"], wanted).as_py()
        if at >= 0:
            return first + at, _values(directory / file.path, at)
        first += file.rows
    return None


def find_part(directory: Path, files: Sequence[FileRecord], wanted: str) -> tuple[int, Row] | None:
    """Return (number, values) of the first row that is of a record or a conversation: `<wanted>.1`, `#1`, or of both.

    None if there is none.
    """
    is_part = re.compile(re.escape(wanted) + r"(\.\d+)?(#\d+)?").fullmatch
    for file in files:
        with pa.memory_map(str(directory / file.path)) as source:
            table = pa.ipc.open_file(source).read_all()
            column = table["ids"].combine_chunks().flatten() if "ids" in table.column_names else table["id"]
            near = pc.filter(column, pc.starts_with(column, wanted)).to_pylist()
        if (part := next(filter(is_part, near), None)) is not None:
            return find(directory, files, part)
    return None


def take(
    directory: Path, files: Sequence[FileRecord], rows: NDArray[np.int64], columns: Sequence[str]
) -> Iterator[tuple[slice, pl.DataFrame]]:
    """Yield (which of `rows`, their columns) file by file; `rows` are numbers that ascend."""
    first = at = 0
    for file in files:
        until = int(np.searchsorted(rows, first + file.rows))
        if until > at:
            with pa.memory_map(str(directory / file.path)) as source:
                table = pa.ipc.open_file(source).read_all().select(list(columns))
                yield slice(at, until), _frame(table.take(pa.array(rows[at:until] - first)))
        at, first = until, first + file.rows


def conversations(run: Path, wanted: Collection[str]) -> dict[str, Row]:
    """Return the conversations with these ids, by id: from the run, or from the files it was compared with."""
    missing, found = set(wanted), dict[str, Row]()
    for home in _homes(run) if wanted else ():
        manifest = read_manifest(home, TEXTS)
        for file in files_of(manifest) if manifest else ():
            if not missing:
                return found
            with pa.memory_map(str(home / TEXTS / file.path)) as source:
                table = pa.ipc.open_file(source).read_all()
                hits = table.filter(pc.is_in(table["id"], pa.array(sorted(missing), pa.string())))
                found |= {row["id"]: row for row in _frame(hits).iter_rows(named=True)}
            missing -= found.keys()
    return found


def settings(run: Path, section: str) -> Mapping[str, Any]:
    """Return a section of the config that a run was last built with; nothing where that cannot be read."""
    try:
        document: Document = read_toml(run / "config.toml")
    except ConfigError:
        return {}
    values = document.get(section, {})
    return values if isinstance(values, dict) else {}


def fate(run: Path, wanted: str) -> str:
    """Say where a conversation was dropped, or what ids look like."""
    some: list[str] = []
    for stage in ("pack", "mask", "tokenize", "render", "dedup", "length", "ingest"):
        manifest = read_manifest(run, stage)
        if manifest is None:
            continue
        dropped = files_of(manifest, "dropped")
        found = find(run / stage, dropped, wanted) or find_part(run / stage, dropped, wanted)
        if found is not None:
            reason, own = found[1]["drop_reason"], found[1].get("id", wanted)
            return f"It was dropped by {stage}: {reason} (chatloom look {run} {stage} --dropped --id {own!r})"
        if stage == "ingest":
            some = [_values(run / stage / file.path, 0)["id"] for file in files_of(manifest) if file.rows]
    said = suggest(wanted, some[:10]) if some else "Ids are <source path>:<line>"
    return said[:1].upper() + said[1:]


def _homes(run: Path) -> Iterator[Path]:
    """Yield the directories that have texts: the run, what was built of its references, and runs that are references."""
    yield run
    yield from (run / REFERENCES_DIRECTORY / name for name in REFERENCES)
    given = settings(run, "clusters")
    yield from (Path(path) for name in REFERENCES for path in given.get(name, ()))


def _values(path: Path, row: int) -> Row:
    with pa.memory_map(str(path)) as source:
        return _frame(pa.ipc.open_file(source).read_all().slice(row, 1)).row(0, named=True)


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
