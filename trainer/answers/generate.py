"""Answers to held-out prompts: what a person looks at before and after training."""

from collections.abc import Collection, Sequence

import msgspec
import numpy as np
import torch
from torch.nn import functional

from trainer.data.packs import Packs
from trainer.data.stream import order
from trainer.model.decoder import Cache, Decoder


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation up to its last trained turn, and that turn."""

    id: str
    input_ids: tuple[int, ...]
    expected_ids: tuple[int, ...]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the model wrote."""

    ids: tuple[int, ...]
    """The stop token included, if it came."""
    is_stopped: bool
    """Whether it ended on a stop token, not at the limit."""


def held_out_prompts(packs: Packs, n: int, *, seed: int, longest: int) -> list[Prompt]:
    """Return up to `n` prompts of at most `longest` tokens, from packs in a seeded order; the same seed, the same ones.

    A prompt ends where the last run of trained labels of a conversation begins, so no template is needed.
    """
    prompts: list[Prompt] = []
    for pack in order(len(packs), seed=seed, epoch=0).tolist():
        ids, labels = packs.tokens(pack)
        names = packs.ids([pack])
        ends = np.cumsum(packs.document_lengths(pack))
        # one conversation of a pack, so that the samples come from many packs
        for which in order(len(ends), seed=seed, epoch=1 + pack).tolist():
            end = int(ends[which])
            start = end - int(packs.document_lengths(pack)[which])
            trained = np.flatnonzero(labels[start:end] != -100)
            if not len(trained):
                continue
            last = int(trained[-1])
            gaps = np.flatnonzero(np.diff(trained) > 1)
            first = int(trained[gaps[-1] + 1]) if len(gaps) else int(trained[0])
            if not 0 < first <= longest:
                continue
            document = ids[start:end].tolist()
            prompts.append(
                Prompt(
                    id=names[which], input_ids=tuple(document[:first]), expected_ids=tuple(document[first : last + 1])
                )
            )
            break
        if len(prompts) == n:
            break
    return prompts


@torch.no_grad()
def generate(
    model: Decoder,
    input_ids: Sequence[int],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Answer:
    """Return the model's continuation of `input_ids`, up to the first stop token or the limit.

    Temperature 0 takes the likeliest token; otherwise tokens are drawn from a generator seeded with `seed`.
    """
    device = model.head_VC.device
    generator = torch.Generator().manual_seed(seed)
    cache = Cache(model.architecture.num_hidden_layers)
    new = list(input_ids)
    answer: list[int] = []
    while len(answer) < max_new_tokens:
        start = cache.n_tokens
        ids_T = torch.tensor(new, device=device)
        at_T = torch.arange(start, start + len(new), device=device)
        last_C = model.hidden(ids_T, at_T, (len(new),), cache)[-1]
        logits_V = functional.linear(last_C, model.head_VC).float().cpu()
        if temperature > 0:
            chosen = int(torch.multinomial((logits_V / temperature).softmax(0), 1, generator=generator))
        else:
            chosen = int(logits_V.argmax())
        answer.append(chosen)
        if chosen in stop_ids:
            return Answer(ids=tuple(answer), is_stopped=True)
        new = [chosen]
    return Answer(ids=tuple(answer), is_stopped=False)
