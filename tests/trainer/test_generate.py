"""Prompts read off packs, and seeded answers to them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.manifest import FileRecord
from schemas.models import Model
from trainer.answers.desk import Answer
from trainer.answers.generate import Prompt, generate, held_out_prompts
from trainer.data.packs import Packs
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise

WriteShard = Callable[[Path, str, list[dict[str, object]]], FileRecord]


def packs_of(stage: Path, write_shard: WriteShard, labels: list[list[int]]) -> Packs:
    rows = [
        {
            "ids": [f"a:{i}"],
            "split": "validation",
            "input_ids": list(range(10, 10 + len(row))),
            "labels": row,
            "loss_weights": None,
            "seq_lengths": [len(row)],
            "n_supervised": sum(label >= 0 for label in row),
            "weight_sum": float(sum(label >= 0 for label in row)),
        }
        for i, row in enumerate(labels)
    ]
    return Packs(stage, [write_shard(stage, "kept/validation/00000.arrow", rows)])


def test_a_prompt_ends_where_the_last_trained_turn_begins(tmp_path: Path, write_shard: WriteShard) -> None:
    packs = packs_of(tmp_path, write_shard, [[-100, -100, 12, 13, -100, -100, 16, 17, 18, -100]])
    assert held_out_prompts(packs, 3, seed=0, longest=99) == [
        Prompt(id="a:0", input_ids=(10, 11, 12, 13, 14, 15), expected_ids=(16, 17, 18))
    ]


def test_prompts_that_are_too_long_or_untrained_are_passed_over(tmp_path: Path, write_shard: WriteShard) -> None:
    packs = packs_of(tmp_path, write_shard, [[-100] * 5 + [15], [-100, -100], [-100, 11]])
    assert [prompt.id for prompt in held_out_prompts(packs, 3, seed=0, longest=4)] == ["a:2"]


def test_the_same_seed_gives_the_same_prompts(run: Path) -> None:
    from trainer.data.packs import read_manifest, split_files

    packs = Packs(run / "pack", split_files(read_manifest(run), "train"))
    first, again, other = (held_out_prompts(packs, 4, seed=seed, longest=99) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len({prompt.id for prompt in first}) == 4


@pytest.fixture
def model() -> Decoder:
    decoder = Decoder(new_architecture(Model(hidden_size=16, num_attention_heads=2), vocab_size=20))
    initialise(decoder, seed=3)
    with torch.no_grad():
        decoder.embed_tokens.weight.mul_(40)
    return decoder


def answer(model: Decoder, *, stop: set[int], temperature: float = 0.0, seed: int = 0, limit: int = 8) -> Answer:
    return generate(model, [1, 2, 3], stop_ids=stop, max_new_tokens=limit, temperature=temperature, seed=seed)


def test_greedy_answers_follow_the_likeliest_token_of_the_whole_text(model: Decoder) -> None:
    text = [1, 2, 3]
    with torch.no_grad():
        for _ in range(8):
            text.append(int(model.logits(torch.tensor(text), (len(text),))[-1].argmax()))
    assert answer(model, stop=set()) == Answer(ids=tuple(text[3:]), is_stopped=False)


def test_an_answer_ends_at_any_stop_token_and_keeps_it(model: Decoder) -> None:
    drawn = answer(model, stop=set(), temperature=3.0).ids
    stop = next(token for i, token in enumerate(drawn) if i > 1 and token not in drawn[:i])
    assert answer(model, stop={stop, 999}, temperature=3.0) == Answer(
        ids=drawn[: drawn.index(stop) + 1], is_stopped=True
    )


def test_drawn_answers_depend_on_the_seed_alone(model: Decoder) -> None:
    first, again, other = (answer(model, stop=set(), temperature=3.0, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
