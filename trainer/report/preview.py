"""What a run would do, before it does it."""

from pathlib import Path
from typing import Any

import torch

from trainer.checkpoint import check_plan, newest_whole, read_state, step_of
from trainer.data.assets import other_tokenizer, vocabulary_size
from trainer.data.inputs import Inputs, open_inputs
from trainer.data.packs import Packs, read_manifest
from trainer.errors import PlanMismatch
from trainer.evaluation import tags_of_kind
from trainer.held_out import check_prompts
from trainer.job import Job
from trainer.model.architecture import read_architecture
from trainer.model.decoder import Decoder
from trainer.model.lora import adapt
from trainer.optim import warmup_steps
from trainer.plan import FROZEN, Schedule, identity, make_schedule
from trainer.report.estimate import memory_row, time_row
from trainer.report.summary import MOST_TAGS, line_of
from trainer.start import architecture_of
from trainer.step import Precision, choose_precision
from trainer.trainable import select
from trainer.world import World


def preview(job: Job, world: World) -> str:
    """Return lines that say what `job` would train, on what, and for how long. Nothing is written."""
    inputs = open_inputs(job.data, world)
    precision = choose_precision(job.train, world)
    return world.together(lambda: _describe(job, world, inputs, precision))


def _describe(job: Job, world: World, inputs: Inputs, precision: Precision) -> str:
    vocab_size = vocabulary_size(inputs.tokenizer)
    architecture = architecture_of(job, vocab_size=vocab_size)
    with torch.device("meta"):
        model = Decoder(architecture)
        check_prompts(job, inputs, model)
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        adapt(model, job.lora, seed=job.seed)
        learning = select(model, job.train.trainable)
    schedule, train, packs = make_schedule(len(inputs.packs), job.train), job.train, inputs.packs
    per_epoch, trained = int(packs.n_tokens.sum()), int(packs.n_supervised.sum())
    per_run = per_epoch * schedule.epochs * (1 - schedule.left_out / len(packs))
    plan = identity(job, schedule, inputs.files, architecture, precision.name)
    rows = {
        "run": str(job.data),
        "model": f"{architecture.model_type}, {n_parameters:,} parameters, vocabulary {architecture.vocab_size:,}",
        "what learns": "\n".join(learning.lines()).replace("\n", f"\n{'':<18}"),
        "training packs": f"{len(packs):,} ({per_epoch:,} tokens, {trained:,} trained)",
        "validation packs": f"{len(inputs.validation):,} ({int(inputs.validation.n_tokens.sum()):,} tokens)",
        "global batch": _global_batch(packs, train.batch),
        "steps per epoch": f"{schedule.per_epoch:,}" + _left_out(schedule),
        "total steps": f"{schedule.total:,} ({schedule.epochs:.2f} epochs, {warmup_steps(schedule.total, train)} warm-up)",
        "total tokens": f"about {round(per_run):,}",
        "learning rate": f"{train.lr:g}, {train.schedule}",
        "arithmetic": f"{precision.name} on {world.size} × {world.device.type}",
        "checkpoint": _checkpoint(job, schedule.total, plan),
    }
    if tagged := _trained_by_tag(job, trained):
        rows["trained by tag"] = tagged
    if world.is_first:  # the only one that speaks
        rows["memory"] = memory_row(job, architecture, packs, precision, world)
        rows["time"] = time_row(model, packs, schedule, precision, world)
    lines = [f"{name:<17} {value}" for name, value in rows.items()]
    return "\n".join([*lines, *_about_vocabulary(job, inputs, vocab_size), last_line(schedule)])


def _global_batch(packs: Packs, batch: int) -> str:
    share = min(batch, len(packs)) / len(packs)
    conversations = float(packs.n_trained.sum()) * share
    return (
        f"{batch:,} packs, about {round(float(packs.n_tokens.sum()) * share):,} tokens and "
        f"{conversations:,.0f} conversations that train something"
    )


def _trained_by_tag(job: Job, trained: int) -> str:
    """Return how many trained tokens of the training packs have which tag, the most first; a conversation may have several."""
    start = "tagged/train/trained/"
    counts = read_manifest(job.data).totals.counts
    found = {name.removeprefix(start): n for name, n in counts.items() if name.startswith(start)}
    kind = job.train.eval_tag
    if kind is not None:
        found = {tag: n for tag, n in found.items() if tags_of_kind([tag], kind) == [tag]}
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{line_of(tag)} {n:,} ({n / max(trained, 1):.1%})" for tag, n in ranked[:MOST_TAGS]]
    return ", ".join(said) + (f", and {len(ranked) - MOST_TAGS:,} more" if len(ranked) > MOST_TAGS else "")


def _left_out(schedule: Schedule) -> str:
    return f" (drop_last leaves {schedule.left_out:,} packs out of each)" if schedule.left_out else ""


def last_line(schedule: Schedule) -> str:
    """Return what programs read of a dry run; the batch is in packs."""
    return f"global_batch={schedule.batch}, steps={schedule.total}"


def _checkpoint(job: Job, total: int, plan: dict[str, Any]) -> str:
    """Return what training would do with the checkpoints that lie there."""
    path, problems = newest_whole(job.home / "checkpoints")
    if path is None:
        return f"none of {len(problems)} is whole: would be refused; --fresh starts over" if problems else "none"
    try:
        # weights are not read for a look
        check_plan(path, {name: value for name, value in read_state(path).plan.items() if name != FROZEN}, plan)
    except PlanMismatch as error:
        return f"{path.name}: would be refused: {error}"
    if step_of(path) >= total:
        return f"{path.name} of {total}: already finished"
    return f"{path.name}: training would continue after step {step_of(path)} of {total}"


def _about_vocabulary(job: Job, inputs: Inputs, vocab_size: int) -> list[str]:
    if job.model.path is None:
        return []
    directory = Path(job.model.path)
    found = read_architecture(directory).vocab_size
    lines = [f"{'embedding':<17} would be grown from {found:,} to {vocab_size:,} rows"] if vocab_size > found else []
    warning = other_tokenizer(directory, inputs.tokenizer, inputs.added_tokens)
    return [*lines, warning] if warning else lines
