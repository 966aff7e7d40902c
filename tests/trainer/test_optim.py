"""The learning rate of every step, by hand, and which weights have one of their own."""

import pytest
import torch

from schemas.models import Lora
from schemas.settings import ConfigError
from schemas.training import Group, Train
from tests.trainer.tiny import tiny_batch, tiny_model
from trainer.model.decoder import Decoder
from trainer.model.lora import adapt
from trainer.optim import learning_rate, make_adamw, parameter_groups, set_learning_rate
from trainer.trainable import select


def rates(n_steps: int, **settings: object) -> list[float]:
    least = {} if settings.get("schedule") == "constant" else {"min_lr_ratio": 0.2}
    train = Train(lr=1.0, **least, **settings)  # type: ignore[arg-type]
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


def groups_of(model: Decoder, *groups: Group) -> list[tuple[set[str], float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = parameter_groups(model, Train(weight_decay=0.1, groups=groups))
    return [({names[id(p)] for p in group["params"]}, group["weight_decay"], group["lr_scale"]) for group in found]


def of(model: Decoder, *parts: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if any(part in name for part in parts)}


def test_matrices_decay_norms_and_biases_do_not() -> None:
    model = tiny_model("gpt2")
    vectors = {name for name, parameter in model.named_parameters() if parameter.dim() == 1}
    assert vectors == of(model, "norm", ".bias")
    everything = {name for name, _ in model.named_parameters()}
    assert groups_of(model) == [(everything - vectors, 0.1, 1.0), (vectors, 0.0, 1.0)]


def test_the_first_group_that_matches_counts() -> None:
    model = tiny_model("qwen2", tie_word_embeddings=False)
    first, second = Group(pattern=r"layers\.0\.", lr_scale=0.5), Group(pattern="mlp|lm_head", weight_decay=0.0)
    assert groups_of(model, first, second) == [
        (of(model, "layers.0.") - of(model, "layernorm", ".bias"), 0.1, 0.5),
        (of(model, "layers.0.") & of(model, "layernorm", ".bias"), 0.0, 0.5),
        (of(model, "layers.1.mlp", "lm_head"), 0.0, 1.0),
        (of(model, "embed_tokens", "layers.1.self_attn") - of(model, ".bias"), 0.1, 1.0),
        (of(model, "layers.1.") & of(model, "layernorm", ".bias") | {"norm.weight"}, 0.0, 1.0),
    ]


def test_adapters_can_have_a_rate_of_their_own() -> None:
    model = tiny_model()
    adapt(model, Lora(rank=2, targets=("q_proj",)), seed=0)
    select(model, None)
    b = of(model, "lora_B")
    assert groups_of(model, Group(pattern="lora_B", lr_scale=16.0)) == [(b, 0.1, 16.0), (of(model, "lora_A"), 0.1, 1.0)]
    # q_proj is a third of a matrix which does not learn, and the whole of its adapter
    assert groups_of(model, Group(pattern="q_proj", lr_scale=2.0)) == [(of(model, "lora_"), 0.1, 2.0)]


def test_a_rate_times_its_factor_moves_each_weight_as_far_as_adamw_says() -> None:
    model = tiny_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train = Train(eps=1e-12, groups=(Group(pattern="mlp", lr_scale=0.25), Group(pattern="embed", lr_scale=0.0)))
    optimizer = make_adamw(model, train)
    model(tiny_batch(30)).objective.backward()
    set_learning_rate(optimizer, 0.01)
    optimizer.step()
    # the first step of Adam is the sign of the gradient times the rate
    for name, parameter in model.named_parameters():
        expected = 0.0025 if "mlp" in name else 0.0 if "embed" in name else 0.01
        moved = (parameter.detach() - before[name]).abs().max()
        assert torch.isclose(moved, torch.tensor(expected), rtol=1e-3), name


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ((Group(pattern="lm_hed"),), "[[train.groups]] 1, pattern: 'lm_hed' matches nothing; did you mean lm_head?"),
        (
            (Group(pattern="v_proj"),),
            "[[train.groups]] 1, pattern: 'v_proj' matches model.layers.0.self_attn.v_proj.weight alone",
        ),
        (
            (Group(pattern="mlp"), Group(pattern="down")),
            "[[train.groups]] 2, pattern: groups before it have all that 'down'",
        ),
        ((Group(pattern="embed"),), "[[train.groups]] 1, pattern: what 'embed' matches does not learn"),
        ((Group(pattern="norm", weight_decay=0.1),), "'norm' matches norms and biases only, which never decay"),
    ],
)
def test_a_group_that_would_do_nothing_is_refused(groups: tuple[Group, ...], said: str) -> None:
    model = tiny_model(tie_word_embeddings=False)
    select(model, ("layers", "norms", "head"))
    with pytest.raises(ConfigError) as caught:
        parameter_groups(model, Train(groups=groups))
    assert said in str(caught.value)
