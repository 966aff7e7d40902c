"""Cluster millions of rows within a budget of memory: a real corpus, replicated until it has as many rows as asked.

    chatloom data CONFIG --input FILE.jsonl --run RUN --until signatures
    python -m bench.scale RUN [--rows 10000000] [--memory 4 1] [--planted 500] [--scratch DIRECTORY]

Each replica XORs the shingles of RUN with a constant of its own, sorts and sketches them anew, and renames ids, sources
and hashes: its structure is that of the corpus, and replicas are strangers to each other, but for `planted` copies of rows
in another replica, half of them whole and half with 19 of 20 shingles. So what is removed is known beforehand. Shards
(1.5 kB a row) lie below --scratch while it runs.

Each budget is run in a fresh process, in the way a build runs it: shards are mapped when asked for and verified at their
first reading, what exceeds the budget is spilled to a file. Anonymous memory (RssAnon) is what the process needs; pages
of mapped files, which the system may take back at any time, are in RSS as well.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.kernel_cache import use_kernel_cache

use_kernel_cache()

import numpy as np  # noqa: E402  # the cache is set before anything imports numba
import polars as pl  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from bench.replicas import records_of, write_shards  # noqa: E402
from pipeline.corpus import Place, Shards  # noqa: E402
from pipeline.scratch import Scratch  # noqa: E402
from pipeline.store import Store  # noqa: E402
from schemas.conform import conform  # noqa: E402
from schemas.tables import CLUSTERED  # noqa: E402
from stages.clusters import Clusters, cluster_rows  # noqa: E402
from stages.dedup import Dedup  # noqa: E402

POLL_SECONDS = 0.02
PASSES = (
    ("pass 1, verified: how many units", ""),
    ("pass 2: draws, origins", ""),
    ("pass 3: keys of bands", "buckets of all bands"),
    ("pass 4: members", "compare, from best to worst"),
    ("pass 5: tables", ""),
)
"""What clustering of one scope does while it reads all shards, and after that."""


# --- one budget, in its own process


def config(memory: float) -> Clusters:
    return Clusters(memory=memory, max_source_loss=1.0)


@dataclass
class Meter:
    """Memory of this process by phase, looked at fifty times a second."""

    phases: list[dict[str, Any]] = field(default_factory=list)
    _is_running: bool = True

    def enter(self, name: str) -> None:
        now = time.perf_counter()
        if self.phases:
            self.phases[-1]["seconds"] = now - self.phases[-1]["began"]
        self.phases.append({"name": name, "began": now, "RssAnon": 0, "VmRSS": 0, "seconds": 0.0})

    def watch(self) -> None:
        while self._is_running:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            phase = self.phases[-1]
            for name in ("RssAnon", "VmRSS"):
                phase[name] = max(phase[name], int(lines[name].split()[0]))
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        self.enter("")
        self.phases.pop()
        self._is_running = False


class Followed(Sequence[pl.DataFrame]):
    """Shards that tell the meter when they are read from the first one on, and when the last one is."""

    def __init__(self, shards: Shards, meter: Meter, names: Sequence[tuple[str, str]]) -> None:
        self._shards, self._meter, self._names = shards, meter, iter(names)
        self._after = ""

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: Any) -> Any:
        if index == 0:
            name, self._after = next(self._names)
            self._meter.enter(name)
        shard = self._shards[index]
        if index == len(self) - 1 and self._after:
            self._meter.enter(self._after)
        return shard


def measure(directory: Path, memory: float) -> dict[str, Any]:
    store = Store(directory)
    meter = Meter()
    # the kernels are loaded, and everything else that a build has in memory by then
    few = [store.map("signatures", record) for record in records_of(store)[:1]]
    list(cluster_rows(few, config(memory), dedup=Dedup()))
    del few
    shards = Followed(Shards("signatures", [Place(directory, record) for record in records_of(store)]), meter, PASSES)
    spilled: list[int] = []
    scratch = Scratch(directory)

    def spill(n_bytes: int) -> NDArray[np.uint8]:
        spilled.append(n_bytes)
        return scratch(n_bytes)

    meter.enter("start")
    thread = threading.Thread(target=meter.watch, daemon=True)
    thread.start()
    start = time.perf_counter()
    digest, n_removed, reasons, accidents = hashlib.sha256(), 0, Counter[str](), []
    planted = 0
    for out in cluster_rows(shards, config(memory), dedup=Dedup(), spill=spill):
        for batch in conform(out.to_arrow(), CLUSTERED).combine_chunks().to_batches():
            digest.update(batch.serialize())
        gone = out.filter(pl.col("keeper").is_not_null())
        n_removed += out["reason"].is_not_null().sum()
        reasons.update(gone["reason"])
        is_planted = gone["id"].str.starts_with("planted")
        planted += is_planted.sum()
        strangers = gone.filter(~is_planted & (gone["id"].str.head(5) != gone["keeper"].str.head(5)))
        accidents += strangers.select("id", "keeper", "similarity").rows()
    seconds = time.perf_counter() - start
    meter.end()
    thread.join()
    return {
        "seconds": seconds,
        "phases": meter.phases,
        "spilled": sum(spilled),
        "removed": n_removed,
        "reasons": dict(reasons),
        "planted": planted,
        "accidents": accidents,
        "digest": digest.hexdigest(),
    }


# --- all budgets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run directory with signatures")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--memory", type=float, nargs="+", default=[4.0, 1.0], help="budgets, GiB")
    parser.add_argument("--planted", type=int, default=500)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        directory, memory, out = arguments.measure
        Path(out).write_text(json.dumps(measure(Path(directory), float(memory))))
        return
    if arguments.run is None or not (arguments.run / "signatures").is_dir():
        print("skipped: give a run directory with signatures (chatloom data ... --until signatures)")
        return
    n_bytes = sum(file.bytes for record in records_of(Store(arguments.run)) for file in record.files)
    n_base = sum(record.kept for record in records_of(Store(arguments.run)))
    needed, free = 1.1 * n_bytes * arguments.rows / n_base, shutil.disk_usage(arguments.scratch).free
    if needed > free:
        sys.exit(f"{arguments.scratch}: needs {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free; give --scratch")
    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="scale-") as folder:
        directory = Path(folder)
        start = time.perf_counter()
        n_replicas, n_rows, expected = write_shards(arguments.run, arguments.rows, arguments.planted, directory)
        print(
            f"{n_rows:,} rows: {n_replicas:,} replicas of {n_base:,}, {arguments.planted:,} planted; {expected:,} are to go. "
            f"Written in {time.perf_counter() - start:.0f} s\n",
            flush=True,
        )
        results = {}
        for memory in arguments.memory:
            out = directory / "result.json"
            command = [sys.executable, "-m", "bench.scale", "--measure", str(directory), str(memory), str(out)]
            subprocess.run(command, check=True)
            results[memory] = json.loads(out.read_bytes())
            show(memory, results[memory], n_rows, expected)
        if len(results) > 1:
            same = len({result["digest"] for result in results.values()}) == 1
            print(f"Results of all budgets are {'the same, byte for byte' if same else 'NOT the same'}.")


def show(memory: float, result: dict[str, Any], n_rows: int, expected: int) -> None:
    peak = {name: max(phase[name] for phase in result["phases"]) / (1 << 20) for name in ("RssAnon", "VmRSS")}
    print(f"| memory = {memory:g} GiB | seconds | RssAnon, GiB | RSS, GiB |\n|---|--:|--:|--:|")
    for phase in result["phases"]:
        anonymous, all_pages = (phase[name] / (1 << 20) for name in ("RssAnon", "VmRSS"))
        print(f"| {phase['name']} | {phase['seconds']:.1f} | {anonymous:.2f} | {all_pages:.2f} |")
    print(f"| all | {result['seconds']:.1f} | {peak['RssAnon']:.2f} | {peak['VmRSS']:.2f} |\n")
    print(
        f"{1e5 * result['seconds'] / n_rows:.2f} s per 100,000 rows; {result['spilled'] / (1 << 30):.2f} GiB spilled; "
        f"{peak['RssAnon'] * (1 << 30) / n_rows:.0f} bytes of anonymous memory a row. "
        f"Removed {result['removed']:,} of {expected:,} ({result['removed'] - expected:+,}): {result['reasons']}; planted found: "
        f"{result['planted']:,}; removed in favour of a stranger: {len(result['accidents'])} {result['accidents'][:3]}\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
