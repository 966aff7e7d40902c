"""Decoding, beside the processors of transformers, and as a way to draw from a distribution."""

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from schemas.generation import Generation
from trainer.answers.decoding import draw, keep_top_k, keep_top_p, next_tokens, penalise
from trainer.errors import ModelError

NONE = torch.empty(0, dtype=torch.long)


def random_logits(*, seed: int = 0) -> Tensor:
    logits_BV = 4 * torch.randn(6, 50, generator=torch.Generator().manual_seed(seed))
    logits_BV[0, 10:20] = logits_BV[0, 3]  # ties, as a bfloat16 model makes them
    logits_BV[1, 5:] = -torch.inf
    return logits_BV


@pytest.mark.parametrize("k", [1, 2, 7, 50, 200])
def test_top_k_is_that_of_transformers(k: int) -> None:
    logits_BV = random_logits()
    assert torch.equal(keep_top_k(logits_BV, k), TopKLogitsWarper(k)(NONE, logits_BV))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_top_p_is_that_of_transformers(p: float) -> None:
    logits_BV = random_logits()
    ours = keep_top_p(logits_BV, p)
    assert torch.equal(ours, TopPLogitsWarper(p)(NONE, logits_BV))
    kept_B = ours.isfinite().sum(-1)
    assert kept_B.min() >= 1
    # the fewest: without the least likely of them they would not reach p
    probabilities_BV = logits_BV.softmax(-1)
    for row in range(2, 6):
        kept = probabilities_BV[row][ours[row].isfinite()]
        assert float(kept.sum()) >= p - 1e-6
        assert float(kept.sum() - kept.min()) < p


@pytest.mark.parametrize("penalty", [1.0, 1.3, 50.0])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    logits_BV = random_logits()
    ids_BT = torch.randint(0, 50, (6, 12), generator=torch.Generator().manual_seed(1))
    ids_BT[:, 5] = ids_BT[:, 0]  # what was said twice counts once
    seen_BV = torch.zeros(6, 50, dtype=torch.bool).scatter(1, ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))
    assert torch.equal(
        penalise(logits_BV, seen_BV, penalty), RepetitionPenaltyLogitsProcessor(penalty)(ids_BT, logits_BV)
    )


def test_all_of_them_come_in_the_order_of_transformers() -> None:
    settings = Generation(temperature=0.7, top_k=9, top_p=0.8, repetition_penalty=1.5)
    logits_BV = random_logits()[2:3]
    ids_BT = torch.tensor([[3, 4, 5, 3]])
    theirs = logits_BV
    for change in (
        RepetitionPenaltyLogitsProcessor(1.5),
        TemperatureLogitsWarper(0.7),
        TopKLogitsWarper(9),
        TopPLogitsWarper(0.8),
    ):
        theirs = change(ids_BT, theirs)
    seen_V = torch.zeros(50, dtype=torch.bool)
    seen_V[ids_BT[0]] = True
    n = 4000
    generator = torch.Generator().manual_seed(0)
    drawn = next_tokens(logits_BV.expand(n, -1), settings, [generator] * n, [seen_V] * n)
    counts_V = torch.bincount(torch.tensor(drawn), minlength=50)
    expected_V = n * theirs.softmax(-1)[0]
    assert counts_V[expected_V == 0].sum() == 0
    is_kept_V = expected_V > 0
    deviation = ((counts_V - expected_V)[is_kept_V] ** 2 / expected_V[is_kept_V]).sum()
    assert deviation < 4 * is_kept_V.sum(), "chi-square"


def test_at_temperature_0_the_likeliest_token_is_taken_and_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    logits_BV = torch.tensor([[1.0, 3.0, 2.0]])
    assert next_tokens(logits_BV, Generation(), [generator], []) == [1]
    penalised = Generation(repetition_penalty=2.0)
    assert next_tokens(logits_BV, penalised, [generator], [torch.tensor([False, True, False])]) == [2]
    assert torch.equal(generator.get_state(), before)


def test_a_chance_falls_on_the_token_that_covers_it_and_never_on_an_impossible_one() -> None:
    logits_BV = torch.tensor([[0.0, 0.25, 0.5, 0.0, 0.25, 0.0]]).log()
    chances = [0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53]
    assert draw(logits_BV.expand(6, -1), chances).tolist() == [1, 1, 2, 2, 4, 4]


@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_number_is_said_and_no_token_is_made_of_it(temperature: float, wrong: float) -> None:
    logits_BV = random_logits()
    logits_BV[2, 7] = wrong
    with pytest.raises(ModelError, match="is no number"):
        next_tokens(logits_BV, Generation(temperature=temperature), [torch.Generator() for _ in logits_BV], [])
