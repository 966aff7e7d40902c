"""Names that people know weights by, Hugging Face's, and the search for them."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import torch
from torch import Tensor

from schemas.settings import ConfigError
from trainer.model.architecture import Architecture
from trainer.model.layout import to_hugging_face

_LAYER: Final = re.compile(r"\.\d+\.")


def outer_parts(name: str, tensor: Tensor, architecture: Architecture) -> dict[str, int]:
    """Return Hugging Face's names of what Decoder calls `name`, each with how many values it has; a fused matrix has several."""
    blank = torch.empty(tensor.shape, device="meta")
    return {outer: part.numel() for outer, part in to_hugging_face({name: blank}, architecture).items()}


def all_layers(name: str) -> str:
    """Return `name` with a star for the number of its layer."""
    return _LAYER.sub(".*.", name)


def compiled(pattern: str, *, where: str) -> re.Pattern[str]:
    """Return `pattern` as a regular expression. Raises ConfigError that names the setting `where` when it is none, or empty."""
    if not pattern:
        raise ConfigError(f"{where}: '' matches everything, and seldom is what was meant; write '.' if it is")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is no regular expression: {error}") from None


def matching(
    pattern: str, names: Mapping[str, Collection[str]], *, where: str, others: Iterable[str] = ()
) -> list[str]:
    """Return the keys of `names` of which every outer name matches `pattern`.

    Raises ConfigError when there are none, naming those that come near and `others` that could be said instead, and when
    one has outer names that match and some that do not: they lie in one matrix, which learns as a whole.
    """
    search = compiled(pattern, where=where).search
    found = {name: [outer for outer in outers if search(outer)] for name, outers in names.items()}
    for name, outers in found.items():
        if 0 < len(outers) < len(names[name]):
            parts = ", ".join(outer.removesuffix(".weight").rpartition(".")[2] for outer in names[name])
            raise ConfigError(
                f"{where}: {pattern!r} matches {outers[0]} alone, which lies in one matrix with its neighbours: {parts} learn "
                "together or not at all. Match all of them, or give this one an adapter ([lora] targets)"
            )
    if chosen := [name for name, outers in found.items() if outers]:
        return chosen
    raise ConfigError(f"{where}: {pattern!r} matches nothing; {near(pattern, names, others)}")


def near(pattern: str, names: Mapping[str, Collection[str]], others: Iterable[str] = ()) -> str:
    """Return what a pattern that matches nothing may have meant."""
    full = sorted({all_layers(outer) for outers in names.values() for outer in outers})
    short = {part for name in full for part in name.split(".") if part not in ("*", "weight", "bias")}
    close = difflib.get_close_matches(pattern, [*sorted(short), *others], n=2)
    close = close or difflib.get_close_matches(pattern, full, n=2)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"expected a part of a name such as {', '.join(full[:3])}"
