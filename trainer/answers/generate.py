"""Prompts from held-out conversations, and the answers to prompts."""

from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from schemas.generation import Generation
from trainer.answers.desk import Answer, Desk
from trainer.data.packs import Packs
from trainer.data.stream import order
from trainer.model.decoder import Decoder


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation up to its last trained turn, and that turn."""

    id: str
    input_ids: tuple[int, ...]
    expected_ids: tuple[int, ...]


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


def answers(
    model: Decoder, prompts: Sequence[Sequence[int]], *, settings: Generation, stop_ids: Collection[int], seed: int
) -> list[Answer]:
    """Return the answer to each prompt, in their order; prompt i draws from seed + i, whatever is written beside it.

    Every prompt must leave room for an answer (Desk.problem).
    """
    desk = Desk(model, settings, stop_ids=stop_ids)
    found: dict[int, Answer] = {}
    waiting = iter(enumerate(prompts))
    coming = next(waiting, None)
    while coming is not None or desk.n_open:
        while coming is not None and not desk.is_full:
            desk.add(coming[0], coming[1], seed=seed + coming[0])
            coming = next(waiting, None)
        found |= {written.key: written.answer for written in desk.step() if written.answer is not None}
    return [found[i] for i in range(len(prompts))]


def generate(
    model: Decoder,
    input_ids: Sequence[int],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Answer:
    """Return the model's continuation of one prompt, up to the first stop token or the limit."""
    settings = Generation(max_new_tokens=max_new_tokens, temperature=temperature)
    return answers(model, [input_ids], settings=settings, stop_ids=stop_ids, seed=seed)[0]
