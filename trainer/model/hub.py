"""Where a model to start from lies: a directory, or a name on the Hugging Face hub, downloaded once into its cache."""

from pathlib import Path
from typing import Final

from schemas.hub import is_hub_name
from schemas.models import Model
from trainer.errors import ModelError
from trainer.model.weights import INDEX, SINGLE, read_index
from trainer.world import World

WANTED: Final = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
"""Files that are downloaded. A pickle is a program, and never is."""
UNWANTED: Final = ("*/*", "consolidated*.safetensors")
"""Exports for other programs in directories of their own, and the same weights in their authors' layout."""


def resolve(model: Model, *, is_cached: bool = False) -> Path:
    """Return the directory that `[model] path` means; a name on the hub is downloaded, unless the cache has it.

    With `is_cached` nothing is asked of the network. Raises ModelError, saying what to do, when there is no such directory or
    model, when it cannot be had, and when it has no safetensors.
    """
    assert model.path is not None, "a new model lies nowhere"
    directory = Path(model.path).expanduser()
    if directory.is_dir():
        if model.revision is not None:
            raise ModelError(
                f"[model] path = {model.path!r} is a directory and revision = {model.revision!r} belongs to a model on the "
                "hub; drop one"
            )
        return directory
    if directory.exists() or not is_hub_name(model.path):
        what = "a file" if directory.exists() else "no such directory"
        raise ModelError(
            f"[model] path = {model.path!r}: {what}; expected a directory with config.json and *.safetensors, or a model's "
            "name on the Hugging Face hub (owner/name)"
        )
    found = _snapshot(model.path, model.revision, is_cached=is_cached)
    _check_complete(found, model.path)
    return found


def resolve_together(model: Model, world: World) -> Path:
    """Return what `resolve` does, on every rank; of the ranks of a machine the first downloads, and the others find it there.

    Every rank must come. Raises ModelError on all of them when it fails on one.
    """
    world.together(lambda: resolve(model) if world.local_rank == 0 else None)
    return world.together(lambda: resolve(model, is_cached=True))


def _snapshot(name: str, revision: str | None, *, is_cached: bool) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    where = f"[model] path = {name!r}"
    get = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
            local_files_only=is_cached,
        )
    except errors.GatedRepoError:
        raise ModelError(
            f"{where}: this model is gated; accept its conditions at {constants.ENDPOINT}/{name}, then `hf auth login` with "
            "a token that may read it"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"{where}: no such directory here, and no such model on {constants.ENDPOINT}; check the name. A private model "
            "needs `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(
            f"{where}: that model has no revision {revision!r}; {constants.ENDPOINT}/{name}/tree/main lists its branches "
            "and tags"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.IncompleteSnapshotError):
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"{where}: no such directory here, the hub cannot be reached, and its cache ({constants.HF_HUB_CACHE}) does not "
            f"have the whole model{at}. Run `{get}` where there is a network (HF_HUB_OFFLINE=1 forbids it), or give the path "
            "of a model's directory"
        ) from None
    except Exception as error:  # noqa: BLE001 - a network has more ways to fail than can be named, with one remedy
        raise ModelError(
            f"{where}: could not be downloaded from {constants.ENDPOINT}: {type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}. Give the same command again, or `{get}` and look"
        ) from None
    return Path(found)


def _check_complete(directory: Path, name: str) -> None:
    """Raise ModelError unless a snapshot has a config and all of its weights: a cache may hold a tokenizer alone."""
    index = directory / INDEX
    shards = sorted(set(read_index(index).values())) if index.exists() else [SINGLE]
    absent = [file for file in ("config.json", *shards) if not (directory / file).is_file()]
    if absent:
        shown = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        raise ModelError(
            f"[model] path = {name!r}: {shown} is missing in {directory}. If the model has safetensors, run "
            f"`hf download {name}` where there is a network; weights in pickles (*.bin) are not read, for loading one runs "
            "what its author wrote: take a release with safetensors, or convert it"
        )
