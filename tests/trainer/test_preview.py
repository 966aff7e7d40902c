"""What a dry run foresees, against what then happens."""

import functools
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from schemas.manifest import Manifest
from schemas.models import Lora, Model
from schemas.training import Train
from trainer.data.packs import Packs
from trainer.entry import main
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder, initialise
from trainer.model.lora import adapt
from trainer.plan import make_schedule
from trainer.report.estimate import time_row
from trainer.report.memory import Shape, trace
from trainer.report.preview import last_line
from trainer.step import Precision
from trainer.trainable import select
from trainer.world import World

CPU = torch.device("cpu")


def test_the_last_line_is_for_programs() -> None:
    """1,210,000 packs at 512 a step are 2,363 full steps, and 144 packs more."""
    assert (
        last_line(make_schedule(1_210_000, Train(batch=512, epochs=1, drop_last=True)))
        == "global_batch=512, steps=2363"
    )
    assert last_line(make_schedule(1_210_000, Train(batch=512, epochs=1))) == "global_batch=512, steps=2364"


def make(*, is_checkpointing: bool, lora: Lora, **sizes: Any) -> Decoder:
    given: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = Decoder(new_architecture(Model(**given | sizes), vocab_size=1500))
    adapt(model, lora, seed=0)
    select(model, None)
    model.gradient_checkpointing = is_checkpointing
    return model


def allocated(model: Decoder, shape: Shape, lengths: tuple[int, ...]) -> int:
    """Return the peak of what torch's allocator gives out in a real forward and backward pass."""
    rows = torch.arange(shape.n_rows)
    batch = Batch(
        input_ids_T=torch.arange(shape.n_tokens),
        positions_T=torch.cat([torch.arange(n) for n in lengths]),
        lengths=lengths,
        rows_S=rows,
        targets_S=rows,
        weights_S=torch.ones(shape.n_rows),
    )
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(1 + shape.has_gradients):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=shape.is_bfloat16):
                objective = model(batch).objective
            torch.autograd.backward(objective * 0.5)
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum(changes).max())


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, {}),
        ({"tie_word_embeddings": False}, {"has_gradients": True}),
        ({"is_checkpointing": True}, {}),
        ({"lora": Lora(rank=4)}, {}),
        ({}, {"is_bfloat16": True}),
        ({"model_type": "gpt2"}, {}),
    ],
    ids=["plain", "second micro-batch", "checkpointing", "lora", "bfloat16", "gpt2"],
)
def test_the_peak_of_a_step_is_the_one_that_was_traced(sizes: dict[str, Any], shape: dict[str, Any]) -> None:
    lengths = (300, 250, 200, 50)
    whole = Shape(n_tokens=800, n_rows=350, **{"is_bfloat16": False, "has_gradients": False} | shape)
    build = functools.partial(make, **{"is_checkpointing": False, "lora": Lora()} | sizes)
    foreseen = trace(build, whole)
    model = build()
    initialise(model, seed=0)
    assert foreseen.weights == sum(parameter.nbytes for parameter in model.parameters())
    assert foreseen.optimizer == 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert foreseen.passing == pytest.approx(allocated(model, whole, lengths), rel=0.03)


def test_a_shared_out_optimizer_takes_its_share() -> None:
    shape = Shape(n_tokens=16, n_rows=4, is_bfloat16=False, has_gradients=True)
    build = functools.partial(make, is_checkpointing=False, lora=Lora())
    assert 4 * trace(build, shape, ranks_of_optimizer=4).optimizer == trace(build, shape).optimizer


class OnePack(Packs):
    """What `time_row` asks of packs."""

    def __init__(self) -> None:
        self.n_tokens, self.n_supervised = np.array([1000]), np.array([500])
        self.sum_squares, self.longest_of, self.longest = np.array([500_000]), np.array([500]), 500

    def __len__(self) -> int:
        return 1


def test_the_time_is_work_over_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.report.meter.peak", lambda *_: (1e9, "a table"))
    with torch.device("meta"):
        model = make(is_checkpointing=False, lora=Lora())
    blocks = sum(p.numel() for name, p in model.named_parameters() if name.startswith("layers.") and p.dim() == 2)
    end = sum(
        p.numel()
        for name, p in model.named_parameters()
        if name.startswith("layers.2.") and p.dim() == 2 and "qkv" not in name
    )
    on_tokens, on_trained_rows = 6 * (blocks - end) * 1000, 6 * (end + 64 * 1500) * 500
    work = 10 * (on_tokens + on_trained_rows + 12 * 64 * 3 * (500_000 + 1000) / 2)
    world = World(rank=0, size=2, local_rank=0, local_size=2, device=CPU)
    schedule = make_schedule(1, Train(batch=1, steps=10))
    said = time_row(model, OnePack(), schedule, Precision(device=CPU, dtype=torch.float32), world)
    assert said.startswith(f"about {round(work / (2e9 * 0.7))}s (estimate), ")
    assert f"{work:.3g} operations at 70% of 0.001 TFLOP/s (a table) × 2" in said


def test_a_dry_run_names_what_learns_and_ends_with_the_line_for_programs(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--set", "lora.rank=2", "--set", "lora.targets=['q_proj']", "--set", "train.gradient_checkpointing=true"]
    assert main([str(run / "config.toml"), "--dry-run", *words]) == 0
    out = capsys.readouterr().out
    rows = {line[:17].strip(): line[18:] for line in out.splitlines()}
    # 2 layers, 2 rows of A and 2 columns of B for 32 inputs and 32 outputs
    assert rows["what learns"].startswith("256 of 40,864 parameters learn (0.63%)")
    assert "; without gradient_checkpointing about " in rows["memory"]
    assert re.search(r"\(estimate\), beside the [0-9.]+ [MG]B of the program itself: weights ", rows["memory"])
    assert "(estimate)" in rows["time"]
    assert out.splitlines()[-1] == "global_batch=5, steps=40"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], r"domain:code 300 ({0:.1%}), lang:en 200 ({1:.1%}), a\nb 10 ({2:.1%})"),
        (["--set", "train.eval_tag=lang"], "lang:en 200 ({1:.1%})"),
        (["--set", "train.eval_tag=none_such"], None),
    ],
)
def test_a_dry_run_says_what_is_trained_under_each_tag(
    words: list[str], said: str | None, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "pack" / "manifest.json"
    manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    trained = {"domain:code": 300, "lang:en": 200, "a\nb": 10}
    counts = {f"tagged/train/trained/{tag}": n for tag, n in trained.items()}
    counts |= {"tagged/validation/trained/domain:law": 9, "tagged/train/tokens/domain:code": 999}
    totals = msgspec.structs.replace(manifest.totals, counts=counts)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, totals=totals)))
    assert main([str(run / "config.toml"), "--dry-run", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:17].strip(): line[18:] for line in lines}
    found = re.search(r"([\d,]+) trained", rows["training packs"])
    assert found is not None
    n = int(found[1].replace(",", ""))
    assert rows.get("trained by tag") == (said and said.format(300 / n, 200 / n, 10 / n))
