"""Looking back: which conversations a step had, and which steps a conversation."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from schemas.manifest import FileRecord
from schemas.models import Lora, Model
from schemas.settings import ConfigError
from schemas.training import Train
from trainer.checkpoint import State, save
from trainer.course import Course, open_packs, read_plan, write_plan
from trainer.data.assets import vocabulary_size
from trainer.data.inputs import Inputs, open_inputs
from trainer.data.stream import Cursor, order
from trainer.errors import DataError
from trainer.explain import main
from trainer.hindsight import Step, look_at_step, look_for, with_losses
from trainer.job import Job
from trainer.model.lora import adapt, is_adapter
from trainer.optim import make_adamw
from trainer.plan import make_schedule
from trainer.start import build_model
from trainer.trainable import select
from trainer.world import World

ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))
SMALL = Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, initializer_range=0.3)


def planned(run: Path, train: Train, model: Model = SMALL, **others: object) -> tuple[Job, Inputs, Course]:
    """Write the plan of a training of `run`, and return what it was made from and what is read again."""
    job = Job(run=run, seed=7, model=model, train=train, resume="", **others)  # type: ignore[arg-type]
    inputs = open_inputs(job.data, ALONE)
    job.home.mkdir(parents=True)
    schedule = make_schedule(len(inputs.packs), train)
    path = write_plan(job, schedule, inputs.files["train"], hidden_size=16, dtype="float32")
    assert path == job.home / "plan.json"
    return job, inputs, read_plan(run, job.phase)


def test_the_steps_of_an_epoch_are_its_packs_in_the_order_of_training(run: Path) -> None:
    _, inputs, course = planned(run, Train(batch=5, epochs=2))
    packs = inputs.packs
    assert course.n_steps == 10  # 23 packs: five steps an epoch, the last of three
    for epoch in (0, 1):
        seen: list[int] = []
        for at in range(5):
            step = look_at_step(run, course, epoch * 5 + at + 1)
            assert (step.epoch, step.step_of_epoch) == (epoch, at + 1)
            seen += [pack.pack for pack in step.packs]
            for pack in step.packs:
                assert [one.id for one in pack.conversations] == packs.ids([pack.pack])
                assert [one.tokens for one in pack.conversations] == packs.document_lengths(pack.pack).tolist()
                assert pack.trained == packs.n_supervised[pack.pack] == sum(one.trained for one in pack.conversations)
                assert pack.tokens == packs.n_tokens[pack.pack]
        assert seen == order(23, seed=7, epoch=epoch).tolist()


def test_a_pack_that_an_epoch_leaves_out_has_no_step_in_it(run: Path) -> None:
    _, inputs, course = planned(run, Train(batch=5, epochs=3, drop_last=True))
    assert course.n_steps == 12  # 23 packs: four steps an epoch, three packs left out
    trained = {step: course.packs_of(inputs.packs, step) for step in range(1, 13)}
    assert sum(map(len, trained.values())) == 60
    for pack in range(23):
        assert course.steps_of(inputs.packs, pack) == [step for step, packs in trained.items() if pack in packs]


def test_a_conversation_stands_where_the_step_says(run: Path) -> None:
    _, inputs, course = planned(run, Train(batch=5))
    step = look_at_step(run, course, 2)
    shards = {file.path: i for i, file in enumerate(inputs.files["train"])}
    for pack in step.packs:
        # 11 packs in the first shard
        assert pack.pack == 11 * shards[pack.shard] + pack.row
        ids, labels = inputs.packs.tokens(pack.pack)
        for one in pack.conversations:
            own = slice(one.position, one.position + one.tokens)
            assert len(ids[own]) == one.tokens
            assert np.count_nonzero(labels[own] != -100) == one.trained == one.weight
            (found,) = look_for(run, course, one.id)
            assert (found.pack, found.row, found.position, found.steps) == (pack.pack, pack.row, one.position, [2])


def test_a_conversation_is_found_in_each_epoch_that_gets_so_far(run: Path) -> None:
    _, inputs, course = planned(run, Train(batch=5, steps=7))
    for pack in (0, 22):
        (found,) = look_for(run, course, inputs.packs.ids([pack])[0])
        steps = [e * 5 + order(23, seed=7, epoch=e).tolist().index(pack) // 5 + 1 for e in (0, 1)]
        assert found.steps == [step for step in steps if step <= 7]


def test_a_step_of_two_ranks_is_dealt_as_in_training(run: Path) -> None:
    _, _, course = planned(run, Train(batch=5))
    alone, shared = look_at_step(run, course, 1, ranks=1), look_at_step(run, course, 1, ranks=2)
    assert {pack.rank for pack in alone.packs} == {0}
    assert {pack.rank for pack in shared.packs} == {0, 1}
    assert [pack.pack for pack in alone.packs] == [pack.pack for pack in shared.packs]
    assert {pack.rank for pack in look_at_step(run, course, 1).packs} == {None}


def test_an_order_other_than_random_is_followed(run: Path) -> None:
    _, inputs, course = planned(run, Train(batch=5, order="short_first"))
    assert [pack.pack for pack in look_at_step(run, course, 1).packs] == np.argsort(
        inputs.packs.longest_of, kind="stable"
    )[:5].tolist()


def test_parts_of_a_conversation_that_was_cut_are_found_together(
    tmp_path: Path, run: Path, write_shard: Callable[..., FileRecord]
) -> None:
    _, inputs, _ = planned(run, Train(batch=5))
    rows = []
    for ids in (["a:1", "a:12"], ["a:1#2", "a:1#1"]):
        row = {"ids": ids, "split": "train", "input_ids": [1, 2, 3, 4], "labels": [-100, 2, -100, 4]}
        rows.append(row | {"seq_lengths": [2, 2], "loss_weights": None, "n_supervised": 2, "weight_sum": 2.0})
    file = write_shard(run / "pack", "kept/train/00009.arrow", rows)
    manifest = json.loads((run / "pack/manifest.json").read_bytes())
    manifest["shards"][0]["files"] = [msgspec.to_builtins(file)]
    (run / "pack/manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(run / "train")
    _, _, course = planned(run, Train(batch=1))
    found = look_for(run, course, "a:1")
    assert [(one.id, one.pack, one.position) for one in found] == [("a:1", 0, 0), ("a:1#2", 1, 0), ("a:1#1", 1, 2)]
    assert [one.id for one in look_for(run, course, "a:12")] == ["a:12"]
    del inputs


def test_losses_are_those_of_the_weights_that_there_are(run: Path) -> None:
    job, inputs, course = planned(run, Train(batch=2))
    step = with_losses(run, course, None, look_at_step(run, course, 3), ALONE)
    assert step.weights == "the start: there is no checkpoint yet"
    model, _ = build_model(job, vocab_size=vocabulary_size(inputs.tokenizer), added_tokens={})
    for pack in step.packs:
        ids, labels = (torch.tensor(part).long() for part in inputs.packs.tokens(pack.pack))
        for one in pack.conversations:
            own = slice(one.position, one.position + one.tokens)
            chances = model.logits(ids[own], (one.tokens,)).log_softmax(1)
            wanted = labels[own][1:]
            losses = [-float(chances[i, target].detach()) for i, target in enumerate(wanted) if target != -100]
            assert one.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_newest_checkpoint_is_asked_once_there_is_one(run: Path) -> None:
    job, inputs, course = planned(run, Train(batch=2))
    before = with_losses(run, course, None, look_at_step(run, course, 3), ALONE)
    model, _ = build_model(job, vocab_size=vocabulary_size(inputs.tokenizer), added_tokens={})
    with torch.no_grad():
        model.embed_tokens.weight.zero_()  # every token is as likely as any other
    state = State(cursor=Cursor(step=4), n_steps=4, plan={})
    save(job.home / "checkpoints", state, model, make_adamw(model, job.train), keep=1)
    step = with_losses(run, course, None, look_at_step(run, course, 3), ALONE)
    assert step.weights == str(job.home / "checkpoints" / "step-00000004")
    uniform = np.log(model.architecture.vocab_size)
    assert all(one.loss == pytest.approx(uniform) for pack in step.packs for one in pack.conversations)
    assert all(one.loss != pytest.approx(uniform) for pack in before.packs for one in pack.conversations)


def test_adapters_of_a_checkpoint_are_put_beside_the_weights_of_the_start(run: Path) -> None:
    job, inputs, course = planned(run, Train(batch=2), lora=Lora(rank=2))
    before = with_losses(run, course, None, look_at_step(run, course, 3), ALONE)
    model, _ = build_model(job, vocab_size=vocabulary_size(inputs.tokenizer), added_tokens={})
    adapt(model, job.lora, seed=job.seed)
    select(model, None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.fill_(0.5)
    state = State(cursor=Cursor(step=4), n_steps=4, plan={})
    save(job.home / "checkpoints", state, model, make_adamw(model, job.train), keep=1)
    step = with_losses(run, course, None, look_at_step(run, course, 3), ALONE)
    total = sum(one.loss * one.weight for pack in step.packs for one in pack.conversations if one.loss)
    batch = inputs.packs.read([pack.pack for pack in step.packs], vocab_size=model.architecture.vocab_size)
    assert total == pytest.approx(float(model(batch).cross_entropy), rel=1e-5)
    start = sum(one.loss * one.weight for pack in before.packs for one in pack.conversations if one.loss)
    assert abs(total / start - 1) > 1e-3


def test_a_model_is_found_again_from_another_directory(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    _, _, course = planned(run, Train(), Model(path=f"{run.name}/model"))
    assert course.model.path == str(run / "model")


def test_packs_that_have_changed_are_refused(run: Path, write_shard: Callable[..., FileRecord]) -> None:
    _, _, course = planned(run, Train(batch=5))
    manifest = json.loads((run / "pack/manifest.json").read_bytes())
    manifest["shards"][0]["files"][1]["sha256"] = "0" * 64
    (run / "pack/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        DataError, match=r"have changed since they were trained.* other bytes in kept/train/00001\.arrow"
    ):
        look_at_step(run, course, 1)
    del manifest["shards"][0]["files"][1]
    (run / "pack/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"gone kept/train/00001\.arrow"):
        open_packs(run, course)


def test_a_phase_has_steps_of_its_own(run: Path) -> None:
    planned(run, Train(batch=5), phase="easy")
    with pytest.raises(ConfigError, match="this training has phases; add --phase with one of easy"):
        read_plan(run, None)
    with pytest.raises(ConfigError, match="--phase hard: expected one of easy"):
        read_plan(run, "hard")
    assert main([str(run), "--phase", "easy", "--step", "1"]) == 0


def test_what_people_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, course = planned(run, Train(batch=5, steps=7, clip=float("inf")))
    assert main([str(run), "--step", "6", "--ranks", "2", "--loss"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 6 of 7: epoch 1, step 1 of it"
    assert lines[1].startswith("5 packs, ")
    assert lines[2] == "losses by the weights of the start: there is no checkpoint yet"
    first = look_at_step(run, course, 6, ranks=2).packs[0]
    assert lines[4] == (
        f"pack {first.pack} ({first.shard}, row {first.row}, rank {first.rank}): {first.tokens} tokens, "
        f"{first.trained} trained"
    )
    assert first.conversations[0].id in lines[5]
    assert " loss " in lines[5]
    assert main([str(run), "--id", first.conversations[0].id]) == 0
    assert "steps that take it: " in capsys.readouterr().out
    assert main([str(run), "--step", "6", "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Step) == look_at_step(run, course, 6)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--step", "6"], 2, "--step 6: this training has steps 1 to 5"),
        (["--step", "0"], 2, "--step 0: this training has steps 1 to 5"),
        (["--id", "train.jsonl:9999"], 2, "no training pack of .* has it"),
        (["--id", "validation.jsonl:1"], 2, "It may be in another split"),
    ],
)
def test_what_there_is_not(
    arguments: list[str], code: int, said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(run, Train(batch=5))
    assert main([str(run), *arguments]) == code
    assert re.search(said, capsys.readouterr().err)


def test_a_run_that_was_not_trained_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--step", "1"]) == 2
    assert "plan.json: not found, so nothing was trained here yet" in capsys.readouterr().err
