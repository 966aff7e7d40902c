"""How well a model predicts held-out conversations: all of them, on all ranks, in all, by source and by tag."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainer.data.means import documents_of
from trainer.data.packs import Packs
from trainer.data.stream import Floats, Integers, costs, deal
from trainer.model.decoder import Batch, Decoder
from trainer.step import Precision
from trainer.world import World

SOURCES: Final = 50
"""Sources, or tags, that are told apart, those with most trained tokens; the rest are one."""
OTHER: Final = "other"
"""The rest, and of tags also the conversations that have none of the kind."""
ALL_TAGS: Final = "*"
"""Kind of every tag."""
_AT_ONCE: Final = 32
"""Forward passes between two moments in which the host waits for the device."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Sums over the trained tokens of some conversations."""

    loss_sum: float = 0.0
    """Of weight × cross-entropy."""
    weight: float = 0.0
    tokens: int = 0

    @property
    def loss(self) -> float:
        """Return the weighted mean cross-entropy; not a number where there is no weight."""
        return self.loss_sum / self.weight if self.weight else math.nan

    def __add__(self, other: "Part") -> "Part":
        """Return the sums over both."""
        return Part(
            loss_sum=self.loss_sum + other.loss_sum,
            weight=self.weight + other.weight,
            tokens=self.tokens + other.tokens,
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model loses on a split, the same on all ranks."""

    by_source: dict[str, Part]
    """Most tokens first, then by name; `other` is last. Adding them up in this order gives `total`, to the last bit."""
    by_tag: dict[str, Part] | None = None
    """In the same order; None where no kind of tag was asked for. They need not add up: a conversation counts for each of its
    tags of the kind."""

    @property
    def total(self) -> Part:
        """Return the sums over all sources."""
        return _sum(self.by_source.values())

    @property
    def loss(self) -> float:
        """Return the mean over all trained tokens by their weights, whatever [train] loss_mean is."""
        return self.total.loss

    @property
    def perplexity(self) -> float:
        """Return e to the loss."""
        return math.exp(self.loss) if self.loss < 709 else math.inf  # the largest that float64 holds

    def losses(self) -> dict[str, float]:
        """Return the loss of each source."""
        return {name: part.loss for name, part in self.by_source.items()}

    def losses_by_tag(self) -> dict[str, float] | None:
        """Return the loss of each tag."""
        return None if self.by_tag is None else {name: part.loss for name, part in self.by_tag.items()}


@dataclass(frozen=True)
class Found:
    """What a rank has found: sums by source and, where it was asked for, by tag."""

    by_source: dict[str, Part] = field(default_factory=dict)
    by_tag: dict[str, Part] = field(default_factory=dict)


def evaluate(
    model: Decoder, packs: Packs, world: World, *, micro_batch: int, precision: Precision, kind: str | None = None
) -> Evaluation | None:
    """Return what `model` loses on all of `packs`, which the ranks share by their work; a rank may get none.

    `kind` is that of the tags that are told apart besides the sources, if any: see tags_of_kind. None when the packs hold
    nothing to predict. Raises DataError, on all ranks, for a damaged pack.
    """
    cost = costs(packs.n_tokens, packs.sum_squares, hidden_size=model.architecture.hidden_size)
    hand = deal(range(len(packs)), cost, world.size)[world.rank]
    own = world.together(lambda: parts_of(model, packs, hand, micro_batch=micro_batch, precision=precision, kind=kind))
    return merged(world.gather(own), kind)


def merged(ranks: Iterable[Found], kind: str | None = None) -> Evaluation | None:
    """Return what ranks have found together; None when there is no weight in it."""
    by_source: dict[str, Part] = {}
    by_tag: dict[str, Part] = {}
    for of_rank in ranks:
        for sums, own in ((by_source, of_rank.by_source), (by_tag, of_rank.by_tag)):
            for name, part in own.items():
                _add(sums, name, part)
    by_source, by_tag = ({name: part for name, part in sums.items() if part.weight} for sums in (by_source, by_tag))
    if not by_source:
        return None
    return Evaluation(by_source=_largest(by_source), by_tag=None if kind is None else _largest(by_tag))


def parts_of(
    model: Decoder,
    packs: Packs,
    hand: Sequence[int],
    *,
    micro_batch: int,
    precision: Precision,
    kind: str | None = None,
) -> Found:
    """Return what `model` loses on the packs `hand`, by source, and by tag where a `kind` of tags is given."""
    vocab_size = model.architecture.vocab_size
    groups = [hand[i : i + micro_batch] for i in range(0, len(hand), micro_batch)]
    batches = (packs.read(group, vocab_size=vocab_size) for group in groups)
    found = Found()
    for group, columns in zip(groups, conversation_losses(model, batches, precision=precision), strict=True):
        names = packs.ids(group)
        tags: Sequence[Sequence[str]] = packs.tags(group) if kind is not None else [()] * len(names)
        for name, own, loss_sum, weight, tokens in zip(names, tags, *(c.tolist() for c in columns), strict=True):
            part = Part(loss_sum=loss_sum, weight=weight, tokens=tokens)
            _add(found.by_source, source_of(name), part)
            for tag in tags_of_kind(own, kind) if kind is not None else ():
                _add(found.by_tag, tag, part)
    return found


def _add(sums: dict[str, Part], name: str, part: Part) -> None:
    sums[name] = sums.get(name, Part()) + part


def tags_of_kind(tags: Iterable[str], kind: str) -> list[str]:
    """Return the tags `<kind>:<name>`, each once; all tags for the kind "*", and `other` where there is none."""
    own = dict.fromkeys(tag for tag in tags if kind == ALL_TAGS or tag.startswith(f"{kind}:"))
    return list(own) or [OTHER]


def source_of(name: str) -> str:
    """Return the source of a conversation: its id is `<source>:<line>`, or `<source>:<line>#<n>` for a part of one."""
    return name.rpartition(":")[0] or name


def conversation_losses(
    model: Decoder, batches: Iterable[Batch], *, precision: Precision
) -> Iterator[tuple[Floats, Floats, Integers]]:
    """Yield, for each batch, what its conversations have: (sums of weight × loss, sums of weights, trained tokens).

    Each as float64 or int64 of the length of `batch.lengths`. Nothing is left out of the network (see dropout).
    """
    left = iter(batches)
    while group := list(islice(left, _AT_ONCE)):
        losses = [_row_losses(model, batch, precision) for batch in group]
        for batch, losses_S in zip(group, losses, strict=True):
            of_row_S, weights_S = documents_of(batch).numpy(), batch.weights_S.double().numpy()
            n, weighted_S = len(batch.lengths), weights_S * losses_S.double().cpu().numpy()
            tokens_D = np.bincount(of_row_S, minlength=n).astype(np.int64)
            yield _sums(of_row_S, weighted_S, n), _sums(of_row_S, weights_S, n), tokens_D


def _sums(of_row_S: Integers, values_S: Floats, n: int) -> Floats:
    return np.bincount(of_row_S, values_S, minlength=n).astype(np.float64)


def _row_losses(model: Decoder, batch: Batch, precision: Precision) -> Tensor:
    on_device = replace(batch, dropout_keys_T=None).to(precision.device)
    with torch.no_grad(), precision.autocast():
        return model.row_losses(on_device)


def _largest(found: dict[str, Part]) -> dict[str, Part]:
    ranked = sorted(found.items(), key=lambda item: (-item[1].tokens, item[0]))
    kept, rest = dict(ranked[:SOURCES]), [part for _, part in ranked[SOURCES:]]
    if rest or OTHER in kept:
        # a source of this very name would otherwise be replaced
        rest.append(kept.pop(OTHER, Part()))
        kept[OTHER] = _sum(rest)
    return kept


def _sum(parts: Iterable[Part]) -> Part:
    total = Part()
    for part in parts:
        total += part
    return total
