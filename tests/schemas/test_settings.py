from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import msgspec
import pytest

from schemas.models import Lora
from schemas.settings import _ELSEWHERE, ConfigError, apply_overrides, check_names, decode_section, read_toml
from schemas.training import Train
from stages.pack import Pack
from trainer.job import SECTIONS


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["a", "b"] = msgspec.field(name="class", default="a")


class Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    min_chars: Annotated[int, msgspec.Meta(ge=0)] = 1
    ratio: float = 0.5
    names: tuple[str, ...] = ()
    rules: tuple[Rule, ...] | None = None
    table: dict[Literal["x", "y"], dict[Literal["z"], Literal[1, 2]]] = {}
    order: Literal["up", "down"] | tuple[Literal["up", "down"], ...] = "up"


def decode(section: object) -> Bounds:
    return decode_section({"bounds": section}, "bounds", Bounds, where="my.toml")


def test_absent_keys_have_their_defaults():
    assert decode({"min_chars": 3}) == Bounds(min_chars=3)
    assert decode_section({}, "bounds", Bounds, where="my.toml") == Bounds()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"min_char": 3}, "my.toml: [bounds] unknown key 'min_char'; did you mean 'min_chars'?"),
        ({"zzz": 3}, "my.toml: [bounds] unknown key 'zzz'; known: min_chars, names, order, ratio, rules, table"),
        ({"min_chars": "3"}, "my.toml: [bounds] min_chars = '3': expected `int`, got `str`"),
        ({"min_chars": -1}, "my.toml: [bounds] min_chars = -1: expected `int` >= 0"),
        ({"names": ["a", 3]}, "my.toml: [bounds] names[1] = 3: expected `str`, got `int`"),
        (
            {"names": "a"},
            "my.toml: [bounds] names = 'a': expected `array`, got `str`; write brackets around it, also where there is only one",
        ),
        ({"names": {"a": 1}}, "my.toml: [bounds] names = {'a': 1}: expected `array`, got `object`"),
        (7, "my.toml: bounds must be a section, [bounds]; got 7"),
    ],
)
def test_a_wrong_setting_names_file_key_found_and_expected(section, said):
    with pytest.raises(ConfigError) as error:
        decode(section)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"rules": [{"class": "c"}]},
            "rules[0].class = 'c': invalid enum value 'c'; choose one of 'a', 'b'",
        ),
        ({"rules": [{}, {"class": 3}]}, "rules[1].class = 3: expected `str`, got `int`"),
        ({"rules": [{}, {"clas": "a"}]}, "object contains unknown field `clas`; did you mean 'class'?"),
        ({"table": {"w": {}}}, "invalid enum value 'w'; choose one of 'x', 'y'"),
        ({"table": {"x": {"w": 1}}}, "invalid enum value 'w'; choose one of 'z'"),
        ({"order": "side"}, "invalid enum value 'side'; choose one of 'up', 'down'"),
        ({"table": {"x": {"z": 3}}}, "invalid enum value 3; choose one of 1, 2"),
    ],
)
def test_a_wrong_choice_inside_a_setting_names_the_choices_at_that_place(section, said):
    with pytest.raises(ConfigError) as error:
        decode(section)
    assert str(error.value).endswith(said)


def test_a_table_of_several_in_single_brackets_is_told_how_it_is_written():
    class Listed(msgspec.Struct, frozen=True):
        rules: tuple[Rule, ...] = ()

    with pytest.raises(ConfigError) as error:
        decode_section({"bounds": {"rules": {"class": "a"}}}, "bounds", Listed, where="my.toml")
    assert str(error.value).endswith(
        "expected `array`, got `object`; a table of several begins with two brackets: [[bounds.rules]]"
    )


def test_an_unknown_section_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match="unknown section 'lenght'; did you mean 'length'"):
        check_names({"lenght": {}}, ["length", "run"], where="my.toml")


def test_overrides_are_toml_values_or_else_plain_text():
    document = {"run": "a", "bounds": {"min_chars": 1}}
    changed = apply_overrides(document, ["bounds.min_chars=20", "run=runs/x", 'bounds.names=["a"]', "new.key=true"])
    assert changed == {"run": "runs/x", "bounds": {"min_chars": 20, "names": ["a"]}, "new": {"key": True}}
    assert document == {"run": "a", "bounds": {"min_chars": 1}}


@pytest.mark.parametrize("assignment", ["min_chars", "=3", "a.b.c=3", "run.x=1"])
def test_an_override_that_is_no_assignment_is_refused(assignment):
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides({"run": "a"}, [assignment])


def test_a_missing_or_broken_file_says_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such config file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("section", "kind", "theirs", "ours"),
    [
        ("train", Train, "learning_rate", "lr"),
        ("train", Train, "per_device_train_batch_size", "micro_batch"),
        ("lora", Lora, "r", "rank"),
        ("lora", Lora, "target_modules", "targets"),
    ],
)
def test_what_other_trainers_call_a_setting_is_known(section: str, kind: type, theirs: str, ours: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key '{theirs}'; it is called '{ours}' here"):
        decode_section({section: {theirs: 1}}, section, kind, where="my.toml")


def test_every_name_that_is_translated_leads_to_a_setting() -> None:
    known = {name for kind in (*SECTIONS.values(), Pack) for name in get_type_hints(kind)}
    assert set(_ELSEWHERE.values()) <= known


def test_steps_on_the_command_line_replace_the_epochs_of_the_file() -> None:
    document = {"train": {"epochs": 2.0, "warmup_ratio": 0.1}}
    assert apply_overrides(document, ["train.steps=9"]) == {"train": {"steps": 9, "warmup_ratio": 0.1}}
    assert apply_overrides(document, ["train.warmup_steps=3"]) == {"train": {"epochs": 2.0, "warmup_steps": 3}}
    # both at once is a contradiction, which the section itself refuses
    both = apply_overrides(document, ["train.steps=9", "train.epochs=1"])
    assert both == {"train": {"steps": 9, "epochs": 1, "warmup_ratio": 0.1}}
    with pytest.raises(ConfigError, match="epochs = 1 and steps = 9 are both set"):
        decode_section(both, "train", Train, where="my.toml")
