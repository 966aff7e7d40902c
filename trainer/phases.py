"""Several trainings one after the other: each phase is one, in a place of its own, from the weights of the one before.

RUN/train/phases/<name>/{checkpoints/, metrics.jsonl, samples.jsonl}, and export/ for all but the last phase, whose model is
that of the whole run. RUN/train/{metrics,samples}.jsonl have the lines of all phases.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.files import write_whole
from schemas.models import Lora, Model
from schemas.settings import ConfigError
from schemas.training import LEAST, Phase, Train
from trainer.checkpoint import read_state, step_of
from trainer.data.assets import read_assets
from trainer.data.packs import read_manifest
from trainer.errors import storing
from trainer.job import Job

RECORDS: Final = ("metrics.jsonl", "samples.jsonl")
ONE_OF: Final = (("epochs", "steps"), ("warmup_steps", "warmup_ratio"))
"""Settings of which a phase that has either has the other no more."""


def phase_jobs(job: Job) -> list[Job]:
    """Return the training of each phase of `job`, in order; without phases, `job` itself.

    All but the first start from an export that need not be there yet. Raises ConfigError for what contradicts itself.
    """
    if not job.train.phases:
        return [job]
    if job.lora.rank and not any(phase.lora for phase in job.train.phases):
        raise ConfigError(
            f"[lora] rank = {job.lora.rank} and every phase has lora = false, so that no adapter would be trained; drop one"
        )
    jobs: list[Job] = []
    for i, phase in enumerate(job.train.phases):
        is_last = i == len(job.train.phases) - 1
        train, lora = _settings(job.train, phase), job.lora if phase.lora else Lora()
        if not is_last:
            # to go on from, not to be served: nothing is rounded, and nothing is asked of its answers
            train = msgspec.structs.replace(train, export_dtype="float32", export_unless_stopping=True)
            lora = msgspec.structs.replace(lora, merge=True) if lora.rank else lora
        jobs.append(
            replace(
                job,
                model=Model(path=str(jobs[-1].results / "export")) if jobs else job.model,
                train=train,
                lora=lora,
                phase=phase.name,
                is_last=is_last,
                source=None if phase.run is None else Path(phase.run),
            )
        )
    return jobs


def foreseen(job: Job) -> list[Job]:
    """Return the phases of `job` as far as they can be known now, for looking only.

    Each is what follows the one before if that has an export, and else starts from the model of the first.
    """
    jobs = phase_jobs(job)
    if len(jobs) > 1:
        check_tokenizers(jobs)
    found = jobs[:1]
    for one in jobs[1:]:
        before = found[-1]
        is_there = (before.results / "exported.json").exists() and _checkpoints(before)
        found.append(after(one, before) if is_there else replace(one, model=job.model))
    return found


def after(job: Job, before: Job) -> Job:
    """Return `job` as what follows `before`, which is finished: the plan of each phase holds those before it."""
    path = max(_checkpoints(before), key=step_of)
    # its files were compared with their hashes when the phase was found to be finished
    state = read_state(path)
    identity = msgspec.json.encode([state.plan, state.files, before.train.export_weights])
    return replace(job, before=hashlib.sha256(identity).hexdigest()[:16])


def check_tokenizers(jobs: Sequence[Job]) -> None:
    """Raise ConfigError unless the packs of all phases were made with the same tokenizer, and DataError where there are none."""
    first, *others = ((job, read_assets(job.data, read_manifest(job.data))["tokenizer.json"]) for job in jobs)
    for job, tokenizer in others:
        if tokenizer != first[1]:
            raise ConfigError(
                f"[[train.phases]] {job.phase!r}: {job.data / 'tokenizer' / 'tokenizer.json'} is not the tokenizer of phase "
                f"{first[0].phase!r} ({first[0].data}), and a model can have one only; build both runs with the same [tokenize] "
                "tokenizer"
            )


def join_records(job: Job, jobs: Sequence[Job]) -> None:
    """Write the records of all phases, in order and each line with its phase, into RUN/train. Raises StorageError."""
    for name in RECORDS:
        lines: list[bytes] = []
        for one in jobs:
            path = one.home / name
            for line in path.read_bytes().splitlines() if path.exists() else ():
                record: dict[str, Any] = msgspec.json.decode(line)
                lines.append(msgspec.json.encode(record | {"phase": one.phase}) + b"\n")
        with storing(job.train_home / name):
            write_whole(job.train_home / name, b"".join(lines))


def _checkpoints(job: Job) -> list[Path]:
    return list((job.home / "checkpoints").glob("step-*"))


def _settings(train: Train, phase: Phase) -> Train:
    own = {
        name: value
        for name in phase.__struct_fields__
        if name not in ("name", "run", "lora") and (value := getattr(phase, name)) is not None
    }
    if own.get("schedule") == "constant":
        own = {"min_lr_ratio": LEAST} | own
    for pair in ONE_OF:
        if any(name in own for name in pair):
            own = dict.fromkeys(pair) | own
    try:
        return msgspec.structs.replace(train, phases=(), **own)
    except ValueError as error:
        raise ConfigError(f"[[train.phases]] {phase.name!r}: {error}") from None
