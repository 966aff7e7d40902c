"""What a finished data run gives to the trainer, verified before the first use."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from schemas.manifest import FileRecord
from trainer.errors import DataError, Elsewhere
from trainer.generate import GenerationConfig, read_generation_config
from trainer.packs import Packs, read_manifest, split_files, verify
from trainer.world import World


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a finished data run gives to the trainer."""

    files: list[FileRecord]
    """Of the training split."""
    packs: Packs
    validation: Packs
    tokenizer: Tokenizer
    generation: GenerationConfig


def open_inputs(run: Path, world: World) -> Inputs:
    """Verify every shard, the ranks of a machine sharing the work, then map them. Raises DataError."""
    manifest = read_manifest(run)
    stage = run / "pack"
    training, validation = split_files(manifest, "train"), split_files(manifest, "validation")
    own = [*training, *validation][world.local_rank :: world.local_size]
    problems = [problem for file in own if (problem := verify(stage, file))]
    if world.max(float(len(problems)))[0]:
        # every rank stops, or those with good shards would wait for this one
        raise DataError("\n".join(problems)) if problems else Elsewhere("another rank found a damaged shard")
    packs = Packs(stage, training)
    if not len(packs):
        raise DataError(f"{stage}: no training packs; see `chatloom funnel {run}` for where the conversations went")
    return Inputs(
        files=training,
        packs=packs,
        validation=Packs(stage, validation),
        tokenizer=read_tokenizer(run),
        generation=read_generation_config(run),
    )


def read_tokenizer(run: Path) -> Tokenizer:
    """Return the tokenizer of the data. Raises DataError when it is absent."""
    path = run / "tokenizer" / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"{path}: not found; run `make data`, which writes it beside the packs")
    return Tokenizer.from_file(str(path))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Return one more than the largest token id; ids may have holes."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
