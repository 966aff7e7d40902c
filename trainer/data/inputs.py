"""What a finished data run gives to the trainer: opened in a few bytes a pack, verified as it is read."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from schemas.manifest import FileRecord
from trainer.data.assets import GenerationConfig, decode_generation_config, decode_tokenizer, read_assets
from trainer.data.packs import Packs, read_manifest, split_files
from trainer.errors import DataError
from trainer.world import World


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a finished data run gives to the trainer."""

    files: dict[str, list[FileRecord]]
    """By split."""
    packs: Packs
    validation: Packs
    tokenizer: Tokenizer
    generation: GenerationConfig
    assets: dict[str, bytes]
    """The verified files of RUN/tokenizer, by their path in it."""
    added_tokens: dict[str, int]
    """Tokens that this tokenizer has and the model's own lacked, to their ids."""


def open_inputs(run: Path, world: World) -> Inputs:
    """Open every file, compare its sums with the manifest, and map the rest. Raises DataError, on all ranks."""
    manifest = world.together(lambda: read_manifest(run))
    files = world.together(lambda: {split: split_files(manifest, split) for split in ("train", "validation")})
    return world.together(lambda: _open(run, files, read_assets(run, manifest), manifest.added_tokens))


def _open(
    run: Path, files: dict[str, list[FileRecord]], assets: dict[str, bytes], added_tokens: dict[str, int]
) -> Inputs:
    packs = Packs(run / "pack", files["train"])
    if not len(packs):
        raise DataError(
            f"{run / 'pack'}: no training packs; see `chatloom funnel {run}` for where the conversations went"
        )
    home = run / "tokenizer"
    return Inputs(
        files=files,
        packs=packs,
        validation=Packs(run / "pack", files["validation"]),
        tokenizer=decode_tokenizer(assets["tokenizer.json"], where=home / "tokenizer.json"),
        generation=decode_generation_config(assets["generation_config.json"], where=home / "generation_config.json"),
        assets=assets,
        added_tokens=added_tokens,
    )
