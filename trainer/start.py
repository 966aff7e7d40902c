"""The model that a training begins with: loaded or made, with its adapters, and with what of it learns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import torch

from schemas.models import Model
from schemas.settings import ConfigError
from trainer.adapter import check_export
from trainer.data.assets import other_tokenizer, vocabulary_size
from trainer.data.inputs import Inputs
from trainer.frozen import Narrowed, fingerprint, narrow
from trainer.held_out import check_prompts
from trainer.job import Job
from trainer.model.architecture import Architecture, check_length, new_architecture, read_architecture
from trainer.model.decoder import Decoder, initialise, untie
from trainer.model.hub import resolve_together
from trainer.model.lora import adapt
from trainer.model.weights import load_pretrained
from trainer.optim import parameter_groups
from trainer.plan import make_schedule
from trainer.trainable import Learning, select
from trainer.world import World


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model before its first step, and what is known about it."""

    model: Decoder
    learning: Learning
    frozen: str
    """Fingerprint of the weights that do not learn; "" when all do."""
    narrowed: Narrowed = field(default_factory=Narrowed)
    base: str | None = None
    """The model that its adapters belong to, as the config names it; None: there is none like it."""
    revision: str | None = None
    notices: tuple[str, ...] = ()
    """What a person should know, in sentences."""


def with_local_model(job: Job, world: World) -> Job:
    """Return `job` with its model's directory in place of a name on the hub. Every rank must come. Raises ModelError."""
    if job.model.path is None:
        return job
    path = str(resolve_together(job.model, world))
    return replace(job, model=msgspec.structs.replace(job.model, path=path, revision=None))


def make_start(job: Job, inputs: Inputs, dtype: torch.dtype, *, named: Model) -> Start:
    """Return the model that `job` begins with, on the CPU; `named` is [model] as the config has it, where it lies or not.

    Raises ModelError and ConfigError before anything is trained, for whatever could only be found out at the end.
    """
    model, changes = build_model(job, vocab_size=vocabulary_size(inputs.tokenizer), added_tokens=inputs.added_tokens)
    notices = list(changes)
    check_prompts(job, inputs, model)
    if job.train.export_weights == "best" and not len(inputs.validation):
        raise ConfigError(
            f'[train] export_weights = "best": {job.data / "pack"} has no validation packs, so that nothing says which weights '
            "are the best; set [dedup] validation and build the data again, or drop export_weights"
        )
    if job.model.path is not None and (
        warning := other_tokenizer(Path(job.model.path), inputs.tokenizer, inputs.added_tokens)
    ):
        notices.append(warning)
    if notice := check_length(model.architecture, inputs.packs.longest, where=str(job.data / "pack")):
        notices.append(notice)
    adapt(model, job.lora, seed=job.seed)
    learning = select(model, job.train.trainable)
    # weights that were changed for added tokens are nobody else's any more
    base = None if changes else named.path
    check_export(model, job.lora, base=base)
    # of the bits as they were read, before they are narrowed
    frozen = fingerprint(model)
    return Start(
        model=model,
        learning=learning,
        frozen=frozen,
        narrowed=narrow(model, dtype),
        base=base,
        revision=named.revision,
        notices=tuple(notices),
    )


def check(job: Job, inputs: Inputs) -> None:
    """Raise what `job` would be refused for on account of its settings; no weights are read, and none made."""
    with torch.device("meta"):
        model = Decoder(architecture_of(job, vocab_size=vocabulary_size(inputs.tokenizer)))
        check_prompts(job, inputs, model)
        adapt(model, job.lora, seed=job.seed)
        select(model, job.train.trainable)
    parameter_groups(model, job.train)
    make_schedule(len(inputs.packs), job.train)
    check_length(model.architecture, inputs.packs.longest, where=str(job.data / "pack"))


def architecture_of(job: Job, *, vocab_size: int) -> Architecture:
    """Return the architecture that would be trained, without reading weights."""
    if job.model.path is None:
        return new_architecture(job.model, vocab_size=vocab_size)
    found = read_architecture(Path(job.model.path))
    is_tied = found.tie_word_embeddings and not job.model.untie_head
    return msgspec.structs.replace(found, vocab_size=max(found.vocab_size, vocab_size), tie_word_embeddings=is_tied)


def build_model(job: Job, *, vocab_size: int, added_tokens: Mapping[str, int]) -> tuple[Decoder, list[str]]:
    """Return the model itself at its start, and how it was changed to fit."""
    if job.model.path is not None:
        model, changes = load_pretrained(Path(job.model.path), vocab_size=vocab_size, added_tokens=added_tokens)
        if job.model.untie_head and model.lm_head is None:
            untie(model)
            changes.append("the head has a matrix of its own now, which starts as a copy of the embedding table")
        return model, changes
    model = Decoder(new_architecture(job.model, vocab_size=vocab_size))
    initialise(model, seed=job.seed)
    return model, []
