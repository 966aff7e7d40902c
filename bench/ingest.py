"""Time ingest from the bytes of a file to committed shards, for four shapes of record, against other ways to read them.

    python -m bench.ingest --input CONVERSATIONS.jsonl [--rounds 5] [--workers 1 2] [--sizes 1 8] [--no-peers]

The input holds messages; the same conversations are written as ShareGPT, and each question with its answer as Alpaca and as
prompt and completion. Ours is what a build does with a shard, by its own code: read and verify the bytes, ingest, conform, hash,
write, flush to the disk, commit; in as many processes, each with its part of the shards, which have loaded what they
need and have read three shards before the clock starts. Before each side, of ours and theirs, the system gets free pages
to write to. Scanning the file (hash it, find where it is cut), which a build does once in one
process, is in the time. Peers read the whole file in one process (`datasets` in as many as it is given) and write one Arrow file
of messages; what they do not do: notice duplicate keys, refuse bad records singly, say where a row came from, hash, flush. Sides
run in turns; medians of the clock; megabytes are 10^6 bytes of the file. Peak memory is that of the largest process, RSS.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WARM = 3
"""Shards that a process of ours reads before the clock starts: by then it has the memory that it needs."""
SHAPES = ("messages", "sharegpt", "alpaca", "prompt_completion")
NAMES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
PAIRS = {"alpaca": ("instruction", "output"), "prompt_completion": ("prompt", "completion")}


# --- inputs


def write_shapes(source: Path, home: Path) -> dict[str, Path]:
    """Write the conversations of `source` in each shape and return the files."""
    paths = {shape: home / f"{shape}.jsonl" for shape in SHAPES}
    for shape, path in paths.items():
        with source.open(encoding="utf-8") as lines, path.open("w", encoding="utf-8") as out:
            for line in lines:
                for record in records(json.loads(line), shape):
                    out.write(f"{json.dumps(record, ensure_ascii=False)}\n")
    return paths


def records(record: dict[str, Any], shape: str) -> Iterator[dict[str, Any]]:
    turns = record.get("messages") or record["conversations"]
    if shape == "messages":
        yield record
    elif shape == "sharegpt":
        turns = [{"from": NAMES[turn["role"]], "value": turn["content"]} for turn in turns]
        yield {"id": record.get("id"), "conversations": turns}
    else:
        asks, answers = PAIRS[shape]
        extra = {"input": ""} if shape == "alpaca" else {}
        for question, answer in pairwise(turns):
            if (question["role"], answer["role"]) == ("user", "assistant"):
                yield {asks: question["content"], **extra, answers: answer["content"]}


# --- ours, in processes of their own


def ours(path: Path, home: Path, workers: int) -> dict[str, float]:
    """Return seconds of the scan and of ingest, and peak memory in MiB, over `workers` processes."""
    command = [sys.executable, "-m", "bench.ingest", "--measure", "ours", str(path), str(home / "run"), str(workers)]
    with_memory = worker_environment(workers)
    children = [
        subprocess.Popen([*command, str(i)], cwd=ROOT, env=with_memory, stdin=-1, stdout=-1, text=True)
        for i in range(workers)
    ]
    scans = [float(_line(child)) for child in children]
    free_pages(home, path)
    start = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    results = [json.loads(_line(child)) for child in children]
    seconds = time.perf_counter() - start
    assert all(child.wait() == 0 for child in children)
    return {
        "seconds": scans[0] + seconds,
        "cpu": sum(result["cpu"] for result in results),
        "MiB": max(result["MiB"] for result in results),
        "rows": sum(result["rows"] for result in results),
    }


def free_pages(home: Path, path: Path) -> None:
    """Let the system have as many free pages at hand as a side writes, by writing and removing as much.

    Where memory belongs to a virtual machine, the first touch of a page costs many times a later one, whoever writes.
    """
    block, scratch = bytes(1 << 20), home / "pages"
    with scratch.open("wb") as file:
        for _ in range(path.stat().st_size * 3 // 2 >> 20):
            file.write(block)
    scratch.unlink()


def worker_environment(workers: int) -> dict[str, str]:
    from pipeline.pool import _worker_environment

    with _worker_environment(workers):
        return dict(os.environ)


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def measure_ours(path: str, run: str, workers: int, number: int) -> None:
    from pipeline.kernel_cache import use_kernel_cache
    from pipeline.lean import leave_out

    leave_out()
    use_kernel_cache()
    from pipeline.execute import Settings, run_shard
    from pipeline.graph import by_name
    from pipeline.plan import Task
    from pipeline.source import Source, scan
    from pipeline.store import Store
    from stages.ingest import Ingest

    config = Source(inputs=(path,))
    settings = Settings(config, {"ingest": Ingest()}, {}, {"ingest": ""})
    stages = [by_name("ingest")]
    start = time.perf_counter()
    chunks = scan(path, config, Path(run) / "spool")
    scanned = time.perf_counter() - start
    own = list(enumerate(chunks))[number::workers]
    for shard, chunk in own[:WARM]:
        run_shard(Store(Path(run) / f"warm{number}"), stages, settings, Task(shard, chunk))
    print(scanned, flush=True)
    sys.stdin.readline()
    store, rows = Store(Path(run)), 0
    store.unfinish("ingest")
    for shard, _ in own:
        store.forget("ingest", shard)
    cpu = time.process_time()
    for shard, chunk in own:
        found, _ = run_shard(store, stages, settings, Task(shard, chunk))
        rows += found["ingest"].kept
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": time.process_time() - cpu, "MiB": peak, "rows": rows}), flush=True)


# --- peers


def to_messages(record: dict[str, Any]) -> dict[str, Any]:
    turns = record.get("messages") or record.get("conversations")
    if turns:
        names = {name: role for role, name in NAMES.items()}
        said = [(turn.get("role") or names[turn["from"]], turn.get("content") or turn.get("value")) for turn in turns]
    else:
        asks = "instruction" if "instruction" in record else "prompt"
        said = [("user", record[asks]), ("assistant", record[dict(PAIRS.values())[asks]])]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def by_datasets(path: Path, out: Path, workers: int) -> None:
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(out))
    rows.map(to_messages, remove_columns=rows.column_names, num_proc=workers if workers > 1 else None)


def by_decoder(decode: Callable[[bytes], dict[str, Any]], path: Path, out: Path) -> None:
    import pyarrow as pa

    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    with path.open("rb") as lines:
        rows = [to_messages(decode(line))["messages"] for line in lines]
    table = pa.table({"messages": pa.array(rows, kind)})
    with pa.ipc.new_file(str(out / "out.arrow"), table.schema) as writer:
        writer.write_table(table)


def by_msgspec(path: Path, out: Path, _: int) -> None:
    import msgspec
    import pyarrow.ipc  # noqa: F401

    by_decoder(msgspec.json.Decoder().decode, path, out)


def by_orjson(path: Path, out: Path, _: int) -> None:
    import orjson
    import pyarrow.ipc  # noqa: F401

    by_decoder(orjson.loads, path, out)


def by_polars(path: Path, out: Path, _: int) -> None:
    import polars as pl

    turn = pl.List(pl.Struct(dict.fromkeys(("from", "value", "role", "content"), pl.String)))
    texts = dict.fromkeys(("instruction", "output", "prompt", "completion", "input"), pl.String)
    kind = pl.Struct({"messages": turn, "conversations": turn, **texts})
    lines = pl.scan_lines(path, name="line")
    rows = lines.select(pl.col("line").str.json_decode(kind)).unnest("line").collect()
    rows.select(name for name in rows.columns if rows[name].null_count() < rows.height).write_ipc(out / "out.arrow")


PEERS = {"datasets": by_datasets, "msgspec": by_msgspec, "orjson": by_orjson, "polars": by_polars}


def peer(name: str, path: Path, home: Path, workers: int) -> dict[str, float]:
    """Return the seconds that a peer needs after its libraries are loaded."""
    free_pages(home, path)
    with tempfile.TemporaryDirectory(dir=home) as out:
        command = [sys.executable, "-m", "bench.ingest", "--measure", name, str(path), out, str(workers), "0"]
        threads = os.environ | {"POLARS_MAX_THREADS": str(workers), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=ROOT, env=threads, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_peer(name: str, path: Path, out: Path, workers: int) -> None:
    few = out / "few.jsonl"
    with path.open("rb") as lines:
        few.write_bytes(b"".join(lines.readline() for _ in range(20)))
    PEERS[name](few, out, workers)  # what it loads on first use is then loaded
    start = time.perf_counter()
    PEERS[name](path, out, workers)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "MiB": peak}))


# --- all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="JSONL file of conversations")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8], help="copies of the file, for peak memory")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument(
        "--scratch", type=Path, default=None, help="where files are written (default: beside the input)"
    )
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        side, path, out, workers, number = options.measure
        if side == "ours":
            measure_ours(path, out, int(workers), int(number))
        else:
            measure_peer(side, Path(path), Path(out), int(workers))
        return
    if options.input is None or not options.input.is_file():
        print("skipped: give --input, a JSONL file of conversations")
        return
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="bench-ingest-") as name:
        home = Path(name)
        paths = write_shapes(options.input, home)
        ours(paths["messages"], home, 1)  # kernels are compiled
        print("| shape | MB | side | workers | seconds | MB/s | RSS, MiB |\n|---|--:|---|--:|--:|--:|--:|")
        for shape in options.shapes:
            compare(shape, paths[shape], home, options)
        grow(paths["messages"], home, options)


def compare(shape: str, path: Path, home: Path, options: argparse.Namespace) -> None:
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    names = [] if options.no_peers else [name for name in PEERS if importlib.util.find_spec(name)]
    for _ in range(options.rounds):
        for workers in options.workers:
            found.setdefault(("chatloom", workers), []).append(ours(path, home, workers))
            for name in names:
                has_processes = name in ("datasets", "polars")
                if workers == min(options.workers) or has_processes:
                    found.setdefault((name, workers), []).append(peer(name, path, home, workers))
    size = path.stat().st_size / 1e6
    for (side, workers), results in found.items():
        seconds = statistics.median(result["seconds"] for result in results)
        peak = max(result["MiB"] for result in results)
        cpu = f" ({statistics.median(result['cpu'] for result in results):.2f} of CPU)" if side == "chatloom" else ""
        print(
            f"| {shape} | {size:.1f} | {side} | {workers} | {seconds:.2f}{cpu} | {size / seconds:.0f} | {peak:.0f} |",
            flush=True,
        )


def grow(path: Path, home: Path, options: argparse.Namespace) -> None:
    print("\n| file, MB | workers | MB/s | largest process, RSS, MiB |\n|--:|--:|--:|--:|")
    for copies in options.sizes:
        large = home / f"{copies}.jsonl"
        with large.open("wb") as out:
            for _ in range(copies):
                out.write(path.read_bytes())
        size = large.stat().st_size / 1e6
        found: dict[int, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for workers in options.workers:
                found.setdefault(workers, []).append(ours(large, home, workers))
        for workers, results in found.items():
            speeds = sorted(size / result["seconds"] for result in results)
            peak = max(result["MiB"] for result in results)
            told = f"{statistics.median(speeds):.0f} ({speeds[0]:.0f} to {speeds[-1]:.0f})"
            print(f"| {size:.0f} | {workers} | {told} | {peak:.0f} |", flush=True)
        large.unlink()


if __name__ == "__main__":
    main()
