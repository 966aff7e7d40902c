"""The presets of the reference systems: their values, what they train to the letter, and that they run from data to export."""

import json
import math
import os
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from pipeline.config import SECTIONS, load_config
from pipeline.run import build
from schemas.models import Model
from stages.length import mark_length
from tests.corpus import ROOT
from tests.reference_values import DIALOGUE, THOUGHT, TRAINED, VALUES
from trainer.data.assets import GenerationConfig, vocabulary_size
from trainer.data.stream import steps_per_epoch
from trainer.export import export
from trainer.job import Job, read_job
from trainer.loop import fit
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise, untie
from trainer.model.lora import adapt, adapter_tensors
from trainer.optim import learning_rate
from trainer.plan import make_schedule
from trainer.report.console import Reporter
from trainer.report.preview import preview
from trainer.signals import Stop
from trainer.world import World

PRESETS = ROOT / "configs" / "presets"
DATA = "minimind-data"
"""How a set was made, to be trained on by another preset."""
NAMES = sorted(path.stem for path in PRESETS.glob("*.toml") if path.stem != DATA)
TOKENIZER = ROOT / "data" / "tokenizer"
ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))

STATED = ("mask.preset", "lora.alpha", "train.batch")
"""Keys that a preset may state although they are the defaults: who reproduces something looks for them."""

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
FAMILIES = {"tinyllama": "llama", "rasbt": "gpt2", "minigpt": "gpt2", "minimind": "qwen3"}


def value_of(name: str, key: str) -> Any:
    config = load_config(PRESETS / f"{name}.toml")
    section, _, field = key.partition(".")
    return getattr(config.sections[section], field) if field else getattr(config, section)


def job_of(name: str, *overrides: str, run: Path | None = None) -> Job:
    return read_job(PRESETS / f"{name}.toml", run=run, overrides=overrides, world_size=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_loads_on_both_sides_and_states_only_what_differs_from_the_defaults(name: str) -> None:
    config, job = load_config(PRESETS / f"{name}.toml"), job_of(name)
    assert (Path(config.run), config.seed) == (job.run, job.seed) == (Path("runs") / name, job.seed)
    for section in ("model", "lora", "train", "generation"):
        assert getattr(job, section) == config.sections[section]
    document = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    for section, kind in SECTIONS.items():
        default = kind()
        for key in document.get(section, {}):
            assert f"{section}.{key}" in STATED or getattr(config.sections[section], key) != getattr(default, key), key


@pytest.mark.parametrize("name", VALUES)
def test_a_preset_has_the_reference_s_values(name: str) -> None:
    assert {key: value_of(name, key) for key in VALUES[name]} == VALUES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_opens_with_the_commands_that_run_it_and_packs_as_upstream_batches(name: str) -> None:
    opening = (PRESETS / f"{name}.toml").read_text().split("\n\n")[0].splitlines()
    commands = [line.removeprefix("#   ").split() for line in opening if line.startswith("#   ")]
    (given,) = value_of(name, "source.inputs")
    assert commands[0] == ["chatloom", "data", f"configs/presets/{name}.toml", "--input", given]
    assert commands[1][:3] == ["chatloom", "train", f"configs/presets/{name}.toml"]
    assert value_of(name, "pack.strategy") == "single"
    assert any(line.startswith("# Packing instead:") for line in opening)


def test_every_preset_is_documented_and_compared_with_its_reference() -> None:
    assert set(NAMES) == set(VALUES) == set(TRAINED)
    page = (ROOT / "docs" / "presets.md").read_text()
    assert [name for name in (*NAMES, DATA) if f"`{name}`" not in page] == []


def test_the_page_s_conversion_makes_the_messages_that_the_templates_write_back(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "presets.md").read_text()
    block = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def convert" in block)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/presets.md", "exec"), names)  # noqa: S102 - our own document
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, DIALOGUE, strict=True)]
    guanaco = "### Human: Who are you?### Assistant: A small model.### Human: Thanks!### Assistant: Gladly."
    chatml = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
    for template, text in (("guanaco", guanaco), ("chatml", chatml)):
        path = tmp_path / template
        names["convert"]([text, text], path, template)
        assert [json.loads(line) for line in path.read_text().splitlines()] == [{"messages": turns}] * 2


