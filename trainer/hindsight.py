"""What the steps of a training were made of, and what their conversations lose: for looking back, nothing is changed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from schemas.manifest import FileRecord
from schemas.settings import ConfigError
from schemas.training import Train
from trainer.checkpoint import newest_whole
from trainer.course import Course, open_packs
from trainer.data.assets import vocabulary_size
from trainer.data.inputs import open_inputs
from trainer.data.packs import Packs
from trainer.data.stream import Floats, costs, deal
from trainer.evaluation import conversation_losses
from trainer.job import Job
from trainer.model.decoder import Decoder
from trainer.model.lora import adapt
from trainer.start import build_model
from trainer.step import Precision
from trainer.stored import put_weights
from trainer.trainable import select
from trainer.world import World


class Conversation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation in its pack."""

    id: str
    position: int
    """Its first token in the pack, from 0."""
    tokens: int
    trained: int
    weight: float
    """Sum of the weights of its trained tokens."""
    loss: float | None = None
    """Weighted mean cross-entropy; in JSON null where it is not finite, and absent where nothing is trained."""


class StepPack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pack of a step."""

    pack: int
    """Its index among all packs of the split."""
    shard: str
    row: int
    tokens: int
    trained: int
    conversations: list[Conversation]
    rank: int | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step, its packs in global order."""

    step: int
    epoch: int
    """From 0, as in metrics.jsonl."""
    step_of_epoch: int
    """From 1."""
    n_steps: int
    """Of the whole training."""
    packs: list[StepPack]
    weights: str | None = None
    """Whose losses the conversations have."""


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation, and the steps that train it: one in each epoch that gets so far."""

    id: str
    pack: int
    shard: str
    row: int
    position: int
    tokens: int
    trained: int
    steps: list[int]


def look_at_step(run: Path, course: Course, step: int, *, ranks: int | None = None) -> Step:
    """Return what `step`, counted from 1, trains. Raises ConfigError for no such step, DataError for other packs."""
    epoch, at = course.epoch_of(step)
    files, packs = open_packs(run, course)
    chosen = course.packs_of(packs, step)
    rank_of: dict[int, int] = {}
    if ranks is not None:
        hands = deal(chosen, costs(packs.n_tokens, packs.sum_squares, hidden_size=course.hidden_size), ranks)
        rank_of = {pack: rank for rank, hand in enumerate(hands) for pack in hand}
    found = [_step_pack(files, packs, pack, rank_of.get(pack)) for pack in chosen]
    return Step(step=step, epoch=epoch, step_of_epoch=at + 1, n_steps=course.n_steps, packs=found)


def look_for(run: Path, course: Course, name: str) -> list[Occurrence]:
    """Return where a conversation, or each part of one that was cut, is trained. Raises ConfigError when it is not."""
    data = Path(course.data) if course.data else run
    files, packs = open_packs(run, course)
    found = [
        Occurrence(
            id=own.id,
            pack=pack.pack,
            shard=pack.shard,
            row=pack.row,
            position=own.position,
            tokens=own.tokens,
            trained=own.trained,
            steps=course.steps_of(packs, pack.pack),
        )
        for pack in (_step_pack(files, packs, i) for i in _packs_with(data / "pack", files, name))
        for own in pack.conversations
        if _is_part(own.id, name)
    ]
    if not found:
        raise ConfigError(
            f"--id {name}: no training pack of {data} has it. It may be in another split, or dropped: "
            f"`chatloom funnel {data}` counts what was, `chatloom look {data} ingest --id {name}` tells of one"
        )
    return found


@torch.no_grad()
def with_losses(run: Path, course: Course, phase: str | None, step: Step, world: World) -> Step:
    """Return `step` with what each conversation loses to the newest weights, and whose those are.

    These are the newest whole checkpoint's or, where there is none yet, those that training starts from. Nothing is left
    out by dropout. Raises UserError when the model cannot be built.
    """
    job = Job(
        run=run,
        seed=course.seed,
        model=course.model,
        lora=course.lora,
        train=Train(trainable=course.trainable),
        resume="",
        phase=phase,
        source=None if course.data is None else Path(course.data),
    )
    inputs = open_inputs(job.data, world)
    model, whose = _newest_model(job, vocabulary_size(inputs.tokenizer), inputs.added_tokens)
    model = model.to(world.device)
    precision = Precision(device=world.device, dtype=torch.bfloat16 if course.dtype == "bfloat16" else torch.float32)
    vocab_size = model.architecture.vocab_size
    batches = (inputs.packs.read([pack.pack], vocab_size=vocab_size) for pack in step.packs)
    losses = conversation_losses(model, batches, precision=precision)
    packs = [_with_losses(pack, *of_pack[:2]) for pack, of_pack in zip(step.packs, losses, strict=True)]
    return msgspec.structs.replace(step, packs=packs, weights=whose)


def _newest_model(job: Job, vocab_size: int, added_tokens: dict[str, int]) -> tuple[Decoder, str]:
    model, _ = build_model(job, vocab_size=vocab_size, added_tokens=added_tokens)
    adapt(model, job.lora, seed=job.seed)
    path, _ = newest_whole(job.home / "checkpoints")
    if path is None:
        return model, "the start: there is no checkpoint yet"
    select(model, job.train.trainable)
    put_weights(model, path / "model.safetensors")
    return model, str(path)


def _with_losses(pack: StepPack, sums_D: Floats, weights_D: Floats) -> StepPack:
    found = [
        msgspec.structs.replace(one, loss=loss / weight if weight else None)
        for one, loss, weight in zip(pack.conversations, sums_D.tolist(), weights_D.tolist(), strict=True)
    ]
    return msgspec.structs.replace(pack, conversations=found)


def _step_pack(files: Sequence[FileRecord], packs: Packs, pack: int, rank: int | None = None) -> StepPack:
    ends = np.cumsum([file.rows for file in files])
    shard = int(np.searchsorted(ends, pack, side="right"))
    row = packs.row(pack)
    lengths = row.seq_lengths.astype(np.int64)
    is_trained = row.labels != -100
    weights = is_trained * (1.0 if row.loss_weights is None else row.loss_weights.astype(np.float64))
    of_token = np.repeat(np.arange(len(lengths)), lengths)
    n_trained = np.bincount(of_token, is_trained, minlength=len(lengths)).astype(np.int64)
    sums = np.bincount(of_token, weights, minlength=len(lengths))
    starts = np.cumsum(lengths) - lengths
    columns = (row.names(), starts.tolist(), lengths.tolist(), n_trained.tolist(), sums.tolist())
    return StepPack(
        pack=pack,
        shard=files[shard].path,
        row=pack - int(ends[shard]) + files[shard].rows,
        tokens=int(lengths.sum()),
        trained=int(is_trained.sum()),
        conversations=[
            Conversation(id=name, position=start, tokens=length, trained=n, weight=weight)
            for name, start, length, n, weight in zip(*columns, strict=True)
        ],
        rank=rank,
    )


def _packs_with(stage: Path, files: Sequence[FileRecord], name: str) -> Iterator[int]:
    """Yield the packs that hold a conversation called `name`, or a part of it; only the column of ids is read."""
    first = 0
    for file in files:
        column = pa.ipc.open_file(pa.memory_map(str(stage / file.path))).read_all()["ids"]
        for chunk in column.chunks:
            names = chunk.flatten()
            similar = np.flatnonzero(pc.starts_with(names, name).to_numpy(zero_copy_only=False)).tolist()
            hits = [at for at in similar if _is_part(names[at].as_py(), name)]
            ends = chunk.offsets.to_numpy()[1:] - chunk.offsets[0].as_py()
            for row in dict.fromkeys(np.searchsorted(ends, hits, side="right").tolist()):
                yield first + row
            first += len(chunk)


def _is_part(own: str, name: str) -> bool:
    return own == name or own.startswith(f"{name}#")
