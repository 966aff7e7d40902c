"""A corpus many times over: each replica has its structure, and no two of them have anything in common."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from pipeline.graph import by_name
from pipeline.halves import split
from pipeline.store import Store
from schemas.conform import conform
from schemas.tables import SIGNED
from stages.clusters import Clusters, cluster_rows
from stages.dedup import Dedup
from stages.signatures import sketch_permutations
from stages.signatures.sketch_kernel import sketch_rows

SIGNATURES = by_name("signatures")
LONG_ENOUGH = 40
"""Shingles of a row that is planted: a twentieth of them is then two at least."""


@njit(nogil=True)
def sort_each(values: NDArray[np.uint32], starts: NDArray[np.int64]) -> None:
    for i in range(len(starts) - 1):
        values[starts[i] : starts[i + 1]].sort()


@dataclass(frozen=True)
class Constants:
    """What makes one replica a stranger to the others, by its number."""

    shingles: NDArray[np.uint32]
    words: NDArray[np.uint64]
    """Shape (replicas, 2)."""

    @classmethod
    def draw(cls, n: int) -> "Constants":
        rng = np.random.default_rng(0)
        shingles = rng.choice(1 << 32, n, replace=False).astype(np.uint32)
        return cls(shingles, rng.integers(0, 1 << 64, (n, 2), dtype=np.uint64))


def replicate(base: pa.Table, of: NDArray[np.int64], constants: Constants, *, shortened: NDArray[np.bool_]) -> pa.Table:
    """Return rows of `base` as they are in the replicas `of`; the shortened ones lack a twentieth of their shingles."""
    units = base["units"].combine_chunks()
    bounds = units.offsets.to_numpy().astype(np.int64)
    structs = units.values.slice(bounds[0], bounds[-1] - bounds[0])
    row = np.repeat(np.arange(base.num_rows), np.diff(bounds))
    shingles = structs.field("shingles")
    starts = shingles.offsets.to_numpy().astype(np.int64)
    sizes = np.diff(starts)
    values = shingles.values.to_numpy()[starts[0] : starts[-1]] ^ np.repeat(constants.shingles[of[row]], sizes)
    starts -= starts[0]
    if shortened.any():
        stays = sizes - np.where(shortened[row], sizes // 20, 0)
        place = np.arange(len(values)) - np.repeat(starts[:-1], sizes)
        values = values[place < np.repeat(stays, sizes)]
        starts = np.concatenate([[0], np.cumsum(stays)])
    sort_each(values, starts)
    num_perm = structs.field("minhash").offsets[1].as_py() - structs.field("minhash").offsets[0].as_py()
    minhash = sketch_rows(values, starts, *sketch_permutations(num_perm, 1))
    words = constants.words[of] ^ shortened[:, None].astype(np.uint64)
    fields = {
        "scope": structs.field("scope"),
        "message": structs.field("message"),
        "exact_hash": xored(structs.field("exact_hash"), words[row]),
        "shingles": pa.ListArray.from_arrays(starts.astype(np.int32), pa.array(values)),
        "minhash": pa.ListArray.from_arrays(
            np.arange(len(row) + 1, dtype=np.int32) * num_perm, pa.array(minhash.reshape(-1))
        ),
    }
    columns: dict[str, Any] = {name: base[name] for name in base.column_names}
    prefix = pa.array([f"{number:05d}" for number in of])
    columns["source"] = pc.binary_join_element_wise(prefix, base["source"].combine_chunks(), "/")
    columns["id"] = pc.binary_join_element_wise(prefix, base["id"].combine_chunks(), "/")
    columns["content_hash"] = pa.array(base["content_hash"].to_numpy() ^ words[:, 0])
    for name in ("text_hash", "prompt_hash"):
        columns[name] = xored(base[name].combine_chunks(), words)
    nested = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    columns["units"] = pa.ListArray.from_arrays((bounds - bounds[0]).astype(np.int32), nested)
    return pa.table(columns)


def xored(hashes: pa.Array, words: NDArray[np.uint64]) -> pa.Array:
    """Return binary values of 16 bytes, each XORed with its two words; null stays null."""
    is_there = hashes.is_valid().to_numpy(zero_copy_only=False)
    found = np.frombuffer(b"".join(hashes.drop_null().to_pylist()), np.uint64).reshape(-1, 2) ^ words[is_there]
    ends = np.concatenate([[0], np.cumsum(16 * is_there)]).astype(np.int32)
    mask = pa.array(is_there).buffers()[1]
    return pa.Array.from_buffers(
        pa.binary(), len(hashes), [mask, pa.py_buffer(ends), pa.py_buffer(found.tobytes())], int((~is_there).sum())
    )


def write_shards(run: Path, n_rows: int, n_planted: int, directory: Path) -> tuple[int, int, int]:
    """Write the replicas and the planted rows; return how many replicas, rows and rows to be removed there are."""
    store, target = Store(run), Store(directory)
    base = [conform(store.read("signatures", record).to_arrow(), SIGNED) for record in records_of(store)]
    tables = list(
        cluster_rows([pl.DataFrame(pl.from_arrow(each)) for each in base], Clusters(max_source_loss=1.0), dedup=Dedup())
    )
    found = pl.concat(tables)
    n_base = found.height
    n_replicas = -(-n_rows // n_base)
    constants = Constants.draw(n_replicas)
    unshortened = [np.zeros(each.num_rows, np.bool_) for each in base]

    def write(shard: int, rows: pa.Table) -> None:
        frame = pl.DataFrame(pl.from_arrow(rows))
        target.remember(
            "signatures", target.write(SIGNATURES, shard, "", split(SIGNATURES, shard, frame, frame.height))
        )

    def write_replica(number: int) -> None:
        for i, each in enumerate(base):
            of = np.full(each.num_rows, number)
            write(number * len(base) + i, replicate(each, of, constants, shortened=unshortened[i]))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write_replica, range(n_replicas)))
    rng = np.random.default_rng(1)
    whole = pa.concat_tables(base).combine_chunks()
    size = pl.Series(pl.from_arrow(whole["units"])).list.first().struct.field("shingles").list.len().fill_null(0)
    alone = np.flatnonzero((found["n_duplicates"] == 1).to_numpy() & (size >= LONG_ENOUGH).to_numpy())
    chosen = rng.choice(alone, n_planted, replace=n_planted > len(alone))
    planted = replicate(
        whole.take(pa.array(chosen)),
        rng.integers(0, n_replicas, n_planted),
        constants,
        shortened=np.arange(n_planted) % 2 == 1,
    )
    planted = planted.set_column(
        planted.column_names.index("id"), "id", pa.array([f"planted:{i + 1}" for i in range(n_planted)])
    ).set_column(planted.column_names.index("source"), "source", pa.array(["planted"] * n_planted))
    planted = planted.set_column(  # so that the copy goes, and not what it is of
        planted.column_names.index("n_chars"), "n_chars", pc.subtract(planted["n_chars"], pa.scalar(1, pa.int32()))
    )
    write(n_replicas * len(base), planted)
    n_removed = found["reason"].is_not_null().sum()
    return n_replicas, n_replicas * n_base + n_planted, n_replicas * n_removed + n_planted


def records_of(store: Store) -> list[Any]:
    records = []
    while (record := store.record("signatures", len(records))) is not None:
        records.append(record)
    if not records:
        sys.exit(f"{store.root}: no shards of signatures; build them with chatloom data ... --until signatures")
    return records
