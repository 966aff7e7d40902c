"""Time the tokenize stage, frame in, frame out, against `tokenizers.encode_batch_fast` alone on the same texts.

    python -m bench.encode CONVERSATIONS.jsonl TOKENIZERS [ROWS] [NAME ...]

TOKENIZERS is a folder below which every tokenizer.json beside a chat template is measured, or those of NAME. Each side
runs in a fresh process with one thread, in turns; medians over the rounds, in seconds of CPU (of the whole process, all
threads) and of the clock.

start    all that is loaded before the first row: ours both engines, the proof of equality, the table of spellings, kernels
first    the first pass over the rows, in shards; of the stage, every row proven, spans moved, 32 rows a shard compared
again    the same rows once more: gigatoken remembers the ids of pieces it has met

The speed-up that counts is of start + first: a process that has never seen a text.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from bench.render import conversations, templates, to_frame
from schemas.assets import Vocabulary
from stages.render import Render, render_conversations
from stages.tokenize import Tokenize, tokenize_conversations
from stages.tokenize.definition import Definition

ROUNDS = 3
SHARD_ROWS = 6000
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def timed(run: Callable[[list[pl.DataFrame]], None], frames: list[pl.DataFrame]) -> tuple[float, float]:
    cpu, clock = time.process_time(), time.perf_counter()
    run(frames)
    return time.process_time() - cpu, time.perf_counter() - clock


def stage(path: Path, shards: list[pl.DataFrame]) -> dict[str, tuple[float, float]]:
    tokenizer_json = path.read_bytes()
    controls = Definition(tokenizer_json).controls(())
    vocabulary = Vocabulary(tokenizer_json=tokenizer_json, control_tokens=controls)

    def run(frames: list[pl.DataFrame]) -> None:
        for frame in frames:
            out = tokenize_conversations(frame, Tokenize(), vocabulary=vocabulary)
            assert out["drop_reason"].null_count() == out.height
            assert out.height == 0 or out["proof"].struct.field("is_proven").all()

    return {name: timed(run, frames) for name, frames in passes(shards)}


def peer(path: Path, shards: list[pl.DataFrame]) -> dict[str, tuple[float, float]]:
    from tokenizers import Tokenizer

    loaded: list[Any] = []

    def run(frames: list[pl.DataFrame]) -> None:
        if not loaded:
            loaded.append(Tokenizer.from_file(str(path)))
        for frame in frames:
            loaded[0].encode_batch_fast(frame["text"].to_list(), add_special_tokens=False)

    return {name: timed(run, frames) for name, frames in passes(shards)}


def passes(shards: list[pl.DataFrame]) -> list[tuple[str, list[pl.DataFrame]]]:
    return [("start", [shards[0].clear()]), ("first", shards), ("again", shards)]


def measure(side: str, tokenizer: Path, rows: Path) -> dict[str, tuple[float, float]]:
    command = [sys.executable, "-m", "bench.encode", "--measure", side, str(tokenizer), str(rows)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, tuple[float, float]] = json.loads(done.stdout)
    return found


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    n_rows = int(sys.argv[3]) if len(sys.argv) > 3 else 12_000
    names = sys.argv[4:]
    frame = to_frame(conversations(source, n_rows))
    for template in templates(folder):
        found = sorted((folder / template.name).rglob("tokenizer.json"))
        if not found or (names and template.name not in names):
            continue
        rendered = render_conversations(frame, Render(verify=0), template=template)
        rendered = rendered.filter(pl.col("drop_reason").is_null()).drop("drop_reason", "detail")
        n_bytes = int(rendered["text"].str.len_bytes().sum())
        with tempfile.TemporaryDirectory() as directory:
            rows = Path(directory) / "rows.arrow"
            rendered.write_ipc(rows)
            sides: dict[str, list[dict[str, tuple[float, float]]]] = {"stage": [], "peer": []}
            for _ in range(ROUNDS):
                for side, results in sides.items():
                    results.append(measure(side, found[0], rows))
        report(template.name, rendered.height, n_bytes, sides)


def report(name: str, n_rows: int, n_bytes: int, sides: dict[str, list[dict[str, tuple[float, float]]]]) -> None:
    print(f"{name}: {n_rows} rows, {n_bytes / 1e6:.1f} MB of text; medians of {ROUNDS}")
    for kind, label in ((0, "CPU"), (1, "clock")):
        ours, theirs = (
            {part: statistics.median(result[part][kind] for result in results) for part in results[0]}
            for results in sides.values()
        )
        fresh = (theirs["start"] + theirs["first"]) / (ours["start"] + ours["first"])
        parts = "  ".join(
            f"{part} {ours[part]:.2f} / {theirs[part]:.2f} s = {theirs[part] / ours[part]:.1f} x" for part in ours
        )
        print(f"  {label:5}  {parts}  fresh process {fresh:.1f} x  ({n_bytes / 1e6 / (ours['first']):.0f} MB/s)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        table = pl.read_ipc(sys.argv[4])
        cut = [table[first : first + SHARD_ROWS] for first in range(0, table.height, SHARD_ROWS)]
        print(json.dumps({"stage": stage, "peer": peer}[sys.argv[2]](Path(sys.argv[3]), cut)))
    else:
        main()
