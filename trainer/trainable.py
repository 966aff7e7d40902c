"""Which weights learn, and the report of them."""

import re
from dataclasses import dataclass
from typing import Final

from schemas.settings import ConfigError
from schemas.training import Trainable
from trainer.model.decoder import Decoder
from trainer.model.lora import adapted_modules, is_adapter, outer_names
from trainer.model.names import all_layers, matching
from trainer.model.norms import LayerNorm, RMSNorm

SETTING: Final = "[train] trainable"
WORDS: Final = ("all", "last_block", "last_2_blocks", "head", "norms", "biases")
"""What can be said instead of a regular expression; any number of blocks."""
_BLOCKS: Final = re.compile(r"last_(?:block|(\d+)_blocks)")


@dataclass(frozen=True)
class Row:
    """Weights that are called alike in all layers."""

    name: str
    n_tensors: int
    n_values: int


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What learns in a model, and what stays as it is."""

    names: frozenset[str]
    """Parameters that learn, as Decoder names them."""
    rows: tuple[Row, ...]
    """The same for people, under Hugging Face's names."""
    n_own: int
    """Values of the model itself."""
    n_adapters: int
    """Values of its adapters."""
    rank: int
    """Rank of the adapters; 0: there are none."""
    notes: tuple[str, ...] = ()

    @property
    def n_learning(self) -> int:
        """Return how many values learn."""
        return sum(row.n_values for row in self.rows)

    @property
    def is_everything(self) -> bool:
        """Tell whether nothing stays as it is."""
        return self.n_learning == self.n_own + self.n_adapters

    def lines(self) -> list[str]:
        """Return the report: how many parameters learn, of how many, and which."""
        total = self.n_own + self.n_adapters
        if self.is_everything and not self.n_adapters:
            return [f"all {total:,} parameters learn", *self.notes]
        own = f"; the model itself has {self.n_own:,}, its adapters of rank {self.rank} {self.n_adapters:,}"
        said = f"{self.n_learning:,} of {total:,} parameters learn ({self.n_learning / total:.2%})"
        width = max(len(row.name) for row in self.rows)
        table = [
            f"  {row.name:<{width}}  {row.n_tensors:>4} tensor{' ' if row.n_tensors == 1 else 's'}  {row.n_values:>15,}"
            for row in self.rows
        ]
        return [said + (own if self.n_adapters else ""), *table, *self.notes]


def select(model: Decoder, trainable: Trainable | None) -> Learning:
    """Let those weights of `model` have gradients that `trainable` names, and its adapters if it has any; return which.

    None is all of the model's own or, where there are adapters, none of them. Raises ConfigError for a word or a regular
    expression that matches nothing, for one that matches a part of a fused matrix, and when nothing would learn.
    """
    outer = outer_names(model)
    own = {name: tuple(outers) for name, outers in outer.items() if not is_adapter(name)}
    adapters = {name for name in outer if is_adapter(name)}
    learns = set(adapters)
    said = (
        ("all",)
        if trainable is None and not learns
        else (trainable,)
        if isinstance(trainable, str)
        else trainable or ()
    )
    for word in said:
        learns |= _named(model, own, word)
    if not learns:
        raise ConfigError(f"{SETTING} is empty, so that nothing would learn; name some weights, or leave it out (all)")
    counted: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learns)
        for outer_name, n_values in outer[name].items() if name in learns else ():
            counted.setdefault(_title(outer_name), []).append(n_values)
    notes = (
        ["the head is the embedding table (tie_word_embeddings), so that learns"]
        if "head" in said and model.lm_head is None
        else []
    )
    return Learning(
        names=frozenset(learns),
        rows=tuple(Row(name, len(sizes), sum(sizes)) for name, sizes in counted.items()),
        n_own=sum(sum(outer[name].values()) for name in own),
        n_adapters=sum(sum(outer[name].values()) for name in adapters),
        rank=next((module.rank for _, module in adapted_modules(model)), 0),
        notes=tuple(notes),
    )


def _title(outer_name: str) -> str:
    """Return the row of the report in which a weight is counted."""
    matrix = re.sub(r"\.lora_[AB]\.weight$", "", outer_name)
    return f"{all_layers(matrix)}{'' if matrix == outer_name else ' (adapter)'}"


def _named(model: Decoder, own: dict[str, tuple[str, ...]], word: str) -> set[str]:
    """Return the model's own parameters that one word or regular expression means."""
    if word == "all":
        return set(own)
    if blocks := _BLOCKS.fullmatch(word):
        return _last_blocks(model, own, int(blocks[1] or 1), word)
    if word == "head":
        return {"embed_tokens.weight" if model.lm_head is None else "lm_head.weight"}
    if word == "norms":
        norms = {name for name, module in model.named_modules() if isinstance(module, RMSNorm | LayerNorm)}
        return {name for name in own if name.rpartition(".")[0] in norms}
    if word == "biases":
        found = {name for name in own if name.endswith(".bias")}
        if not found:
            raise ConfigError(
                f"{SETTING}: 'biases' matches nothing: this {model.architecture.model_type} model has none"
            )
        return found
    return set(matching(word, own, where=SETTING, others=WORDS))


def _last_blocks(model: Decoder, own: dict[str, tuple[str, ...]], n: int, word: str) -> set[str]:
    n_layers = model.architecture.num_hidden_layers
    if not 1 <= n <= n_layers:
        raise ConfigError(f"{SETTING}: {word!r}: the model has {n_layers} blocks; expected 1 to {n_layers}")
    prefixes = tuple(f"layers.{layer}." for layer in range(n_layers - n, n_layers))
    return {name for name in own if name.startswith((*prefixes, "norm."))}
