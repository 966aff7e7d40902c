"""[model] and [train]: strict, bounded, and with one default each."""

from typing import Any

import msgspec
import pytest

from schemas.generation import Generation
from schemas.models import Model
from schemas.settings import ConfigError, decode_section
from schemas.training import Train


def decoded(kind: type[Any], **values: Any) -> Any:
    return decode_section({"it": values}, "it", kind, where="c.toml")


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Train, {"epochs": 1, "steps": 2}, "epochs = 1 and steps = 2 are both set; drop one"),
        (Train, {"warmup_steps": 1, "warmup_ratio": 0.1}, "both set; drop one"),
        (Train, {"batch": 0}, "batch = 0"),
        (Train, {"lr": 0.0}, "lr = 0.0"),
        (Train, {"lr": float("nan")}, "lr = nan"),
        (Train, {"min_lr_ratio": 1.5}, "min_lr_ratio = 1.5"),
        (Train, {"beta2": 1.0}, "beta2 = 1.0"),
        (Train, {"schedule": "cosin"}, "schedule = 'cosin'"),
        (Train, {"steps": "9"}, "steps = '9'"),
        (Train, {"stepz": 9}, "did you mean 'steps'?"),
        (Train, {"steps": 10**18}, "steps = 1000000000000000000"),
        (
            Train,
            {"schedule": "constant", "min_lr_ratio": 0.5},
            'min_lr_ratio = 0.5 does nothing with schedule = "constant"',
        ),
        (Train, {"export_weights": "best", "eval_every": 0}, "nothing is measured between the first step and the last"),
        (Train, {"phases": [{"name": "a\n"}]}, "phases[0].name"),
        (Generation, {"temperature": 1e-300}, "temperature = 1e-300: logits over so little are beyond all numbers"),
        (
            Model,
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "low_freq_factor": 1.0}},
            "not 'linear'; drop them",
        ),
        (Model, {"hidden_size": 100, "num_attention_heads": 3}, "no multiple of num_attention_heads 3"),
        (Model, {"hidden_size": 30, "num_attention_heads": 10}, "even head width"),
        (Model, {"num_attention_heads": 6, "num_key_value_heads": 4}, "num_key_value_heads 4 does not divide"),
        (Model, {"head_dim": 7}, "head_dim = 7"),
        (Model, {"path": "m", "rope_theta": 5.0}, "path and rope_theta are both set"),
        (Model, {"model_type": "gpt9"}, "model_type = 'gpt9'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind: type[Any], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decoded(kind, **values)
    assert said in str(caught.value)
    assert "c.toml" in str(caught.value)


def test_a_path_alone_and_sizes_alone_are_fine() -> None:
    assert decoded(Model, path="models/x").path == "models/x"
    assert decoded(Model, hidden_size=64, num_attention_heads=4, head_dim=32).head_dim == 32
    assert decoded(Train, clip=float("inf")).clip == float("inf")


def test_every_key_is_documented_below_its_default() -> None:
    import inspect

    for kind in (Model, Train):
        lines = inspect.getsource(kind).splitlines()
        for field in msgspec.structs.fields(kind):
            at = next(i for i, line in enumerate(lines) if line.startswith(f"    {field.name}: "))
            assert lines[at + 1].startswith('    """'), f"{kind.__name__}.{field.name}"


@pytest.mark.parametrize("name", ["lr", "weight_decay", "eps", "z_loss", "beta1", "min_lr_ratio", "clip"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_of_training_are_finite(name: str, value: float) -> None:
    if name == "clip" and value == float("inf"):
        assert msgspec.convert({name: value}, Train).clip == value
        return
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({name: value}, Train)


@pytest.mark.parametrize("name", ["rope_theta", "rms_norm_eps", "initializer_range"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_numbers_of_a_model_are_finite(name: str, value: float) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({name: value}, Model)


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        ({"rope_type": "linear", "factor": 0.0}, "> 0.0"),
        ({"rope_type": "linear", "factor": float("nan")}, "> 0.0"),
        ({"rope_type": "linear", "factor": "x"}, "Expected `float`, got `str`"),
        ({"rope_type": "yarn", "factor": 2.0}, "Invalid enum value 'yarn'"),
        ({"rope_type": "llama3", "factor": 2.0}, "needs low_freq_factor, high_freq_factor, original_max"),
    ],
)
def test_stretched_positions_are_checked_value_by_value(scaling: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert({"rope_scaling": scaling}, Model)