def test_minigpt_takes_as_many_steps_as_the_founding_run() -> None:
    train = job_of("minigpt-sft").train
    schedule = make_schedule(1_210_000, train)
    assert (schedule.total, schedule.left_out) == (2363, 144)


def test_rasbt_s_adapters_have_upstream_s_size() -> None:
    sizes = Model(
        model_type="gpt2",
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        max_position_embeddings=1024,
    )
    with torch.device("meta"):
        model = Decoder(new_architecture(sizes, vocab_size=50_257))
    assert sum(parameter.numel() for parameter in model.parameters()) == 354_823_168
    job = job_of("rasbt-lora")
    assert job.model.untie_head
    untie(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 406_286_336
    adapt(model, job.lora, seed=0)
    assert sum(tensor.numel() for _, tensor in adapter_tensors(model).values()) == 7_898_384


@pytest.mark.parametrize(
    ("name", "vocab_size", "n_parameters"), [("minigpt-sft", 32_000, 110_025_216), ("minimind-sft", 6_400, 63_912_192)]
)
def test_a_new_model_has_the_reference_s_size(name: str, vocab_size: int, n_parameters: int) -> None:
    with torch.device("meta"):
        model = Decoder(new_architecture(job_of(name).model, vocab_size=vocab_size))
    assert sum(parameter.numel() for parameter in model.parameters()) == n_parameters


def test_rasbt_takes_its_116_steps() -> None:
    schedule = make_schedule(935, job_of("rasbt-baseline").train)
    assert (schedule.per_epoch, schedule.total, schedule.left_out) == (116, 232, 7)


def test_minimind_s_learning_rate_is_its_own_formula() -> None:
    train = job_of("minimind-sft").train
    for step in range(100):
        upstream = 1e-5 * (0.1 + 0.45 * (1 + math.cos(math.pi * step / 100)))
        assert learning_rate(step, n_steps=100, train=train) == pytest.approx(upstream, rel=1e-12)


def test_the_constant_schedule_of_tinyllama_is_warmed_up() -> None:
    rates = [learning_rate(step, n_steps=100, train=job_of("tinyllama-v0.1").train) for step in range(100)]
    assert rates[:6] == pytest.approx([2e-6, 4e-6, 6e-6, 8e-6, 1e-5, 1e-5])
    assert set(rates[5:]) == {1e-5}


@pytest.mark.parametrize("name", ["minigpt-sft", "minigpt-lora", "minimind-sft"])
def test_curation_keeps_conversations_below_512_characters(name: str) -> None:
    def row(n: int) -> dict[str, Any]:
        said = (("user", "问" * 10), ("assistant", "答" * (n - 10)))
        return {"messages": [{"role": role, "content": text, "tool_calls": None} for role, text in said]}

    length = load_config(PRESETS / f"{name}.toml").sections["length"]
    marked = mark_length(pl.DataFrame([row(n) for n in (14, 15, 511, 512)]), length)
    assert marked["drop_reason"].to_list() == ["too_short", None, None, "too_long"]


def test_minimind_s_recipe_keeps_what_upstream_kept_and_says_why_the_rest_goes(tmp_path: Path) -> None:
    """The founding rules, each at its border: 512 characters, 10 and 5, half Chinese; empty is none."""

    def record(question: str, answer: str) -> dict[str, str]:
        return {"instruction": question, "input": "", "output": answer}

    zh = "问答天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏"
    kept = [
        record(zh[:10], zh[-5:]),
        record(zh[5:15], "答" + zh[1:8] * 71 + "。" * 3),  # 10 and 501
        record(zh[3:12] + "abcdefgh", zh[9:20]),  # 9 of 17
    ]
    dropped = [
        (record(zh[:9], zh), "message_too_short"),
        (record(zh[2:22], zh[:4]), "message_too_short"),
        (record(zh[5:15], zh[1:8] * 71 + "。" * 5), "too_long"),  # 512 in all
        (record(zh[:6] + "abcdef", zh), "script_share"),  # exactly half
        (record(zh, "All of this is English."), "script_share"),
        (record(zh, zh[:14] + "，。！？；：、…—·《》【"), "too_many_symbols"),  # 13 of 27,
        (record(zh, zh + "啊" * 21), "long_run"),
        (record(zh, (zh[:7] + "\n") * 3 + zh[7:14]), None),  # 2 of 4 lines: half is allowed
        (record(zh, (zh[:7] + "\n") * 3), "repeated_lines"),
        (record(zh, zh + "\ufffd"), "pattern"),
    ]
    rows = [*kept, *(row for row, _ in dropped)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    config = load_config(
        PRESETS / f"{DATA}.toml",
        assignments=[f"tokenize.tokenizer={TOKENIZER}"],
        inputs=[str(data)],
        run=str(tmp_path / "run"),
    )
    build(config, until="length")
    found = dict.fromkeys(range(1, len(rows) + 1))
    for path in (tmp_path / "run" / "length" / "dropped").glob("*.arrow"):
        found |= dict(pl.read_ipc(path).select("line", "drop_reason").rows())
    assert list(found.values()) == [None] * len(kept) + [reason for _, reason in dropped]


def test_minimind_s_recipe_makes_what_its_fine_tuning_reads() -> None:
    recipe, training = (load_config(PRESETS / f"{name}.toml").sections for name in (DATA, "minimind-sft"))
    assert [recipe[name] == training[name] for name in ("dedup", "render", "tokenize", "mask", "pack")] == [True] * 5
    opening = (PRESETS / f"{DATA}.toml").read_text()
    assert f"chatloom train configs/presets/minimind-sft.toml --run runs/{DATA}" in opening


def records(name: str) -> list[dict[str, Any]]:
    """Return a few records in the shape that the preset's data have; the first is the one whose labels are looked at."""
    rng = random.Random(0)
    words = ("river", "cloud", "engine", "violin", "garden", "planet", "teacher", "market", "winter", "letter")

    def sentence() -> str:
        return " ".join(rng.choice(words) for _ in range(7)).capitalize() + "."

    if name.startswith("rasbt"):
        first = {"instruction": "Name the colour.", "input": "Snow", "output": "White."}
        return [first] + [{"instruction": sentence(), "input": "", "output": sentence()} for _ in range(15)]
    texts = [DIALOGUE, *([sentence() for _ in range(4)] for _ in range(15))]
    turns = [
        [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, four, strict=True)]
        for four in texts
    ]
    if name.startswith("minimind"):
        turns.append([{"role": "user", "content": "What is two and two?"}, THOUGHT])
    return [{"conversations": messages} for messages in turns]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a directory with a tiny random model of each family that presets start from."""
    home = tmp_path_factory.mktemp("models")
    size = vocabulary_size(Tokenizer.from_file(str(TOKENIZER / "tokenizer.json")))
    for family in ("llama", "gpt2", "qwen3"):
        model = Decoder(new_architecture(Model(**TINY, model_type=family), vocab_size=size))
        initialise(model, seed=0)
        ids = GenerationConfig(bos_token_id=None, pad_token_id=None, eos_token_id=[0])
        export(home / family, model, assets={}, generation=ids, dtype="float32")
    return {path.name: path for path in home.iterdir()}


def stand_in(name: str, models: dict[str, Path]) -> list[str]:
    """Return what is changed so that a preset runs here: paths and sizes, nothing else."""
    changes = [f"tokenize.tokenizer={TOKENIZER}", "generation.max_new_tokens=4", "train.dtype=float32"]
    document = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    changes += [f"dedup.{split}=2" for split in ("validation", "test") if split in document["dedup"]]
    if document["train"].get("drop_last"):
        changes.append("train.batch=3")  # a full step must be possible
    if "path" in document["model"]:
        return [*changes, f"model.path={models[FAMILIES.get(name.partition('-')[0], 'llama')]}"]
    narrow = {"num_key_value_heads": 2} if "num_key_value_heads" in document["model"] else {}
    return [*changes, *(f"model.{key}={value}" for key, value in (TINY | narrow).items())]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_builds_trains_what_its_mask_says_and_exports(
    name: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # templates of the presets' own lie in the project
    torch.set_num_threads(1)
    data, run, changes = tmp_path / "data.json", tmp_path / "run", stand_in(name, models)
    data.write_text(json.dumps(records(name)))
    built = build(load_config(PRESETS / f"{name}.toml", assignments=changes, inputs=[str(data)], run=str(run)))
    assert built.manifests["pack"].totals.kept == len(records(name))
    rows = packs_of(run)
    assert rows["ids"].list.len().unique().to_list() == [1]
    tokenizer = Tokenizer.from_file(str(run / "tokenizer" / "tokenizer.json"))
    assert trained_text(rows, f"{data}:1", tokenizer) == TRAINED[name]
    if name.startswith("minimind"):
        assert trained_text(rows, f"{data}:17", tokenizer) == "Two and two.\n</think>\n\nFour.<|im_end|>"

    job = job_of(name, *changes, run=run)
    n_train = (rows["split"] == "train").sum()
    assert job.train.epochs is not None
    steps = job.train.epochs * steps_per_epoch(n_train, job.train.batch, drop_last=job.train.drop_last)
    said = preview(job, ALONE)
    assert re.search(rf"global.batch[ =]+{job.train.batch}\b", said)
    assert re.search(rf"steps[ =]+{steps}\b", said)

    # every pack in each of three steps, so that their losses are of the same tokens
    small = (
        "train.epochs=3",
        "train.batch=64",
        "train.drop_last=false",
        "train.micro_batch=8",
        "train.log_every=1",
        "train.n_samples=1",
    )
    job = job_of(name, *changes, *small, "train.export_unless_stopping=true", run=run)
    assert fit(job, ALONE, Reporter(is_silent=True), Stop(), fresh=False)
    lines = [json.loads(line) for line in (job.home / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["step"]]
    validation = [line["val_loss"] for line in (lines[0], lines[-1])]
    assert len(losses) == 3
    assert all(math.isfinite(loss) and loss < 12 for loss in (*losses, *validation))
    assert validation[1] <= validation[0]
    assert job.train.dropout or losses == sorted(losses, reverse=True)
    assert (job.home / "export" / "chat_template.jinja").is_file()
    assert (job.home / "adapter").is_dir() == (job.lora.rank > 0)
    if job.lora.rank:
        learnt = load_file(max((job.home / "checkpoints").iterdir()) / "model.safetensors")
        assert all(".lora_" in tensor for tensor in learnt)


def packs_of(run: Path) -> pl.DataFrame:
    return pl.concat([pl.read_ipc(path) for path in sorted((run / "pack" / "kept").glob("*/*.arrow"))])


def trained_text(rows: pl.DataFrame, row_id: str, tokenizer: Tokenizer) -> str:
    (labels,) = rows.filter(pl.col("ids").list.contains(row_id))["labels"].to_list()
    text: str = tokenizer.decode([label for label in labels if label != -100], skip_special_tokens=False)
    return text


def test_rasbt_s_1100_rows_are_split_as_upstream_splits_them(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [{"instruction": f"Say {rng.random()} and {rng.random()}", "output": str(i % 7)} for i in range(1100)]
    data = tmp_path / "data.json"
    data.write_text(json.dumps(rows))
    run = tmp_path / "run"
    build(load_config(PRESETS / "rasbt-baseline.toml", inputs=[str(data)], run=str(run)), until="dedup")
    kept = pl.concat([pl.read_ipc(path) for path in (run / "dedup" / "kept").glob("*.arrow")])
    assert dict(kept["split"].value_counts().iter_rows()) == {"train": 935, "test": 110, "validation": 55}


def tokenizer_of(model: str) -> Path | None:
    """Return the directory of a tokenizer that lies below the one that CHATLOOM_TOKENIZERS names."""
    home = os.environ.get("CHATLOOM_TOKENIZERS")
    found = sorted(Path(home).rglob("tokenizer.json")) if home else []
    return next((path.parent for path in found if model in str(path)), None)


def needs(model: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        tokenizer_of(model) is None, reason=f"CHATLOOM_TOKENIZERS names no directory with a {model}"
    )


INSTRUCTIONS = ROOT.parent / "shared" / "data" / "formats" / "instruction-data.json"


def build_with(model: str, name: str, data: Path, run: Path, *changes: str) -> pl.DataFrame:
    changes = (f"tokenize.tokenizer={tokenizer_of(model)}", *changes)
    build(load_config(PRESETS / f"{name}.toml", assignments=changes, inputs=[str(data)], run=str(run)))
    return packs_of(run)


@needs("llama2")
def test_tinyllama_s_ids_are_upstream_s_where_nothing_is_cut(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    said = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A small model, 你好."}]
    data.write_text(json.dumps([{"messages": said}]))
    rows = build_with("llama2", "tinyllama-v0.1", data, tmp_path / "run", "dedup.validation=0")
    tokenizer = Tokenizer.from_file(str(tmp_path / "run" / "tokenizer" / "tokenizer.json"))
    ids, labels = rows.select("input_ids", "labels").row(0)
    target = "### Human: Who are you?### Assistant: A small model, 你好.</s>"
    assert ids == [tokenizer.token_to_id("<s>"), *tokenizer.encode(target, add_special_tokens=False).ids]
    assert labels == [-100, *ids[1:]]


@needs("gpt2")
def test_rasbt_s_row_43_has_upstream_s_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    row = {
        "instruction": "Sort the following list in alphabetical order.",
        "input": "Zebra, Elephant, Crocodile",
        "output": "Crocodile, Elephant, Zebra",
    }
    data = tmp_path / "data.json"
    data.write_text(json.dumps([row] + [row | {"input": f"Row {i}"} for i in range(400)]))
    rows = build_with("gpt2", "rasbt-mask", data, tmp_path / "run")
    (labels,) = rows.filter(pl.col("ids").list.contains(f"{data}:1"))["labels"].to_list()
    header, reply = [198, 198, 21017, 18261, 25, 198], [34, 12204, 375, 576, 11, 42651, 11, 1168, 37052, 50256]
    # upstream's targets are shifted by one: 46 x -100
    assert labels == [-100] * 47 + header + reply


@needs("gpt2")
@pytest.mark.realmix
@pytest.mark.skipif(not INSTRUCTIONS.exists(), reason=f"no {INSTRUCTIONS.name} beside the project")
@pytest.mark.parametrize(("name", "n_tokens"), [("rasbt-baseline", 62_025), ("rasbt-phi3", 42_800)])
def test_rasbt_s_1100_rows_have_upstream_s_tokens(
    name: str, n_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    rows = build_with("gpt2", name, INSTRUCTIONS, tmp_path / "run")
    # upstream counts before it appends <|endoftext|>
    assert rows["input_ids"].list.len().sum() - 1100 == n_tokens
    assert dict(rows["split"].value_counts().iter_rows()) == {"train": 935, "test": 110, "validation": 55}
