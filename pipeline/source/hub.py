"""Datasets on the Hugging Face hub: their files as they were uploaded, downloaded once into the hub's cache.

Not through the library's own conversion to Arrow, which makes one type of all JSON objects under a key, and so spoils the schemas
of tools. A file is named hf://datasets/<owner>/<name>@<commit>/<path>, and lies where the cache keeps that commit.
"""

import re
import shutil
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from pipeline.source.chunk import SourceError
from pipeline.source.datasets_dir import Layout, layout_of
from pipeline.source.opening import kinds_of
from schemas.hub import is_hub_name
from schemas.settings import ConfigError

SCHEME: Final = "hf://"
_DATASETS: Final = "hf://datasets/"
_CARDS: Final = ("README.md", "dataset_dict.json", "state.json", "*/state.json")
"""What says how the files of a repository belong together."""


class Dataset(NamedTuple):
    """A dataset as an input names it."""

    name: str
    revision: str | None
    path: str
    """Of a file, a directory or a glob in it; empty for all of it."""


def dataset_of(given: str, suffixes: tuple[str, ...]) -> Dataset | None:
    """Return the dataset that an input means: hf://datasets/owner/name[@revision][/path], or owner/name[@revision].

    None for what is no such name. Raises ConfigError for a URL that is nearly one.
    """
    if not given.startswith(SCHEME):
        name, _, revision = given.partition("@")
        is_name = name.count("/") == 1 and is_hub_name(name) and not name.endswith(suffixes)
        return Dataset(name, revision or None, "") if is_name else None
    match = re.fullmatch(r"([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*))?", given.removeprefix(_DATASETS))
    if match is None or not given.startswith(_DATASETS) or not is_hub_name(match[1]):
        raise ConfigError(
            f"input {given!r}: expected {_DATASETS}<owner>/<name>, with @<revision> or /<path in it> after it"
        )
    # a branch with a slash in its name is written with %2F, as the library does
    return Dataset(match[1], match[2].replace("%2F", "/") if match[2] else None, (match[3] or "").strip("/"))


def find_dataset(
    dataset: Dataset, split: str | None, config: str | None, *, where: str, suffixes: tuple[str, ...]
) -> Layout:
    """Return the files of a split of a dataset, all of them in the cache, under the names that rows have them by.

    Raises ConfigError, SourceError, beginning with `where` and saying what to do.
    """
    snapshot = _download(dataset, list(_CARDS), where)
    commit = snapshot.name
    fixed = dataset._replace(revision=commit)
    names = _files_of(dataset.name, commit, snapshot)
    if dataset.path:
        if split is not None or config is not None:
            raise ConfigError(f"{where}: it names files, and split or config would choose among them; drop one")
        found = [name for name in names if _is_under(name, dataset.path) and name.endswith(suffixes)]
        if not found:
            raise ConfigError(f"{where}: no file that is read ({kinds_of(suffixes)}) lies there in the dataset")
        layout = Layout(found, [])
    else:
        layout = _layout(snapshot, names, split, config, where, suffixes)
    _download(fixed, [re.sub(r"([*?[])", r"[\1]", name) for name in layout.files], where)
    prefix = f"{_DATASETS}{dataset.name}@{commit}/"
    return Layout([prefix + name for name in layout.files], [prefix + name for name in layout.ignored])


def place_of(name: str) -> str:
    """Return where the file of a name that find_dataset gave lies in the cache."""
    from huggingface_hub import constants

    match = re.fullmatch(re.escape(_DATASETS) + r"([^/@]+)/([^/@]+)@([0-9a-f]+)/(.+)", name)
    assert match is not None, name
    owner, repository, commit, path = match.groups()
    return str(Path(constants.HF_HUB_CACHE) / f"datasets--{owner}--{repository}" / "snapshots" / commit / path)


def _layout(
    snapshot: Path, names: list[str], split: str | None, config: str | None, where: str, suffixes: tuple[str, ...]
) -> Layout:
    """Return the files of a split, found among files of these names, all empty but those that say what belongs together."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in names:
            if ".." in PurePosixPath(name).parts or name.startswith("/"):
                continue
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if any(fnmatchcase(name, pattern) for pattern in _CARDS) and (snapshot / name).is_file():
                shutil.copyfile(snapshot / name, root / name)
            else:
                (root / name).touch()
        layout = layout_of(root, split, config, where=where, suffixes=suffixes)
        return Layout(*([name.removeprefix(f"{directory}/") for name in part] for part in layout))


def _files_of(name: str, commit: str, snapshot: Path) -> list[str]:
    """Return the paths of all files of a commit, as the cache remembers them; else of those that it has."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(name, repo_type="dataset", revision=commit)
    except CachedRepoTreeNotFoundError:  # an older library filled the cache
        return sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file())
    return sorted(file.path for file in tree)


def _is_under(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/") or fnmatchcase(name, path)


def _download(dataset: Dataset, patterns: list[str], where: str) -> Path:
    """Return the directory of a commit in the cache, in which all files of these patterns are."""
    from huggingface_hub import constants, errors, snapshot_download

    name, revision = dataset.name, dataset.revision
    get = f"hf download {name} --repo-type dataset" + (f" --revision {revision}" if revision else "")
    try:
        found = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns)
    except errors.GatedRepoError:
        raise SourceError(
            f"{where}: this dataset is gated; accept its conditions at {constants.ENDPOINT}/datasets/{name}, then "
            "`hf auth login` with a token that may read it"
        ) from None
    except errors.RepositoryNotFoundError:
        raise SourceError(
            f"{where}: no such file or directory here, and no such dataset on {constants.ENDPOINT}; check the name. A private "
            "dataset needs `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise SourceError(
            f"{where}: that dataset has no revision {revision!r}; {constants.ENDPOINT}/datasets/{name}/tree/main lists its "
            "branches and tags"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.IncompleteSnapshotError):
        at = f" at revision {revision!r}" if revision else ""
        raise SourceError(
            f"{where}: no such file or directory here, the hub cannot be reached, and its cache ({constants.HF_HUB_CACHE}) does "
            f"not have all that is asked for of that dataset{at}. Run `{get}` where there is a network (HF_HUB_OFFLINE=1 forbids "
            "it), or give the path of a file or directory"
        ) from None
    except Exception as error:  # noqa: BLE001 - a network has more ways to fail than can be named, with one remedy
        raise SourceError(
            f"{where}: could not be downloaded from {constants.ENDPOINT}: {type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}. Give the same command again, or `{get}` and look"
        ) from None
    return Path(found)
