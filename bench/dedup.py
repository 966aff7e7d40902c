"""Time deduplication beside its peers on a JSONL file, and hold everybody's decisions against brute force over all pairs.

    python -m bench.dedup FILE.jsonl [--rounds 3] [--only NAME ...]

Lines hold `messages` or `conversations`, lists of role and content. Peers that are not installed are left out by name
(pip install 'chatloom[bench]'; text-dedup and datatrove pin old versions: pip install --no-deps --target them, with xxhash 3).

Each side runs in a process of its own, once a round, in turns, so that a busy machine slows all alike; medians are printed.
Not timed: reading the file, imports, and compiling kernels (every function runs on 200 rows first). What takes less than a
second is done again in the same process, and its median counts; the first time, which pays for fresh memory, is shown
as well. Results are Markdown.
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
from time import perf_counter
from typing import Any

from pipeline.kernel_cache import use_kernel_cache

use_kernel_cache()

import numpy as np  # noqa: E402  # the cache is set before anything imports numba
import polars as pl  # noqa: E402

from bench.brute_force import Pairs, similar_pairs  # noqa: E402
from bench.dedup_sides import NUM_PERM, SIDES, THRESHOLD, Side, Work  # noqa: E402
from schemas.fields import MESSAGE  # noqa: E402
from stages.clusters import Clusters, cluster_rows  # noqa: E402
from stages.dedup import Dedup  # noqa: E402
from stages.signatures import Signatures, sign_conversations  # noqa: E402

THRESHOLDS = (0.7, 0.8, 0.9)
REPEATED_SECONDS, REPEATED_TIMES = 1.0, 9
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
        removed, first = _timed(side.decide, work)
        peak = (_status("VmHWM") - before) / 1024
        result["decide"] = _again(side.decide, work, first) | {"peak_mib": peak, "parts": work.parts}
        np.save(directory / f"{name}.removed.npy", removed)
    for part, run in (("sign", side.sign), ("sketch", side.sketch)):
        if run is not None:
            run(few)
            result[part] = _again(run, work, _timed(run, work)[1])
    return result


def _again(run: Callable[[Work], Any], work: Work, first: float) -> Result:
    seconds = [first]
    while sum(seconds) < REPEATED_SECONDS and len(seconds) < REPEATED_TIMES:
        seconds.append(_timed(run, work)[1])
    return {"first": first, "seconds": statistics.median(seconds)}


def _timed(run: Callable[[Work], Any], work: Work) -> tuple[Any, float]:
    start = perf_counter()
    out = run(work)
    return out, perf_counter() - start


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


def middle(found: list[Result], *path: str) -> float:
    values = []
    for result in found:
        value: Any = result
        for key in path:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def table(*rows: list[str]) -> None:
    head, *body = rows
    print("| " + " | ".join(head) + " |\n|---" + "|--:" * (len(head) - 1) + "|")
    for row in body:
        print("| " + " | ".join(row) + " |")
    print()


def judge(removed: np.ndarray, pairs: Pairs, order: Sequence[int]) -> tuple[float, float]:
    """Return (precision, recall): rows removed that were similar to one that stayed; rows that should go and did.

    It is not asked which of two similar rows a side keeps: missed is what would still have to go of the rows that it keeps.
    """
    is_right = removed & pairs.beside(~removed)
    n_expected = pairs.removed(order).sum()
    missed = pairs.among(~removed).removed(order).sum()
    return is_right.sum() / max(removed.sum(), 1), 1 - missed / max(n_expected, 1)


def best_first(signed: pl.DataFrame) -> list[int]:
    return signed.with_row_index().sort(-pl.col("n_chars"), "text_hash", "content_hash", "index")["index"].to_list()


def show_decisions(
    results: dict[tuple[str, int], list[Result]], pairs: Pairs, order: Sequence[int], size: float, directory: Path
) -> None:
    ours = middle(results["Chatloom", 1], "decide", "seconds") if ("Chatloom", 1) in results else None
    rows = [
        [
            "text → decisions at 0.8",
            "seconds",
            "first time",
            "MB/s",
            "against ours",
            "more memory, MiB",
            "removed",
            "precision",
            "recall",
        ]
    ]
    for (name, n_threads), found in results.items():
        if "decide" not in found[0]:
            continue
        seconds = middle(found, "decide", "seconds")
        removed = np.load(directory / f"{name}.removed.npy")
        precision, recall = judge(removed, pairs, order)
        parts = ", ".join(
            f"{part} {middle(found, 'decide', 'parts', part):.3f}" for part in found[0]["decide"]["parts"]
        )
        rows.append(
            [
                name + (", 2 threads" if n_threads == 2 else "") + (f" ({parts})" if name == "Chatloom" else ""),
                f"{seconds:.3f}",
                f"{middle(found, 'decide', 'first'):.3f}",
                f"{size / seconds:.0f}",
                f"{seconds / ours:.1f} ×" if ours else "",
                f"{middle(found, 'decide', 'peak_mib'):.0f}",
                f"{removed.sum():,}",
                f"{precision:.3f}",
                f"{recall:.3f}",
            ]
        )
    table(*rows)
    print(
        "A removed row is right (precision) if a row that this side keeps is at least 0.8 similar to it, exactly, on our\n"
        f"shingles. Recall is 1 - missed / {pairs.removed(order).sum():,}: so many rows go when each row, from the longest\n"
        "to the shortest, is compared with every row kept before it; missed would still go of the rows that this side keeps.\n"
    )


def show_times(results: dict[tuple[str, int], list[Result]], part: str, title: str, n_shingles: int) -> None:
    rows = [[title, "1 thread, s", "2 threads, s", "against ours, 1 thread", "shingles/s"]]
    ours = middle(results["Chatloom", 1], part, "seconds") if ("Chatloom", 1) in results else None
    for name in dict.fromkeys(name for name, _ in results):
        if part not in results[name, 1][0]:
            continue
        one = middle(results[name, 1], part, "seconds")
        two = f"{middle(results[name, 2], part, 'seconds'):.3f}" if (name, 2) in results else ""
        rows.append([name, f"{one:.3f}", two, f"{one / ours:.2f} ×" if ours else "", f"{n_shingles / one / 1e6:.0f} M"])
    table(*rows)


def show_clusters(signed: pl.DataFrame, n_rounds: int) -> None:
    rows = [["clusters alone", "threshold 0.7", "0.8", "0.9"]]
    times: dict[float, list[float]] = {}
    for _ in range(n_rounds + 2):
        for threshold in THRESHOLDS:
            config = Clusters(threshold=threshold, max_source_loss=1.0)
            start = perf_counter()
            list(cluster_rows([signed], config, dedup=Dedup()))
            times.setdefault(threshold, []).append(perf_counter() - start)
    # the first round may compile
    rows.append(
        [
            f"ms per 100,000 rows ({signed.height:,} measured)",
            *(f"{statistics.median(found[1:]) / signed.height * 1e8:.0f}" for found in times.values()),
        ]
    )
    table(*rows)


def show_quality(signed: pl.DataFrame, pairs: Pairs, sample: int) -> None:
    rows = [
        [
            "against brute force",
            "threshold",
            "duplicates",
            "removed",
            "precision",
            "recall",
            "pairs left that are similar",
        ]
    ]
    some = signed.with_row_index().sample(min(sample, signed.height), seed=0).sort("index")["index"].to_numpy()
    for n, is_in in ((len(some), np.isin(np.arange(signed.height), some)), (signed.height, None)):
        chosen = np.flatnonzero(is_in) if is_in is not None else np.arange(signed.height)
        place = np.full(signed.height, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        inner = (place[pairs.left] >= 0) & (place[pairs.right] >= 0)
        own = Pairs(n, place[pairs.left[inner]], place[pairs.right[inner]], pairs.similarity[inner])
        frame = signed[chosen]
        for threshold in THRESHOLDS:
            near = own.at(threshold)
            expected = near.removed(best_first(frame))
            config = Clusters(threshold=threshold, max_source_loss=1.0)
            out = pl.concat(cluster_rows([frame], config, dedup=Dedup()))
            removed = out["keeper"].is_not_null().to_numpy()
            precision, recall = judge(removed, near, best_first(frame))
            left = (~removed[near.left] & ~removed[near.right]).sum() // 2
            rows.append(
                [
                    f"{n:,} rows",
                    f"{threshold}",
                    f"{expected.sum():,}",
                    f"{removed.sum():,}",
                    f"{precision:.4f}",
                    f"{recall:.4f}",
                    f"{left}",
                ]
            )
    table(*rows)


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
    show_clusters(signed, arguments.rounds)
    show_quality(signed, pairs, arguments.sample)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
