"""How fast a whole build is, where its time goes, how much memory it takes, and how full the packs are.

    python -m bench.pipeline --input conversations.jsonl --tokenizer DIRECTORY [--rounds 3] [--workers 2]

Each round builds from nothing in a temporary directory, in processes of its own, as a user does. Start-up is measured by a
build of one conversation and reported apart. Memory is the peak over time, summed over all processes: RSS, which counts a
page of a shared library once for each process that maps it, and PSS, which counts it once.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

from schemas.manifest import STAGES, read_manifests

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--input", default="data/sample/messages.jsonl", help="JSONL file (default: a file of the sample)"
    )
    parser.add_argument("--tokenizer", default="data/tokenizer", help="tokenizer with a chat template")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--against", action="store_true", help="also time tokenizers.encode_batch_fast on the same contents"
    )
    options = parser.parse_args()
    size = Path(options.input).stat().st_size
    with tempfile.TemporaryDirectory() as directory:
        one = Path(directory) / "one.jsonl"
        with Path(options.input).open("rb") as file:
            one.write_bytes(file.readline())
        build(directory, str(one), options)  # kernels are compiled
        startup, rounds, peers = [], [], []
        for _ in range(options.rounds):
            startup.append(build(directory, str(one), options)[0])
            rounds.append(build(directory, options.input, options))
            if options.against:
                peers.append(encode_batch_fast(options))
        report(Path(directory) / "run", size, startup, rounds, peers, options)


def build(directory: str, given: str, options: argparse.Namespace) -> tuple[float, list[int]]:
    """Build from nothing; return (seconds, peak bytes of RSS and PSS)."""
    run = Path(directory) / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "pipeline.cli", "data", "configs/sft.toml", "--input", given, "--run", str(run)]
    command += ["--workers", str(options.workers), "--set", f"tokenize.tokenizer={options.tokenizer}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = [0, 0]
    watcher = threading.Thread(target=watch, args=(process.pid, peak))
    watcher.start()
    assert process.wait() == 0
    seconds = time.perf_counter() - start
    watcher.join()
    return seconds, peak


def watch(pid: int, peak: list[int]) -> None:
    try:
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            total = [0, 0]
            for process in [parent, *parent.children(recursive=True)]:
                try:
                    memory = process.memory_full_info()
                except psutil.Error:
                    continue
                total = [total[0] + memory.rss, total[1] + memory.pss]
            peak[:] = [max(old, new) for old, new in zip(peak, total, strict=True)]
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        return


def encode_batch_fast(options: argparse.Namespace) -> float:
    """Return the seconds that `tokenizers` takes for the contents alone, all cores, loaded and read beforehand."""
    code = (
        "import json, sys, time\nfrom tokenizers import Tokenizer\n"
        "t = Tokenizer.from_file(sys.argv[2])\n"
        "rows = [json.loads(line) for line in open(sys.argv[1], encoding='utf-8')]\n"
        "texts = [m['content'] for r in rows for m in r.get('messages', r.get('conversations'))]\n"
        "s = time.perf_counter(); t.encode_batch_fast(texts, add_special_tokens=False); print(time.perf_counter() - s)\n"
    )
    tokenizer = Path(options.tokenizer) / "tokenizer.json"
    done = subprocess.run(
        [sys.executable, "-c", code, options.input, str(tokenizer)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def report(
    run: Path,
    size: int,
    startup: list[float],
    rounds: list[tuple[float, list[int]]],
    peers: list[float],
    options: argparse.Namespace,
) -> None:
    seconds = statistics.median(seconds for seconds, _ in rounds)
    start = statistics.median(startup)
    manifests = read_manifests(run)
    spent: dict[str, float] = defaultdict(float)
    written: dict[str, float] = defaultdict(float)
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        spent[event["stage"]] += event["seconds"]
        written[event["stage"]] += event["write_seconds"]
    total = sum(spent.values()) + sum(written.values())
    packs = sum(file.rows for shard in manifests["pack"].shards for file in shard.kept_files())
    tokens = manifests["pack"].totals.tokens
    print(f"input {options.input}: {size / 1e6:.1f} MB, {manifests['ingest'].totals.rows_in:,} records")
    print(f"whole build, {options.workers} workers: {seconds:.2f} s = {size / seconds / 1e6:.1f} MB/s", end=" ")
    print(f"(start-up alone {start:.2f} s; without it {size / max(seconds - start, 1e-9) / 1e6:.1f} MB/s)")
    print(f"all rounds: {', '.join(f'{s:.2f} s' for s, _ in rounds)}")
    rss, pss = (max(peak[kind] for _, peak in rounds) / 1e6 for kind in (0, 1))
    print(f"peak memory, all processes: RSS {rss:,.0f} MB, PSS {pss:,.0f} MB")
    print(f"packs: {packs:,}, {tokens:,} tokens, fill {tokens / packs / 2048:.2%}")
    if peers:
        peer = statistics.median(peers)
        print(
            f"tokenizers.encode_batch_fast, contents alone: {peer:.2f} s; a whole build takes {seconds / peer:.2f} x that"
        )
    print("\n| stage | seconds of work, all workers | of it writing | share |\n|---|--:|--:|--:|")
    for stage in STAGES:
        both = spent[stage] + written[stage]
        print(f"| {stage} | {both:.2f} | {written[stage]:.2f} | {both / total:.0%} |")


if __name__ == "__main__":
    main()
