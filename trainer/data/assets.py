"""What a model must be served with: tokenizer, chat template and stop ids, verified to be those of the packs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec
from tokenizers import Tokenizer

from schemas.manifest import Manifest
from trainer.errors import DataError

NEEDED: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
"""Names in RUN/tokenizer; all of them travel with the export."""
NAMED_TEMPLATES: Final = "additional_chat_templates"
"""Directory of those templates that a conversation may need besides chat_template.jinja, e.g. tool_use.jinja."""
REBUILD: Final = "run `chatloom data` again"


class GenerationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer reads of generation_config.json."""

    eos_token_id: int | list[int]
    bos_token_id: int | None = None
    pad_token_id: int | None = None

    def stop_ids(self) -> frozenset[int]:
        """Return every id on which an answer ends."""
        return frozenset([self.eos_token_id] if isinstance(self.eos_token_id, int) else self.eos_token_id)


def read_assets(run: Path, manifest: Manifest) -> dict[str, bytes]:
    """Return the files of RUN/tokenizer by their path in it, each with the hash that the packs' manifest gives it.

    A manifest of an older build lists none; they are then taken as they are. Raises DataError naming every file that is
    absent or is not the one that the packs were made with.
    """
    files: dict[str, bytes] = {}
    problems: list[str] = []
    for path in sorted({*manifest.assets, *(f"tokenizer/{name}" for name in NEEDED)}):
        home, *parts = PurePosixPath(path).parts or ("",)
        is_inside = home == "tokenizer" and len(parts) > 0 and parts[:-1] in ([], [NAMED_TEMPLATES])
        if not is_inside or ".." in path or "\0" in path:
            raise DataError(f"{run / 'pack' / 'manifest.json'}: asset {path!r} is outside the tokenizer; {REBUILD}")
        try:
            data = (run / path).read_bytes()
        except FileNotFoundError:
            problems.append(f"{run / path}: not found; {REBUILD}, which writes it beside the packs")
            continue
        except OSError as error:
            problems.append(f"{run / path}: {error.strerror or error}; {REBUILD}")
            continue
        got, expected = hashlib.sha256(data).hexdigest(), manifest.assets.get(path)
        if manifest.assets and got != expected:
            problems.append(
                f"{run / path}: not the file that the packs were made with: expected sha256 {expected}, got {got}; "
                f"{REBUILD}"
            )
        files["/".join(parts)] = data
    if problems:
        raise DataError("\n".join(problems))
    return files


def decode_tokenizer(data: bytes, *, where: Path) -> Tokenizer:
    """Return the tokenizer in the bytes of a tokenizer.json. Raises DataError when they are none."""
    try:
        return Tokenizer.from_buffer(data)
    except Exception as error:  # noqa: BLE001 - the library raises the base class
        raise DataError(f"{where}: not a tokenizer.json that can be read: {error}; {REBUILD}") from None


def decode_generation_config(data: bytes, *, where: Path) -> GenerationConfig:
    """Return what generation_config.json says. Raises DataError when it is malformed or names no stop token."""
    try:
        config = msgspec.json.decode(data, type=GenerationConfig)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: {error}; {REBUILD}") from None
    if not config.stop_ids():
        raise DataError(f"{where}: eos_token_id is empty, so no answer could ever end; {REBUILD}")
    return config


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Return one more than the largest token id; ids may have holes."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def tokenizer_of(model: Path) -> Tokenizer | None:
    """Return the tokenizer in the model directory `model`, or None where there is none that can be read."""
    path = model / "tokenizer.json"
    try:
        return decode_tokenizer(path.read_bytes(), where=path)
    except (OSError, DataError):
        return None


def other_tokenizer(model: Path, tokenizer: Tokenizer, added_tokens: Mapping[str, int]) -> str | None:
    """Return a warning when the model directory `model` has a tokenizer of another size than the run's.

    The run's may have `added_tokens` besides.
    """
    path, found = model / "tokenizer.json", tokenizer_of(model)
    if found is None:
        return None
    own, size = vocabulary_size(found), vocabulary_size(tokenizer)
    if own in (size, min(added_tokens.values(), default=size)):
        return None
    return (
        f"warning: {path} has {own:,} tokens, the run's tokenizer {size:,}: were the packs made with this model's "
        "tokenizer? If not, set tokenize.tokenizer to the model and build the data again"
    )
