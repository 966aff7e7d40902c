"""What makes two runs the same, and what does not."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.manifest import FileRecord
from schemas.models import Model
from schemas.settings import ConfigError
from schemas.training import Train
from trainer.job import Job
from trainer.model.architecture import new_architecture
from trainer.plan import identity, make_schedule

FILES = {
    "train": [FileRecord(path="kept/train/00000.arrow", rows=9, bytes=1, sha256="a")],
    "validation": [FileRecord(path="kept/validation/00000.arrow", rows=9, bytes=1, sha256="b")],
}


def plan_of(
    train: Train | None = None,
    *,
    model: Model | None = None,
    seed: int = 0,
    files: dict[str, list[FileRecord]] = FILES,
    dtype: str = "float32",
    vocab_size: int = 9,
) -> dict[str, Any]:
    train = train or Train(steps=9)
    job = Job(run=Path("r"), seed=seed, model=Model(), train=train, resume="")
    architecture = new_architecture(model or Model(), vocab_size=vocab_size)
    return identity(job, make_schedule(9, train), files, architecture, dtype)


def test_everything_that_changes_the_weights_changes_it() -> None:
    plan = plan_of()
    other_file = msgspec.structs.replace(FILES["validation"][0], sha256="c")
    for other in (
        plan_of(seed=1),
        plan_of(dtype="bfloat16"),
        plan_of(vocab_size=10),
        plan_of(model=Model(model_type="qwen3")),
        plan_of(files=FILES | {"validation": [other_file]}),
        plan_of(files=FILES | {"train": [other_file]}),
        plan_of(Train(steps=10)),
        plan_of(Train(steps=9, min_lr_ratio=0.5)),
        plan_of(Train(steps=9, warmup_ratio=0.5)),
        plan_of(Train(steps=9, clip=2.0)),
    ):
        assert other != plan


def test_what_does_not_is_absent() -> None:
    same = Train(
        steps=9, micro_batch=4, eval_every=3, log_every=7, n_samples=0, export_dtype="bfloat16", warmup_steps=0
    )
    assert plan_of(same) == plan_of()
    # nine packs, eight a step: two steps an epoch
    assert plan_of(Train(epochs=2)) == plan_of(Train(steps=4))


def test_a_constant_rate_does_not_know_how_long_it_lasts_but_its_warm_up_does() -> None:
    assert plan_of(Train(schedule="constant", steps=9)) == plan_of(Train(schedule="constant", steps=99))
    warm = {"schedule": "constant", "warmup_ratio": 0.5}
    assert plan_of(msgspec.convert(warm | {"steps": 10}, Train)) != plan_of(
        msgspec.convert(warm | {"steps": 20}, Train)
    )


@pytest.mark.parametrize("train", [Train(steps=4, warmup_steps=4), Train(steps=4, warmup_ratio=1.0)])
def test_a_warm_up_that_never_ends_is_refused(train: Train) -> None:
    with pytest.raises(ConfigError, match="would last 4 of 4 steps"):
        make_schedule(9, train)
