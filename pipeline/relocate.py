"""Shards follow their content: when inputs are added or reordered, what is built moves to its new place."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from pipeline.source import Chunk
from pipeline.store import Store
from schemas.files import TEMPORARY, remove, write_whole
from schemas.manifest import STAGES

_ASIDE: Final = f"{TEMPORARY}moving"


def relocate(store: Store, chunks: Sequence[Chunk]) -> int:
    """Give every shard whose chunk has another position than at the last build its new number; return how many moved.

    Only a shortcut: keys decide afterwards what is fresh, so a crash in the middle costs time and nothing else. The order
    of the chunks as built stands in layout.json, which is removed while shards are on their way.
    """
    layout = store.root / "layout.json"
    wanted = [chunk.digest() for chunk in chunks]
    try:
        before = msgspec.json.decode(layout.read_bytes(), type=list[str])
    except (FileNotFoundError, msgspec.DecodeError):
        before = wanted
    moves = _moves(before, wanted)
    if moves:
        remove(layout)
        for stage in STAGES:
            _move(store, stage, moves)
    if moves or before != wanted or not layout.exists():
        write_whole(layout, msgspec.json.encode(wanted))
    return len(moves)


def _moves(before: Sequence[str], wanted: Sequence[str]) -> dict[int, int]:
    """Return old position to new position of every chunk that is elsewhere now."""
    places = {digest: position for position, digest in enumerate(before)}
    found = {places[digest]: new for new, digest in enumerate(wanted) if digest in places}
    return {old: new for old, new in found.items() if old != new}


def _move(store: Store, stage: str, moves: dict[int, int]) -> None:
    directory = store.directory(stage)
    aside = directory / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    waiting = []
    for old, new in moves.items():
        record = store.record(stage, old)
        if record is None or not store.holds(stage, record):
            continue
        files = []
        for file in record.files:
            path = file.path.replace(f"{old:05d}.arrow", f"{new:05d}.arrow")
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            _link(directory / file.path, aside / path)
            files.append(msgspec.structs.replace(file, path=path))
        waiting.append(msgspec.structs.replace(record, shard=new, files=tuple(files)))
    for position in {*moves, *moves.values()}:
        store.forget(stage, position)
    for record in waiting:
        for file in record.files:
            target = directory / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (aside / file.path).replace(target)
        store.remember(stage, record)
    shutil.rmtree(aside, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
