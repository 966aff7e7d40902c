"""Prompts read off packs, and seeded answers to them."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from schemas.generation import Generation
from schemas.manifest import FileRecord
from schemas.models import Model
from trainer.answers.decoding import next_tokens
from trainer.answers.desk import Answer, Desk
from trainer.answers.generate import Prompt, answers, generate, held_out_prompts
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


PROMPTS = [[1, 2, 3], [4] * 9, [5], [6, 7], [8, 9, 10, 11], [3, 2, 1], [12] * 5]
STOPS = {"llama": {13}, "mistral": {13}, "gpt2": {2, 13, 17}}
"""Tokens that end some of the answers, and not all."""


def a_model(family: str) -> Decoder:
    """A model of random weights large enough to matter, in float64, where rounding decides nothing."""
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 40}
    options: dict[str, dict[str, object]] = {
        "llama": {"num_key_value_heads": 2},
        "mistral": {"model_type": "mistral", "num_key_value_heads": 1},
        "gpt2": {"model_type": "gpt2"},
    }
    architecture = new_architecture(msgspec.convert(sizes | options[family], Model), vocab_size=20)
    if family == "mistral":
        architecture = msgspec.structs.replace(architecture, sliding_window=4)
    decoder = Decoder(architecture)
    initialise(decoder, seed=3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return decoder.double().eval()


def one_by_one(model: Decoder, settings: Generation, stops: set[int], seed: int) -> list[Answer]:
    """The slow way: the whole text is read again for each token, and no cache is kept."""
    found = []
    for i, prompt in enumerate(PROMPTS):
        text, generator = list(prompt), torch.Generator().manual_seed(seed + i)
        limit = min(settings.max_new_tokens, 40 - len(prompt))
        while len(text) < len(prompt) + limit and (len(text) == len(prompt) or text[-1] not in stops):
            with torch.no_grad():
                logits_V = model.logits(torch.tensor(text), (len(text),))[-1]
            seen_V = torch.zeros(20, dtype=torch.bool)
            seen_V[text] = True
            text += next_tokens(logits_V[None], settings, [generator], [seen_V])
        found.append(Answer(ids=tuple(text[len(prompt) :]), is_stopped=text[-1] in stops))
    return found


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_answers_written_side_by_side_are_those_written_alone(family: str) -> None:
    model = a_model(family)
    settings = Generation(max_new_tokens=30, temperature=1.5, top_k=15, top_p=0.98, repetition_penalty=1.2)
    expected = one_by_one(model, settings, STOPS[family], seed=5)
    assert {answer.is_stopped for answer in expected} == {True, False}
    for batch in (1, 3, 7, 64):
        ours = msgspec.structs.replace(settings, batch=batch)
        assert answers(model, PROMPTS, settings=ours, stop_ids=STOPS[family], seed=5) == expected


def test_an_answer_ends_where_the_positions_of_the_model_do() -> None:
    model = a_model("gpt2")
    settings = Generation(max_new_tokens=99, batch=2)
    found = answers(model, [[1] * 39, [2] * 30, [3]], settings=settings, stop_ids=(), seed=0)
    assert [len(answer.ids) for answer in found] == [1, 10, 39]
    assert Desk(model, settings, stop_ids=()).problem([1] * 40) == (
        "the prompt has 40 tokens; the model is made for 40 (max_position_embeddings), answer included"
    )


def test_a_prompt_of_another_vocabulary_is_a_problem() -> None:
    desk = Desk(a_model("llama"), Generation(), stop_ids=())
    assert desk.problem([]) == "the prompt has no tokens"
    assert str(desk.problem([3, 20])).startswith("the prompt has the token 20, the model knows 0 to 19")
    assert desk.problem([0, 19]) is None


def test_a_conversation_that_goes_on_is_read_from_where_it_was_left() -> None:
    model = a_model("llama")
    read: list[int] = []
    model.embed_tokens.register_forward_hook(lambda _, given, __: read.append(len(given[0])))
    settings = Generation(max_new_tokens=4)
    desk = Desk(model, settings, stop_ids=())

    def ask(ids: list[int]) -> list[int]:
        desk.add(0, ids, seed=0)
        while True:
            if (answer := desk.step()[0].answer) is not None:
                return list(answer.ids)

    first = ask([1, 2, 3, 4, 5])
    assert read == [5, 1, 1, 1]
    longer = [1, 2, 3, 4, 5, *first, 6, 7]
    second = ask(longer)
    assert read[4:] == [3, 1, 1, 1]  # the last token of an answer was never read
    other = [1, 2, 9, 9]
    third = ask(other)
    assert read[8:] == [2, 1, 1, 1]
    assert ask(other) == third
    assert read[12:] == [1, 1, 1, 1]
    for prompt, answer in ((longer, second), (other, third)):
        fresh = answers(model, [prompt], settings=settings, stop_ids=(), seed=0)
        assert list(fresh[0].ids) == answer


def test_an_answer_that_is_dropped_leaves_the_others_as_they_are() -> None:
    model = a_model("llama")
    settings = Generation(max_new_tokens=6, batch=4)
    desk = Desk(model, settings, stop_ids=())
    for key in (0, 1, 2):
        desk.add(key, PROMPTS[key], seed=0)
    desk.step()
    desk.step()
    desk.add(3, PROMPTS[3], seed=0)
    assert len(desk.drop(0) or ()) == 2
    assert desk.drop(0) is None
    found = {}
    while desk.n_open:
        found |= {key: answer for key, _, answer in desk.step() if answer is not None}
    expected = answers(model, PROMPTS[:4], settings=settings, stop_ids=(), seed=0)
    assert found == {key: expected[key] for key in (1, 2, 3)}


def test_prompts_of_one_step_are_bounded_together() -> None:
    desk = Desk(a_model("llama"), Generation(max_new_tokens=2, batch=1000), stop_ids=())
    n = 0
    while not desk.is_full:
        desk.add(n, [1] * 30, seed=0)
        n += 1
    assert n == -(-16_384 // 30)
    desk.step()
    assert not desk.is_full
