"""Weights of a model directory, read into a model: all of them, of a type that can be trained, and none left over."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.data.assets import tokenizer_of
from trainer.errors import ModelError
from trainer.model.architecture import Architecture, read_architecture
from trainer.model.decoder import Decoder
from trainer.model.layout import from_hugging_face, names_on_disk, weights_among
from trainer.model.rope import inverse_frequencies

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Types of weights that are read; anything else is quantised, and numbers alone do not say how."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of one file. Raises ModelError when it is absent or malformed."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise ModelError(f"{path}: not found; is the model's download complete?") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}") from None


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    """model.safetensors.index.json."""

    weight_map: dict[str, str]


def read_index(path: Path) -> dict[str, str]:
    """Return which shard holds which weight. Raises ModelError when the index is malformed or names no neighbours."""
    try:
        weight_map = msgspec.json.decode(path.read_bytes(), type=_Index).weight_map
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not an index of weights: {error}; download the model again") from None
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            raise ModelError(f"{path}: {name!r} is no file name; a shard must lie beside its index")
    return weight_map


def _read_directory(directory: Path) -> dict[str, Tensor]:
    """Return all tensors of a model, from one file or from the shards that an index names."""
    if not (directory / INDEX).exists():
        if not (directory / SINGLE).exists() and (pickles := sorted(path.name for path in directory.glob("*.bin"))):
            raise ModelError(
                f"{directory}: has {pickles[0]} and no {SINGLE}; weights in pickles are not read, for loading one runs what its "
                "author wrote: take a release with safetensors, or convert it"
            )
        return read_safetensors(directory / SINGLE)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(read_index(directory / INDEX).values())):
        tensors |= read_safetensors(directory / name)
    return tensors


def _refuse_unknown(tensors: Mapping[str, Tensor], a: Architecture, names: list[str], *, where: str) -> None:
    """Raise ModelError for weights that are no floats, and for any that the architecture has no place for.

    Leaving one out would train another model than the one in the directory. One is harmless: the head of a model whose
    head is its embedding.
    """
    quantised = {str(t.dtype).removeprefix("torch."): name for name, t in tensors.items() if t.dtype not in DTYPES}
    if quantised:
        shown = ", ".join(f"{name} ({dtype})" for dtype, name in sorted(quantised.items()))
        raise ModelError(
            f"{where}: quantised weights cannot be trained: {shown}; expected float32, bfloat16 or float16"
        )
    known = {part for name in names for part in names_on_disk(name, a)}
    known |= {"lm_head.weight"} if a.tie_word_embeddings else set()
    unknown = sorted(name for name in tensors if name not in known)
    if unknown:
        shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise ModelError(
            f"{where}: weights that a {a.model_type} model as config.json describes it has no place for: {shown}; they "
            "would be lost. Is config.json this model's? Adapters must be merged into the model first"
        )


def load_pretrained(
    directory: Path, *, vocab_size: int, added_tokens: Mapping[str, int] = MappingProxyType({})
) -> tuple[Decoder, list[str]]:
    """Return the float32 model in a Hugging Face directory, and what a person should know about how it was changed.

    A vocabulary smaller than the tokenizer's is grown, new rows being the mean of the old; a larger one stays. Spare rows
    in it, which no token of the model's own tokenizer used, become that mean too where one of `added_tokens` takes them.
    Raises ModelError naming the file when anything is missing, left over or has the wrong shape or type.
    """
    found = read_architecture(directory)
    architecture = msgspec.structs.replace(found, vocab_size=max(found.vocab_size, vocab_size))
    with torch.device("meta"):
        model = Decoder(architecture)
    names = [name for name, _ in model.named_parameters()]
    stored = weights_among(_read_directory(directory), found, where=str(directory))
    _refuse_unknown(stored, found, names, where=str(directory))
    tensors = from_hugging_face(stored, found, names, where=str(directory))
    spare = _spare(directory, found.vocab_size, added_tokens)
    for name in ("embed_tokens.weight", "lm_head.weight"):
        if name in tensors and (spare or vocab_size > found.vocab_size):
            tensors[name] = _grown(
                tensors[name], vocab_size, n_old=min((found.vocab_size, *added_tokens.values())), spare=spare
            )
    notices = _about_growth(found.vocab_size, vocab_size, added_tokens, spare)
    for name, parameter in model.named_parameters():
        if tensors[name].shape != parameter.shape:
            raise ModelError(
                f"{directory}: {name} has shape {tuple(tensors[name].shape)}, "
                f"config.json says {tuple(parameter.shape)}; the files do not belong together"
            )
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    _refuse_no_numbers(wide, found, where=str(directory))
    # assigned, not copied: the model is in memory once
    model.load_state_dict(wide, assign=True)
    model.frequencies = inverse_frequencies(architecture)
    return model, notices


def _refuse_no_numbers(tensors: Mapping[str, Tensor], a: Architecture, *, where: str) -> None:
    """Raise ModelError for weights that are NaN or infinite: training would blame the conversations and the learning rate."""
    # a sum is read at the speed of memory, and is finite unless a weight is not, or so large that it is looked at again
    doubtful = [name for name, tensor in tensors.items() if not math.isfinite(tensor.sum())]
    if wrong := [name for name in doubtful if not tensors[name].isfinite().all()]:
        shown = ", ".join(names_on_disk(wrong[0], a)) + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")
        raise ModelError(
            f"{where}: weights that are no numbers (NaN or infinite): {shown}; the model had diverged when it was saved, or the "
            "files are damaged: take an earlier one, or download it again"
        )


def _spare(directory: Path, n_rows: int, added_tokens: Mapping[str, int]) -> list[int]:
    """Return the ids of `added_tokens` that have a row in the model though its own tokenizer knows neither token nor id.

    Without a tokenizer beside the weights nobody can say whether such a row was trained; it then stays.
    """
    inside = {text: i for text, i in added_tokens.items() if i < n_rows}
    own = tokenizer_of(directory) if inside else None
    if own is None:
        return []
    return [i for text, i in inside.items() if own.token_to_id(text) is None and own.id_to_token(i) is None]


def _grown(rows: Tensor, n: int, *, n_old: int, spare: list[int]) -> Tensor:
    """Return `rows`, at least `n` of them; new and spare ones are the mean of the first `n_old` (Hewitt 2021)."""
    mean = rows[:n_old].float().mean(0, keepdim=True).to(rows.dtype)
    grown = torch.cat((rows, mean.expand(max(0, n - len(rows)), -1)))
    grown[spare] = mean
    return grown


def _about_growth(n_rows: int, n: int, added_tokens: Mapping[str, int], spare: list[int]) -> list[str]:
    """Return what a person should know about new rows of the embedding and the head."""
    if n > n_rows:
        cause = (
            f"for the added tokens {', '.join(sorted(added_tokens, key=added_tokens.__getitem__))}"
            if added_tokens
            else "to fit the tokenizer"
        )
        return [
            f"embeddings resized from {n_rows} to {n} rows {cause}; each new row starts as the mean of the old ones"
        ]
    if spare:
        named = ", ".join(text for text, i in added_tokens.items() if i in spare)
        return [f"spare rows of the embeddings start as the mean of those in use, for the added tokens {named}"]
    return []
