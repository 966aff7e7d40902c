"""A small but real run directory: packs of short conversations, a true manifest, a trained tokenizer."""

import hashlib
import itertools
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from schemas.checksum import checksums, summary
from schemas.manifest import FileRecord, Manifest, ShardRecord, total
from schemas.tables import PACKED

PACK_TOKENS = 96
USED = ("ids", "input_ids", "labels", "loss_weights", "seq_lengths")
"""Columns of a pack whose values are trained with, each a list."""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG = """\
run = "unset"
seed = 7
[pack]
max_seq_len = 96
[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 256
[train]
steps = 40
batch = 5
micro_batch = 2
lr = 5e-3
warmup_steps = 2
dtype = "float32"
eval_every = 10
checkpoint_every = 10
n_samples = 2
export_unless_stopping = true
[generation]
max_new_tokens = 12
"""


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([f"What is {a} and {b}? It is {a}." for a in NUMBERS for b in NUMBERS], trainer)
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    return tokenizer


def conversation(tokenizer: Tokenizer, rng: random.Random) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    for _ in range(rng.randint(1, 3)):
        a, b = rng.choice(NUMBERS), rng.choice(NUMBERS)
        head = tokenizer.encode(f"<|im_start|>user\n{a} {b}<|im_end|>\n<|im_start|>assistant\n").ids
        answer = tokenizer.encode(f"{b} {a}<|im_end|>").ids
        tail = tokenizer.encode("\n").ids
        ids += head + answer + tail
        labels += [-100] * len(head) + answer + [-100] * len(tail)
    return ids, labels


def pack_rows(split: str, n_packs: int, tokenizer: Tokenizer, *, seed: int, weighted: bool) -> list[dict[str, object]]:
    rng = random.Random(seed)
    rows: list[dict[str, object]] = []
    line = 0
    for _ in range(n_packs):
        row: dict[str, list[object]] = {"ids": [], "input_ids": [], "labels": [], "seq_lengths": []}
        limit = rng.choice((PACK_TOKENS, PACK_TOKENS // 2))
        while True:
            ids, labels = conversation(tokenizer, rng)
            if row["ids"] and len(row["input_ids"]) + len(ids) > limit:
                break
            line += 1
            row["ids"].append(f"{split}.jsonl:{line}")
            row["input_ids"] += ids
            row["labels"] += labels
            row["seq_lengths"].append(len(ids))
        trained = [label != -100 for label in row["labels"]]
        # exact in float32, so that a sum of them is what a reader expects
        weights = [rng.choice((0.25, 0.5, 2.0)) if is_trained else 0.0 for is_trained in trained]
        rows.append(
            row
            | {
                "split": split,
                "loss_weights": weights if weighted else None,
                "n_supervised": sum(trained),
                "weight_sum": float(sum(weights) if weighted else sum(trained)),
            }
        )
    return rows


def summed(rows: Sequence[dict[str, object]]) -> pa.Table:
    """Return the packs with the columns that follow from the others."""
    full = []
    for row in rows:
        lengths: list[int] = row["seq_lengths"]  # type: ignore[assignment]
        labels: list[int] = row["labels"]  # type: ignore[assignment]
        weights: list[float] = row["loss_weights"] or [float(label != -100) for label in labels]  # type: ignore[assignment]
        ends = list(itertools.accumulate(lengths))
        sums = [sum(weights[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
        full.append(
            {
                "n_tokens": sum(lengths),
                "longest": max(lengths, default=0),
                "sum_squares": sum(length**2 for length in lengths),
                "n_trained": len([weight for weight in sums if weight > 0]),
                "root_weight_sum": sum(weight**0.5 for weight in sums),
                "checksum": 0,
                "tags": [[] for _ in lengths],
            }
            | row
        )
    table = pa.Table.from_pylist(full, schema=PACKED).combine_chunks()
    found = [checksums(batch) for batch in table.to_batches()]
    at = PACKED.get_field_index("checksum")
    return table.set_column(at, PACKED.field(at), pa.array([crc for crcs in found for crc in crcs], pa.uint32()))


def make_shard(stage: Path, path: str, rows: Sequence[dict[str, object]]) -> FileRecord:
    target = stage / path
    target.parent.mkdir(parents=True, exist_ok=True)
    table = summed(rows)
    with pa.ipc.new_file(str(target), PACKED) as writer:
        writer.write_table(table, max_chunksize=4)
    data = target.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return FileRecord(path=path, rows=len(rows), bytes=len(data), sha256=sha256, checksums=summary(table))


def used_bytes(data: bytes) -> dict[str, list[int]]:
    """Return where in a shard's file the values lie that are trained with, by column."""
    file = pa.py_buffer(data)
    found: dict[str, list[int]] = {name: [] for name in USED}
    reader = pa.ipc.open_file(file)
    for batch in (reader.get_batch(i) for i in range(reader.num_record_batches)):
        for name in USED:
            values = batch[name].values
            if len(values):
                n_bytes = sum(map(len, values.to_pylist())) if name == "ids" else 4 * len(values)
                start = values.buffers()[-1].address - file.address
                found[name] += range(start, start + n_bytes)
    return found


def make_run(run: Path, *, n_train: int = 23, n_validation: int = 5, weighted: bool = False) -> Path:
    tokenizer = make_tokenizer()
    home = run / "tokenizer"
    home.mkdir(parents=True)
    tokenizer.save(str(home / "tokenizer.json"))
    stop, end = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    generation = {"bos_token_id": None, "pad_token_id": end, "eos_token_id": [stop, end]}
    (home / "generation_config.json").write_bytes(msgspec.json.encode(generation))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (home / "tokenizer_config.json").write_bytes(msgspec.json.encode(config))
    (home / "chat_template.jinja").write_text(TEMPLATE)
    stage = run / "pack"
    train = pack_rows("train", n_train, tokenizer, seed=1, weighted=weighted)
    validation = pack_rows("validation", n_validation, tokenizer, seed=2, weighted=weighted)
    files = (
        make_shard(stage, "kept/train/00000.arrow", train[: n_train // 2]),
        make_shard(stage, "kept/train/00001.arrow", train[n_train // 2 :]),
        make_shard(stage, "kept/validation/00000.arrow", validation),
    )
    n = sum(len(row["ids"]) for row in (*train, *validation))  # type: ignore[arg-type]
    shards = (ShardRecord(shard=0, key="k", rows_in=n, kept=n, dropped={}, files=files),)
    assets = {
        f"tokenizer/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(home.iterdir())
    }
    manifest = Manifest(stage="pack", key="pack-key", libraries={}, assets=assets, totals=total(shards), shards=shards)
    (stage / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    (run / "config.toml").write_text(CONFIG.replace("unset", str(run)))
    return run


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests that train in this process as fast on a busy machine as on an idle one, and bit-identical."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("template") / "run")


@pytest.fixture
def run(run_template: Path, tmp_path: Path) -> Path:
    target = tmp_path / "run"
    shutil.copytree(run_template, target)
    (target / "config.toml").write_text(CONFIG.replace("unset", str(target)))
    return target


@pytest.fixture
def write_run() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session")
def write_run_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return lambda name: make_run(tmp_path_factory.mktemp(name) / "run")


@pytest.fixture
def write_shard() -> Callable[..., FileRecord]:
    return make_shard
