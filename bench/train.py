"""Time training steps of the bundled trainer and of TRL's SFTTrainer: same model, same packs, same order, same arithmetic.

    python -m bench.train --input CONVERSATIONS.jsonl --tokenizer DIRECTORY [--rows N] [--rounds N] [--dtype float32]

Shards are built once and a model of random weights is saved once; each side then trains from both, in a process of its
own, in turns. A step is one pack. The first steps of a process are left out (allocation, warm caches); tokens per second
are the median over rounds. TRL takes the packs as they are, padding-free, its documents apart by their positions (that
is what its `packing = True` does); activation checkpointing, on by default there, is off for both, since neither needs it.
Both report the loss of every step, and the run fails if these differ: then they would not have done the same work.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

WARM_UP = 4
"""Steps at the beginning of each process that are not counted."""
CLOSE = {"float32": 2e-3, "bfloat16": 3e-2}
"""How far the losses of a step may lie apart."""
ROOT = Path(__file__).parents[1]


def config(run: Path, model: Path, options: argparse.Namespace, dtype: str) -> Path:
    path = run.parent / f"{dtype}.toml"
    path.write_text(
        f"""run = {json.dumps(str(run))}
[source]
inputs = [{json.dumps(str(run.parent / "rows.jsonl"))}]
[tokenize]
tokenizer = {json.dumps(str(options.tokenizer))}
[render]
template = {json.dumps(options.template)}
[pack]
max_seq_len = {options.length}
[model]
path = {json.dumps(str(model))}
[train]
steps = {options.steps}
batch = 1
lr = 1e-4
schedule = "constant"
dtype = "{dtype}"
order = "as_built"
eval_every = 0
checkpoint_every = 0
n_samples = 0
export_unless_stopping = true
keep_best = false
"""
    )
    return path


def save_model(directory: Path, vocabulary: int, options: argparse.Namespace) -> None:
    code = f"""
import torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
c = LlamaConfig(vocab_size={vocabulary}, hidden_size={options.hidden}, intermediate_size={options.hidden * 8 // 3 // 64 * 64},
    num_hidden_layers={options.layers}, num_attention_heads={options.hidden // 64},
    num_key_value_heads={options.hidden // 64}, max_position_embeddings={options.length}, tie_word_embeddings=True)
LlamaForCausalLM(c).save_pretrained({str(directory)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)


def ours(path: Path, run: Path, policy: dict[str, str]) -> list[dict[str, Any]]:
    subprocess.run(
        [sys.executable, "-m", "trainer", str(path), "--fresh"],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env=os.environ | policy,
    )
    return [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()][1:]


def theirs(run: Path, model: Path, dtype: str, steps: int, policy: dict[str, str]) -> list[dict[str, Any]]:
    out = run.parent / "trl.json"
    subprocess.run(
        [sys.executable, "-m", "bench.train", "--trl", str(run), str(model), dtype, str(steps), str(out)],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | policy,
    )
    return json.loads(out.read_text())


def trl(run: Path, model: Path, dtype: str, steps: int, out: Path) -> None:
    """Train as TRL does and write step times, tokens and losses to `out`."""
    import pyarrow as pa
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    tables = [pa.ipc.open_file(path).read_all() for path in sorted((run / "pack" / "kept" / "train").glob("*.arrow"))]
    table = pa.concat_tables(tables).select(["input_ids", "labels", "seq_lengths"])[:steps]
    seen: list[dict[str, Any]] = []

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen.append({"seconds": time.perf_counter() - self.began})

        def on_log(self, _a: Any, _s: Any, _c: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                seen[-1]["loss"] = logs["loss"]

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa", dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(out.parent / "trl"),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=1,
            max_steps=steps,
            learning_rate=1e-4,
            adam_beta2=0.95,
            lr_scheduler_type="constant",
            warmup_steps=0,
            bf16=dtype == "bfloat16",
            gradient_checkpointing=False,
            padding_free=True,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=Dataset(table),
        processing_class=AutoTokenizer.from_pretrained(run / "tokenizer"),
        callbacks=[Clock()],
    )
    trainer.train()
    for line, ids in zip(seen, table["input_ids"], strict=True):
        line["tokens"] = len(ids)
    out.write_text(json.dumps(seen))


def speed(lines: list[dict[str, Any]]) -> float:
    counted = lines[WARM_UP:]
    return sum(line["tokens"] for line in counted) / sum(line["seconds"] for line in counted)


def per_step(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return lines of metrics.jsonl, whose tokens and seconds are totals, as steps."""
    before = {"tokens": 0, "seconds": 0.0}
    steps = []
    for line in lines:
        steps.append({"loss": line["loss"]} | {key: line[key] - before[key] for key in ("tokens", "seconds")})
        before = line
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, default=ROOT / "data" / "sample" / "conversations.jsonl")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "data" / "tokenizer")
    parser.add_argument("--template", default="tokenizer", help="chat template (default: that of the tokenizer)")
    parser.add_argument("--rows", type=int, default=600, help="conversations that are read (default: %(default)s)")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a pack (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--wait",
        choices=["passive", "active"],
        default="passive",
        help="threads sleep or spin while they wait, on both sides; spinning is faster on cores that nobody else uses, "
        "and many times slower on others (default: %(default)s, as the trainer has it)",
    )
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        run, model = Path(home) / "run", Path(home) / "model"
        with options.input.open("rb") as source, (Path(home) / "rows.jsonl").open("wb") as rows:
            for _, line in zip(range(options.rows), source, strict=False):
                rows.write(line)
        tokenizer = msgspec.json.decode((options.tokenizer / "tokenizer.json").read_bytes())
        ids = [token["id"] for token in tokenizer["added_tokens"]] + list(tokenizer["model"]["vocab"].values())
        save_model(model, 1 + max(ids), options)
        path = config(run, model, options, options.dtype[0])
        subprocess.run([sys.executable, "-m", "pipeline.cli", "data", str(path)], cwd=ROOT, check=True)
        for dtype in options.dtype:
            compare(run, model, dtype, options)


def compare(run: Path, model: Path, dtype: str, options: argparse.Namespace) -> None:
    path = config(run, model, options, dtype)
    policy = {"OMP_WAIT_POLICY": options.wait.upper()}
    speeds: dict[str, list[float]] = {"chatloom": [], "trl": []}
    for number in range(options.rounds):
        own = per_step(ours(path, run, policy))
        other = theirs(run, model, dtype, options.steps, policy)
        for step, (a, b) in enumerate(zip(own, other, strict=True), 1):
            assert a["tokens"] == b["tokens"], step
            assert abs(a["loss"] - b["loss"]) <= CLOSE[dtype] * b["loss"], (step, a["loss"], b["loss"])
        speeds["chatloom"].append(speed(own))
        speeds["trl"].append(speed(other))
        print(f"{dtype} round {number + 1}: " + ", ".join(f"{name} {s[-1]:,.0f} tok/s" for name, s in speeds.items()))
    medians = {name: statistics.median(s) for name, s in speeds.items()}
    ratio = statistics.median(a / b for a, b in zip(speeds["chatloom"], speeds["trl"], strict=True))
    print(f"{dtype}: chatloom {medians['chatloom']:,.0f} tok/s, TRL {medians['trl']:,.0f} tok/s, {ratio:.2f} x")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trl"]:
        trl(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]), Path(sys.argv[6]))
    else:
        main()
