"""What a run would do, before it does it."""

from pathlib import Path

import torch
from msgspec.structs import replace

from trainer.architecture import Architecture, new_architecture, read_architecture
from trainer.inputs import open_inputs, vocabulary_size
from trainer.job import Job
from trainer.model import Decoder
from trainer.optim import warmup_steps
from trainer.plan import make_schedule
from trainer.step import choose_precision
from trainer.world import World


def preview(job: Job, world: World) -> str:
    """Return lines that say what `job` would train, on what, and for how long. Nothing is written."""
    inputs = open_inputs(job.run, world)
    architecture = job_architecture(job, vocab_size=vocabulary_size(inputs.tokenizer))
    with torch.device("meta"):
        n_parameters = sum(parameter.numel() for parameter in Decoder(architecture).parameters())
    schedule = make_schedule(len(inputs.packs), job.train)
    per_epoch, trained = int(inputs.packs.n_tokens.sum()), int(inputs.packs.n_supervised.sum())
    n_warmup = warmup_steps(schedule.total, job.train)
    dtype = str(choose_precision(job.train, world).dtype).removeprefix("torch.")
    rows = {
        "run": str(job.run),
        "model": f"{architecture.model_type}, {n_parameters:,} parameters, vocabulary {architecture.vocab_size:,}",
        "training packs": f"{len(inputs.packs):,} ({per_epoch:,} tokens, {trained:,} trained)",
        "validation packs": f"{len(inputs.validation):,} ({int(inputs.validation.n_tokens.sum()):,} tokens)",
        "global batch": f"{job.train.batch} packs, about {per_epoch * job.train.batch // len(inputs.packs):,} tokens",
        "steps per epoch": f"{schedule.per_epoch:,}",
        "total steps": f"{schedule.total:,} ({schedule.epochs:.2f} epochs, {n_warmup} warm-up)",
        "total tokens": f"about {round(per_epoch * schedule.epochs):,}",
        "arithmetic": f"{dtype} on {world.size} × {world.device.type}",
    }
    return "\n".join(f"{name:<17} {value}" for name, value in rows.items())


def job_architecture(job: Job, *, vocab_size: int) -> Architecture:
    """Return the architecture that would be trained, without reading weights."""
    if job.model.path is None:
        return new_architecture(job.model, vocab_size=vocab_size)
    found = read_architecture(Path(job.model.path))
    return replace(found, vocab_size=max(found.vocab_size, vocab_size))
