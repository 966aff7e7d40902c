"""Time render, tokenize and mask against TRL's own preparation of the same conversations, interleaved; medians.

    python -m bench.prepare --input conversations.jsonl --tokenizer DIRECTORY [--rounds 3] [--rows N] [--workers 2]

Ours is `chatloom data --until mask` on a run that has come to the end of dedup: from the command to its end, shards
written, start-up included; start-up alone is that of the same command for one conversation. The three stages alone are
timed in processes that have loaded what they need, from the frames of dedup to those of mask. TRL's is `_prepare_dataset` of
an SFTTrainer with `assistant_only_loss` and its training twin of the template: tokenising, labels and packing, in as many
processes, written to a cache of its own; loading Python, tokenizer, model and data is not counted. Both see the rows that
dedup kept; megabytes are those of these rows as JSON lines of role and content.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parents[1]
OURS = """
import sys, time
from pathlib import Path
from pipeline.kernel_cache import use_kernel_cache
from pipeline.lean import leave_out
leave_out()
use_kernel_cache()
import polars as pl
from pipeline.assets import load_assets
from pipeline.config import load_config
from pipeline.execute import Settings, run_empty
from pipeline.graph import by_name

run, tokenizer, part, parts = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
config = load_config(Path("configs/sft.toml"), assignments=[f"tokenize.tokenizer={tokenizer}"])
assets = load_assets(config).by_name
stages = [by_name(name) for name in ("render", "tokenize", "mask")]
run_empty(stages, Settings(config.source, config.sections, assets, {}))  # as TRL's, our loading is not counted
rows = pl.concat([pl.read_ipc(path) for path in sorted(run.glob("dedup/kept/*.arrow"))])
size = -(-rows.height // parts)
own = rows.slice(part * size, size)
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
for frame in own.iter_slices(6000):
    for stage in stages:
        settings = config.sections[stage.name]
        out = stage.run(frame, settings, **{name: assets[name] for name in stage.assets})
        stage.report(out, frame, settings)
        is_whole = out["drop_reason"].null_count() == out.height
        frame = (out if is_whole else out.filter(pl.col("drop_reason").is_null())).select(stage.writes.names)
print(time.perf_counter() - start)
"""
PEER = """
import json, sys, time
from pathlib import Path

import datasets, transformers, trl

rows, tokenizer_path, twin, workers, max_length, out, packing = sys.argv[1:]
datasets.disable_progress_bars()


class Timed(trl.SFTTrainer):
    def _prepare_dataset(self, *args, **kwargs):
        start = time.perf_counter()
        dataset = super()._prepare_dataset(*args, **kwargs)
        self.seconds = time.perf_counter() - start
        self.prepared = dataset
        return dataset


tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_path)
tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{twin}.jinja").read_text(encoding="utf-8")
config = transformers.Qwen2Config(
    vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2,
)
trainer = Timed(
    model=transformers.Qwen2ForCausalLM(config),
    args=trl.SFTConfig(
        output_dir=out, assistant_only_loss=True, packing=packing == "yes", max_length=int(max_length),
        dataset_num_proc=int(workers), report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
    ),
    train_dataset=datasets.load_dataset("json", data_files=rows, split="train"),
    processing_class=tokenizer,
)
labels = trainer.prepared.with_format("arrow")
trained = total = 0
for batch in labels.iter(1000):
    values = batch["labels"].combine_chunks().values.to_numpy()
    total += len(values)
    trained += int((values != -100).sum())
