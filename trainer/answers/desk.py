"""Where several answers are written side by side: when one ends, the next prompt takes its place."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
import torch
from torch import Tensor

from schemas.generation import Generation
from trainer.answers.decoding import next_tokens
from trainer.model.cache import Cache
from trainer.model.decoder import Decoder

PROMPT_TOKENS: Final = 16_384
"""New prompts are taken for a step until they have so many tokens together, which bounds its memory."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the model wrote."""

    ids: tuple[int, ...]
    """The stop token included, if it came."""
    is_stopped: bool
    """Whether it ended on a stop token, not at the limit."""


class Written(NamedTuple):
    """One new token."""

    key: int
    """Of the prompt."""
    token: int
    answer: Answer | None
    """The whole answer, if this token is its last."""


@dataclass(kw_only=True)
class _Open:
    """An answer that is being written."""

    key: int
    ids: list[int]
    """Of the prompt and the answer."""
    n_prompt: int
    limit: int
    generator: torch.Generator
    seen_V: Tensor = field(default_factory=lambda: torch.empty(0))
    """Which tokens are among `ids`; kept with a repetition penalty alone."""


class Desk:
    """At most `settings.batch` answers of one model that are written side by side.

    A step reads what is new of every document, all of a new prompt and one token of the others, and writes a token of each.
    Each document has a generator of its own; its answer depends on its neighbours by rounding alone. Once an answer has
    ended, what the model read of it is kept until its place is needed: a prompt that begins alike is read from there on.
    """

    def __init__(self, model: Decoder, settings: Generation, *, stop_ids: Collection[int]) -> None:
        self.model, self.settings, self.stop_ids = model, settings, frozenset(stop_ids)
        self.room = model.architecture.max_position_embeddings
        self._open: list[_Open] = []
        self._cache = Cache(model.architecture.num_hidden_layers)
        self._kept: list[int] = []
        """What the cache has read, where nothing is open and it still holds the last document."""

    @property
    def n_open(self) -> int:
        """Return how many answers are being written."""
        return len(self._open)

    @property
    def is_full(self) -> bool:
        """Tell whether no further prompt can be taken before the next step."""
        unread = sum(one.n_prompt for one in self._open[len(self._cache.lengths) :])
        return len(self._open) >= self.settings.batch or unread >= PROMPT_TOKENS

    def problem(self, input_ids: Sequence[int]) -> str | None:
        """Return why no answer can be written to a prompt, or None."""
        n, size = len(input_ids), self.model.architecture.vocab_size
        if n == 0:
            return "the prompt has no tokens"
        if n >= self.room:
            return f"the prompt has {n} tokens; the model is made for {self.room} (max_position_embeddings), answer included"
        if not 0 <= min(input_ids) <= max(input_ids) < size:
            return f"the prompt has the token {max(input_ids)}, the model knows 0 to {size - 1}: is the tokenizer the model's?"
        return None

    def add(self, key: int, input_ids: Sequence[int], *, seed: int) -> None:
        """Take a prompt without a `problem`, whose answer draws from a generator seeded with `seed`.

        The answer ends at [generation] max_new_tokens, and where the model's positions end.
        """
        assert not self.is_full
        assert self.problem(input_ids) is None
        n = len(input_ids)
        limit = min(self.settings.max_new_tokens, self.room - n)
        generator = torch.Generator().manual_seed(seed)
        new = _Open(key=key, ids=list(input_ids), n_prompt=n, limit=limit, generator=generator)
        if self.settings.repetition_penalty != 1:
            size, device = self.model.architecture.vocab_size, self.model.head_VC.device
            new.seen_V = torch.zeros(size, dtype=torch.bool, device=device)
            new.seen_V[torch.tensor(new.ids, device=device)] = True
        if self._kept:
            # the last token is read anew, for its successor is what is asked for
            self._cache.cut(0, min(_n_alike(self._kept, new.ids), n - 1))
            self._kept = []
        self._open.append(new)

    def drop(self, key: int) -> tuple[int, ...] | None:
        """Write no further on the answer to the prompt `key`; return what there is of it, None if it is not open."""
        for document, one in enumerate(self._open):
            if one.key == key:
                self._remove(document)
                return tuple(one.ids[one.n_prompt :])
        return None

    @torch.no_grad()
    def step(self) -> list[Written]:
        """Write one token of each open answer, in the order of their places, and let go of those that end with it."""
        known = self._cache.lengths + [0] * (len(self._open) - len(self._cache.lengths))
        last_BC = self._read([one.ids[n:] for one, n in zip(self._open, known, strict=True)], known)
        logits_BV = self.model.head(last_BC)
        generators, seen = [one.generator for one in self._open], [one.seen_V for one in self._open]
        written = [
            self._write(one, token)
            for one, token in zip(self._open, next_tokens(logits_BV, self.settings, generators, seen), strict=True)
        ]
        # from the last on: the one that takes the place of another has been looked at
        for document in reversed(range(len(written))):
            if written[document].answer is not None:
                self._remove(document)
        return written

    def _read(self, new: list[list[int]], known: list[int]) -> Tensor:
        """Return the last state of each document, [B, C], after reading what is `new` of it."""
        device = self.model.head_VC.device
        lengths = [len(ids) for ids in new]
        ids_T = torch.tensor([i for ids in new for i in ids], device=device)
        at_T = torch.tensor(
            [i for n, length in zip(known, lengths, strict=True) for i in range(n, n + length)], device=device
        )
        hidden_TC = self.model.hidden(ids_T, at_T, lengths, self._cache)
        return hidden_TC[torch.tensor(lengths).cumsum(0).to(device) - 1]

    def _write(self, one: _Open, token: int) -> Written:
        one.ids.append(token)
        if len(one.seen_V):
            one.seen_V[token] = True
        is_stopped = token in self.stop_ids
        answer = None
        if is_stopped or len(one.ids) - one.n_prompt >= one.limit:
            answer = Answer(ids=tuple(one.ids[one.n_prompt :]), is_stopped=is_stopped)
        return Written(one.key, token, answer)

    def _remove(self, document: int) -> None:
        n_read = len(self._cache.lengths)
        if len(self._open) == n_read == 1:
            self._kept = self._open[0].ids[: self._cache.lengths[0]]
        elif document < n_read:
            self._cache.remove(document)
            self._open[document] = self._open[n_read - 1]
            document = n_read - 1
        del self._open[document]


def _n_alike(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two documents have in common from the first on."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
