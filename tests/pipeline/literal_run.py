"""A finished run written down row by row: what clusters decided, and what the rows say."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.ipc

from schemas.manifest import FileRecord, Manifest, ShardRecord, total
from schemas.tables import CLUSTERED, MEASURED, SIGNED

Said = Sequence[tuple[str, str]]


def conversation(id_: str, said: Said, *, tags: Sequence[str] = ()) -> dict[str, Any]:
    """Return a row of schemas.tables.MEASURED."""
    messages = [{"role": role, "content": content} for role, content in said]
    source = id_.rpartition(":")[0]
    return {"id": id_, "source": source, "tags": list(tags), "messages": messages, "n_chars": 1, "n_turns": 1}


def fate(id_: str, cluster: str, n: int = 1, **more: Any) -> dict[str, Any]:
    """Return a row of schemas.tables.CLUSTERED; `n` is the size of its cluster."""
    return {"id": id_, "cluster": cluster, "n_duplicates": n, "split": "train"} | more


def removed(id_: str, cluster: str, n: int, keeper: str, similarity: float, **more: Any) -> dict[str, Any]:
    """Return the row of clusters of a near-duplicate."""
    told = {"reason": "near_duplicate", "keeper": keeper, "similarity": similarity, "scope": "conversation"}
    return fate(id_, cluster, n, **(told | more))


def write_stage(
    run: Path,
    stage: str,
    schema: pa.Schema,
    shards: Sequence[Sequence[Mapping[str, Any]]],
    counts: Mapping[str, int] | None = None,
    half: str = "kept",
) -> None:
    """Write one half of a stage's rows, and its manifest."""
    records = []
    for number, rows in enumerate(shards):
        table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
        path = f"{half}/{number:05d}.arrow"
        (run / stage / half).mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(run / stage / path), table.schema) as writer:
            writer.write_table(table)
        file = FileRecord(path=path, rows=len(rows), bytes=0, sha256="")
        own = dict(counts or {}) if number == 0 else {}
        dropped = Counter(str(row.get("drop_reason")) for row in rows) if half == "dropped" else Counter[str]()
        n_kept = len(rows) - dropped.total()
        record = ShardRecord(
            shard=number, key="", rows_in=len(rows), kept=n_kept, dropped=dropped, counts=own, files=(file,)
        )
        records.append(record)
    manifest = Manifest(stage=stage, key="", libraries={}, totals=total(tuple(records)), shards=tuple(records))
    (run / stage / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def write_run(
    run: Path,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    fates: Sequence[Sequence[Mapping[str, Any]]],
    counts: Mapping[str, int] | None = None,
) -> Path:
    """Write length, signatures and clusters of a run, shard by shard."""
    write_stage(run, "length", MEASURED, conversations)
    write_stage(
        run,
        "signatures",
        SIGNED,
        [[dict(row) | {"content_hash": 0, "units": []} for row in shard] for shard in conversations],
    )
    write_stage(run, "clusters", CLUSTERED, fates, counts)
    return run