print(json.dumps([trainer.seconds, total, trained]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="JSONL file of conversations")
    parser.add_argument("--tokenizer", required=True, help="directory with tokenizer.json and a chat template")
    parser.add_argument("--twin", default="qwen2_5_training", help="TRL's training template for the same model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="take only so many lines of the input")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--until", default="mask", choices=("mask", "pack"), help="where ours ends")
    parser.add_argument("--no-packing", action="store_true", help="let TRL truncate instead of packing")
    parser.add_argument("--peer-rounds", type=int, help="rounds of TRL, which is slow (default: as many as ours)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with Path(options.input).open("rb") as file:
            (home / "all.jsonl").write_bytes(b"".join(itertools.islice(file, options.rows)))
        with (home / "all.jsonl").open("rb") as file:
            (home / "one.jsonl").write_bytes(file.readline())
        for part in ("all", "one"):
            build(home / f"{part}.jsonl", home / f"{part}-dedup", "dedup", options)
        build_on(home, "one", options)  # kernels are compiled
        rows = write_rows(home / "all-dedup", home / "rows.jsonl")
        starts, ours, stages, theirs, counts = [], [], [], [], [0, 0]
        for turn in range(options.rounds):
            starts.append(build_on(home, "one", options))
            ours.append(build_on(home, "all", options))
            stages.append(run_stages(home / "all-dedup", options))
            if turn < (options.rounds if options.peer_rounds is None else options.peer_rounds):
                seconds, *counts = peer(home, options)
                theirs.append(seconds)
        report(home, rows, starts, ours, stages, theirs, counts, options)


def build(given: Path, run: Path, until: str, options: argparse.Namespace) -> float:
    """Build up to a stage; return the seconds from the command to its end."""
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "data",
        "configs/sft.toml",
        "--input",
        str(given),
        "--run",
        str(run),
    ]
    command += ["--workers", str(options.workers), "--set", f"tokenize.tokenizer={options.tokenizer}", "--until", until]
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def build_on(home: Path, part: str, options: argparse.Namespace) -> float:
    """Copy the run that ends at dedup, and time the build of what follows."""
    run = home / f"{part}-run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(home / f"{part}-dedup", run)
    return build(home / f"{part}.jsonl", run, options.until, options)


def run_stages(run: Path, options: argparse.Namespace) -> float:
    """Return the seconds of the three stages over all rows, in as many processes, nothing written, loading not counted."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OURS, str(run), options.tokenizer, str(part), str(options.workers)],
            cwd=ROOT,
            env=os.environ | dict.fromkeys(("POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(options.workers)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in processes)


def write_rows(run: Path, path: Path) -> int:
    """Write the conversations that dedup kept, as TRL reads them; return how many."""
    kept = pl.concat([pl.read_ipc(shard, columns=["messages"]) for shard in sorted(run.glob("dedup/kept/*.arrow"))])
    with path.open("w", encoding="utf-8") as file:
        for messages in kept["messages"].to_list():
            said = [{"role": message["role"], "content": message["content"]} for message in messages]
            file.write(json.dumps({"messages": said}, ensure_ascii=False) + "\n")
    return kept.height


def peer(home: Path, options: argparse.Namespace) -> tuple[float, int, int]:
    """Return (seconds, tokens, trained tokens) of TRL's preparation."""
    cache = home / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    packing = "no" if options.no_packing else "yes"
    settings = [options.tokenizer, options.twin, str(options.workers), "2048", str(cache / "out"), packing]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEER, str(home / "rows.jsonl"), *settings],
        cwd=ROOT,
        env=os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"TRL's preparation failed:\n{done.stderr[-3000:]}")
    seconds, total, trained = json.loads(done.stdout.splitlines()[-1])
    return seconds, total, trained


def report(
    home: Path,
    rows: int,
    starts: list[float],
    ours: list[float],
    stages: list[float],
    theirs: list[float],
    counts: list[int],
    options: argparse.Namespace,
) -> None:
    size = (home / "rows.jsonl").stat().st_size / 1e6
    labels = [pl.read_ipc(path, columns=["labels"])["labels"] for path in home.glob("all-run/mask/kept/*.arrow")]
    tokens = sum(int(column.list.len().sum()) for column in labels)
    trained = sum(int((column.explode() != -100).sum()) for column in labels)
    start, own = statistics.median(starts), statistics.median(ours)
    print(f"{rows:,} conversations, {size:.1f} MB; {options.workers} processes; all rounds: ", end="")
    print(f"ours {', '.join(f'{s:.2f}' for s in ours)} s; TRL {', '.join(f'{s:.2f}' for s in theirs)} s")
    print(f"ours, until {options.until}: {own:.2f} s = {size / own:.1f} MB/s, {tokens:,} tokens, {trained:,} trained")
    rest = max(own - start, 0.01)  # on a busy machine start-up can take longer than the build
    print(f"  start-up alone {start:.2f} s; without it {rest:.2f} s = {size / rest:.1f} MB/s")
    alone = statistics.median(stages)
    print(f"  the three stages alone, nothing written: {alone:.2f} s = {size / alone:.1f} MB/s")
    if theirs:
        other = statistics.median(theirs)
        what = "truncation" if options.no_packing else "packing"
        print(f"TRL, with {what}: {other:.2f} s = {size / other:.1f} MB/s, {counts[0]:,} tokens, {counts[1]:,} trained")
        print(
            f"ratio: {other / own:.1f} x; without our start-up {other / rest:.1f} x; stages alone {other / alone:.1f} x"
        )


if __name__ == "__main__":
    main()
