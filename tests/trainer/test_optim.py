"""The learning rate of every step, by hand."""

import pytest

from schemas.training import Train
from trainer.optim import learning_rate


def rates(n_steps: int, **settings: object) -> list[float]:
    train = Train(lr=1.0, min_lr_ratio=0.2, **settings)  # type: ignore[arg-type]
    return [learning_rate(step, n_steps=n_steps, train=train) for step in range(n_steps)]


def test_linear() -> None:
    assert rates(4, schedule="linear") == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_constant_after_a_warm_up_of_a_share_of_the_steps() -> None:
    assert rates(8, schedule="constant", warmup_ratio=0.5) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0])


def test_cosine_is_halfway_in_the_middle() -> None:
    assert rates(10, schedule="cosine", warmup_steps=2) == pytest.approx(
        [0.5, 1.0, 1.0, 0.96955, 0.88284, 0.75307, 0.6, 0.44693, 0.31716, 0.23045], abs=1e-5
    )


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    assert rates(3, warmup_steps=6) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
