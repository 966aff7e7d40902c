"""Time text -> verified dedup decisions on a JSONL file, beside datasketch and rensa when they are installed.

    python bench/dedup.py FILE.jsonl [--rounds 3] [--peers-rows N]

Lines hold `messages` or `conversations`, lists of role and content. Reading the file and compiling kernels is not timed.
Each round runs every contestant once, so that a busy machine slows all alike; medians are printed. Peers get the same
text, cut into word 5-grams (single characters for Han and kana) in Python, which is how they are used. One process, one
thread of ours; polars and rensa may use more.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from schemas.fields import MESSAGE
from stages.clusters import Clusters, cluster_rows
from stages.dedup import Dedup, mark_duplicates
from stages.signatures import Signatures, sign_conversations

THRESHOLD = 0.8
TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")

Times = dict[str, list[float]]


@contextmanager
def clocked(times: Times, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times.setdefault(name, []).append(time.perf_counter() - start)


def load(path: Path) -> pl.DataFrame:
    spoken = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    raw = pl.read_ndjson(path, schema={"messages": spoken, "conversations": spoken})
    spare = [
        pl.lit(None, pl.Float32 if column.name == "weight" else pl.String).alias(column.name)
        for column in MESSAGE
        if column.name not in ("role", "content")
    ]
    said = pl.element().struct.field("role", "content")
    return raw.with_row_index("line", 1).select(
        id=pl.lit(f"{path.name}:") + pl.col("line").cast(pl.String),
        messages=pl.coalesce("messages", "conversations").list.eval(pl.struct(said, *spare)),
        n_chars=pl.coalesce("messages", "conversations")
        .list.eval(pl.element().struct.field("content").str.len_chars())
        .list.sum()
        .cast(pl.Int32),
    )


def ours(frame: pl.DataFrame, times: Times) -> pl.DataFrame:
    with clocked(times, "chatloom"):
        with clocked(times, "  signatures"):
            signed = sign_conversations(frame, Signatures())
        with clocked(times, "  clusters"):
            clusters = cluster_rows(signed, Clusters(threshold=THRESHOLD))
        with clocked(times, "  dedup"):
            return mark_duplicates(frame, clusters, Dedup())


def shingled(texts: list[str]) -> list[list[str]]:
    rows = []
    for text in texts:
        tokens = TOKEN.findall(text.lower())
        rows.append([" ".join(tokens[i : i + 5]) for i in range(max(len(tokens) - 4, 1))] if tokens else [])
    return rows


def with_datasketch(texts: list[str], times: Times) -> int:
    from datasketch import MinHash, MinHashLSH
    from xxhash import xxh32_intdigest

    with clocked(times, "datasketch"):
        with clocked(times, "  shingles in Python"):
            rows = shingled(texts)
        empty = MinHash(num_perm=128, hashfunc=xxh32_intdigest)
        index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
        n_removed = 0
        for i, row in enumerate(rows):
            sketch = empty.copy()
            sketch.update_batch([shingle.encode() for shingle in row])
            if row and index.query(sketch):
                n_removed += 1
            elif row:
                index.insert(i, sketch)
    return n_removed


def with_rensa(texts: list[str], times: Times) -> int:
    from rensa import RMinHashDeduplicator

    with clocked(times, "rensa"):
        rows = shingled(texts)
        kept = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=128, use_lsh=True).add_pairs(
            (str(i), row) for i, row in enumerate(rows) if row
        )
    return len(kept) - sum(kept)


PEERS: dict[str, Callable[[list[str], Times], int]] = {"datasketch": with_datasketch, "rensa": with_rensa}


def installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        print(f"{name} is not installed: skipped (pip install 'chatloom[bench]')")
        return False
    return True


def check(frame: pl.DataFrame, n_rows: int) -> str:
    """Compare the decisions on a sample with those of brute force over every pair, in plain Python sets."""
    sample = frame.sample(min(n_rows, frame.height), seed=0)
    signed = sign_conversations(sample, Signatures())
    sets = [set(values) for values in signed["shingles"].to_list()]
    out = cluster_rows(signed, Clusters(threshold=THRESHOLD))
    order = np.array(signed.with_row_index().sort(-pl.col("n_chars"), "exact_hash", "id")["index"])
    kept: list[int] = []
    expected = set()
    for row in order:
        if not sets[row]:
            continue
        size = len(sets[row])
        near = [k for k in kept if THRESHOLD <= len(sets[k]) / size <= 1 / THRESHOLD]
        if any(len(sets[row] & sets[k]) / len(sets[row] | sets[k]) >= THRESHOLD for k in near):
            expected.add(int(row))
        else:
            kept.append(int(row))
    found = set(np.flatnonzero(out["keeper"].is_not_null().to_numpy()).tolist())
    common = len(found & expected)
    return (
        f"against brute force on {sample.height} rows: {len(expected)} duplicates, "
        f"precision {common / max(len(found), 1):.4f}, recall {common / max(len(expected), 1):.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", help="a JSONL file of conversations")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check-rows", type=int, default=5_000)
    arguments = parser.parse_args()
    if arguments.path is None or not arguments.path.exists():
        print("skipped: give the path of a JSONL file of conversations")
        return
    frame = load(arguments.path)
    spoken = pl.col("messages").list.eval(
        pl.element().struct.field("content").filter(pl.element().struct.field("role") != "system")
    )
    texts = frame.select(spoken.list.join("\n")).to_series().to_list()
    peers = [name for name in PEERS if installed(name)]
    ours(frame[:100], {})  # compiles, or loads what was compiled
    times: Times = {}
    n_removed: dict[str, int] = {}
    for _ in range(arguments.rounds):
        n_removed["chatloom"] = ours(frame, times)["drop_reason"].is_not_null().sum()
        for name in peers:
            n_removed[name] = PEERS[name](texts, times)
    megabytes = arguments.path.stat().st_size / 1e6
    print(f"\n{frame.height} conversations, {megabytes:.1f} MB, medians of {arguments.rounds}")
    print(f"{'':24}{'s':>9}{'MB/s':>9}{'removed':>9}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:24}{median:9.3f}{megabytes / median:9.0f}{n_removed.get(name, ''):>9}")
    print(check(frame, arguments.check_rows))


if __name__ == "__main__":
    main()
