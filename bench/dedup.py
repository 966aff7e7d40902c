"""Time deduplication beside its peers on a JSONL file, and hold everybody's decisions against brute force over all pairs.

    python -m bench.dedup FILE.jsonl [--rounds 3] [--only NAME ...]

Lines hold `messages` or `conversations`, lists of role and content. Peers that are not installed are left out by name
(pip install 'chatloom[bench]'; text-dedup and datatrove pin old versions: pip install --no-deps --target them, with xxhash 3).

Each side runs in a process of its own, once a round, in turns, so that a busy machine slows all alike; medians are printed.
Not timed: reading the file, imports, and compiling kernels (every function runs on 200 rows first). What takes less than
three seconds is done again in the same process, and its median counts; the first time, which pays for fresh memory, is shown
as well. Ratios are of CPU time, which a busy machine changes less than the clock. Results are Markdown.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from pipeline.kernel_cache import use_kernel_cache

use_kernel_cache()

import numpy as np  # noqa: E402  # the cache is set before anything imports numba
import polars as pl  # noqa: E402

from bench.brute_force import similar_pairs  # noqa: E402
from bench.dedup_sides import NUM_PERM, SIDES, THRESHOLD, Side, Work  # noqa: E402
from bench.dedup_tables import THRESHOLDS, best_first, show_clusters, show_decisions, show_quality, show_times  # noqa: E402
from schemas.fields import MESSAGE  # noqa: E402
from stages.signatures import Signatures, sign_conversations  # noqa: E402

REPEATED_SECONDS, REPEATED_TIMES = 3.0, 9
SHARD_ROWS = 6_000
"""Ours come in shards, as in a build, where a default one has about so many of these rows."""

Result = dict[str, Any]


def load(path: Path) -> pl.DataFrame:
    """Return the conversations of a file, as schemas.tables.MEASURED."""
    spoken = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    raw = pl.read_ndjson(path, schema={"messages": spoken, "conversations": spoken})
    spare = [
        pl.lit(None, pl.Float32 if column.name == "weight" else pl.String).alias(column.name)
        for column in MESSAGE
        if column.name not in ("role", "content")
    ]
    said = pl.element().struct.field("role", "content")
    content = pl.element().struct.field("content")
    messages = pl.coalesce("messages", "conversations")
    return raw.with_row_index("line", 1).select(
        id=pl.lit(f"{path.name}:") + pl.col("line").cast(pl.String),
        source=pl.lit(path.name),
        tags=pl.lit([], pl.List(pl.String)),
        score=pl.lit(None, pl.Float64),
        created=pl.lit(None, pl.Datetime("us", "UTC")),
        messages=messages.list.eval(pl.struct(said, *spare)),
        tools=pl.lit(None, pl.String),
        n_chars=messages.list.eval(content.str.len_chars()).list.sum().cast(pl.Int32),
        text=messages.list.eval(content.filter(pl.element().struct.field("role") != "system")).list.join("\n"),
    )


# --- one side, in its own process


def measure(name: str, n_threads: int, directory: Path) -> Result:
    side = SIDES[name]
    frames = [pl.read_ipc(path) for path in sorted(directory.glob("rows-*.arrow"))]
    work = Work(
        [frame.drop("text") for frame in frames],
        pl.concat(frame["text"] for frame in frames).to_list(),
        np.load(directory / "shingles.npy"),
        np.load(directory / "starts.npy"),
        n_threads,
    )
    few = work.first(min(200, frames[0].height))
    result: Result = {}
    if side.decide is not None and (n_threads == 1 or side.package == "chatloom"):
        side.decide(few)
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        removed, *first = _timed(side.decide, work)
        peak = (_status("VmHWM") - before) / 1024
        result["decide"] = _again(side.decide, work, first) | {"peak_mib": peak, "parts": work.parts}
        np.save(directory / f"{name}.removed.npy", removed)
    for part, run in (("sign", side.sign), ("sketch", side.sketch)):
        if run is not None:
            run(few)
            result[part] = _again(run, work, _timed(run, work)[1:])
    return result


def _again(run: Callable[[Work], Any], work: Work, first: Sequence[float]) -> Result:
    clock, cpu = [first[0]], [first[1]]
    while sum(clock) < REPEATED_SECONDS and len(clock) < REPEATED_TIMES:
        _, seconds, of_cpu = _timed(run, work)
        clock.append(seconds)
        cpu.append(of_cpu)
    return {"first": first[0], "seconds": statistics.median(clock), "cpu": statistics.median(cpu)}


def _timed(run: Callable[[Work], Any], work: Work) -> tuple[Any, float, float]:
    """Return the result, seconds, and seconds of CPU of all threads."""
    start, cpu = perf_counter(), process_time()
    out = run(work)
    return out, perf_counter() - start, process_time() - cpu


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


# --- all of them


def installed(side: Side) -> str | None:
    try:
        return importlib.metadata.version(side.package)
    except importlib.metadata.PackageNotFoundError:
        return None


def run_rounds(sides: dict[str, Side], n_rounds: int, directory: Path) -> dict[tuple[str, int], list[Result]]:
    results: dict[tuple[str, int], list[Result]] = {}
    for each in range(n_rounds):
        for name, side in sides.items():
            for n_threads in side.threads:
                names = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS")
                out = directory / "result.json"
                command = [
                    sys.executable,
                    "-m",
                    "bench.dedup",
                    "--measure",
                    name,
                    str(n_threads),
                    str(directory),
                    str(out),
                ]
                done = subprocess.run(
                    command, env=os.environ | dict.fromkeys(names, str(n_threads)), capture_output=True, text=True
                )
                if done.returncode:
                    sys.exit(f"{name}, {n_threads} threads:\n{done.stderr}")
                results.setdefault((name, n_threads), []).append(json.loads(out.read_bytes()))
        print(f"round {each + 1} of {n_rounds}", file=sys.stderr, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", help="a JSONL file of conversations")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SIDES, default=list(SIDES), metavar="NAME", help=", ".join(SIDES))
    parser.add_argument("--sample", type=int, default=5_000, help="rows of the smaller comparison with brute force")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, n_threads, directory, out = arguments.measure
        Path(out).write_text(json.dumps(measure(name, int(n_threads), Path(directory))))
        return
    if arguments.path is None or not arguments.path.exists():
        print("skipped: give the path of a JSONL file of conversations")
        return
    versions = {name: installed(SIDES[name]) for name in arguments.only}
    for name, version in versions.items():
        if version is None:
            print(f"{name} is not installed: left out", file=sys.stderr)
    sides = {name: SIDES[name] for name, version in versions.items() if version is not None}
    frame = load(arguments.path)
    signed = sign_conversations(frame, Signatures(num_perm=NUM_PERM))
    pairs = similar_pairs(signed, min(THRESHOLDS))
    shingles = signed["units"].list.eval(pl.element().struct.field("shingles").explode(empty_as_null=False))
    starts = np.concatenate([[0], np.cumsum(shingles.list.len().to_numpy(), dtype=np.int64)])
    size = arguments.path.stat().st_size / 1e6
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for first in range(0, frame.height, SHARD_ROWS):
            frame[first : first + SHARD_ROWS].write_ipc(directory / f"rows-{first:09d}.arrow")
        np.save(directory / "shingles.npy", shingles.explode(empty_as_null=False, keep_nulls=False).to_numpy())
        np.save(directory / "starts.npy", starts)
        del frame
        results = run_rounds(sides, arguments.rounds, directory)
        known = {SIDES[name].package: version for name, version in versions.items() if version is not None}
        print(
            f"{signed.height:,} conversations, {size:.1f} MB, {starts[-1]:,} distinct shingles; "
            f"medians of {arguments.rounds} rounds; "
            f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}; "
            + ", ".join(f"{name} {version}" for name, version in known.items())
            + "\n"
        )
        show_decisions(results, pairs.at(THRESHOLD), best_first(signed), size, directory)
    show_times(results, "sign", f"text → signatures of {NUM_PERM} values", int(starts[-1]))
    show_times(results, "sketch", "sketch alone, given the hashes of shingles", int(starts[-1]))
    show_clusters(
        [signed[first : first + SHARD_ROWS] for first in range(0, signed.height, SHARD_ROWS)], arguments.rounds
    )
    show_quality(signed, pairs, arguments.sample)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
