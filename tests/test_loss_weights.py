"""A loss weight, from the line that states it to the pack that is trained on; through a real build."""

import json
from pathlib import Path

import polars as pl
import pytest

from pipeline.config import load_config
from pipeline.graph import GRAPH
from pipeline.look import look
from pipeline.run import build
from schemas.errors import GateError
from schemas.manifest import read_manifest
from schemas.settings import ConfigError
from tests.corpus import write_config

ANSWERS = {
    "plain": {},
    "untrained": {"train": False},
    "trained": {"train": True},
    "weight": {"weight": 0.5},
    "loss_weight": {"loss_weight": 0.25},
    "zero": {"weight": 0},
}
"""What the first of two answers has besides role and content."""

NO_STOPS = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% else %}"
    "<|im_start|>assistant\n{{ m.content }}{{ '<|im_end|>' if 'first' not in m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_lines(path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for number, (name, extra) in enumerate(ANSWERS.items()):
            messages = [
                {"role": "user", "content": f"{name}: what comes out of case {number}?"},
                {"role": "assistant", "content": f"My first answer to {name} is {number}.", **extra},
                {"role": "user", "content": f"{name}: and then, after number {number}?"},
                {"role": "assistant", "content": f"My second answer to {name} is {number + 100}."},
            ]
            file.write(json.dumps({"id": name, "messages": messages}) + "\n")
    return path


def labelled(run: Path) -> dict[str, tuple[set[float], set[float]]]:
    """Return the weights of the first and of the second answer's tokens, by the name of the case."""
    mask = _read(run / "mask")
    spans = dict(_read(run / "tokenize").select("id", "spans").iter_rows())
    found = {}
    for row in mask.iter_rows(named=True):
        weights = row["loss_weights"] or [float(label != -100) for label in row["labels"]]
        answers = tuple(
            {
                weights[at]
                for span in spans[row["id"]]
                if span["message"] == message and span["class"] in ("content", "stop")
                for at in range(span["start"], span["end"])
            }
            for message in (1, 3)
        )
        line = int(row["id"].rpartition(":")[2])
        found[list(ANSWERS)[line - 1]] = answers
    return found


def _read(directory: Path) -> pl.DataFrame:
    return pl.concat([pl.read_ipc(path) for path in sorted((directory / "kept").rglob("*.arrow"))])


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "a.jsonl")


def run(directory: Path, lines: Path, extra: str = "") -> Path:
    config = write_config(directory, lines, shard_bytes=1 << 20, extra=extra)  # one shard
    build(load_config(config))
    return directory / "run"


def test_flags_and_weights_of_messages_reach_the_labels(tmp_path, lines):
    assert labelled(run(tmp_path, lines)) == {
        "plain": ({1.0}, {1.0}),
        "untrained": ({0.0}, {1.0}),
        "trained": ({1.0}, {1.0}),
        "weight": ({0.5}, {1.0}),
        "loss_weight": ({0.25}, {1.0}),
        "zero": ({0.0}, {1.0}),
    }


def test_weights_reach_the_packs_and_their_sums(tmp_path, lines):
    packs = _read(run(tmp_path, lines) / "pack")
    mask = _read(tmp_path / "run" / "mask")
    assert packs["loss_weights"].null_count() < packs.height
    expected = sum(
        sum(row["loss_weights"]) if row["loss_weights"] else row["n_supervised"] for row in mask.iter_rows(named=True)
    )
    assert packs["weight_sum"].sum() == pytest.approx(expected)
    for row in packs.filter(pl.col("loss_weights").is_not_null()).iter_rows(named=True):
        assert [weight > 0 for weight in row["loss_weights"]] == [label != -100 for label in row["labels"]]


def test_looking_shows_weights_that_are_not_1(tmp_path, lines):
    run(tmp_path, lines)
    shown = "".join(
        str(part) for part in look(tmp_path / "run", "mask", row=3, id=None, dropped=False, in_colour=False)
    )
    assert "⟦My first answer to weight is 3.<|im_end|>⟧×0.5" in shown
    assert "⟦My second answer to weight is 103.<|im_end|>⟧\n" in shown


def test_a_pattern_weighs_its_matches_down_to_the_token(tmp_path, lines):
    directory = run(tmp_path, lines, '[[render.scoped]]\npattern = "answer to [a-z]+"\nweight = 0.5\n')
    found = labelled(directory)
    assert found["plain"] == ({0.5, 1.0}, {0.5, 1.0})
    assert found["weight"] == ({0.25, 0.5}, {0.5, 1.0})
    rendered = read_manifest(directory, "render")
    assert rendered is not None
    assert rendered.totals.counts["scoped/0"] == 2 * len(ANSWERS)


def test_a_pattern_that_does_not_compile_is_refused_before_anything_is_built(tmp_path, lines):
    config = write_config(tmp_path, lines, extra='[[render.scoped]]\npattern = "(?<!a)b"\nweight = 0.5\n')
    with pytest.raises(ConfigError, match=r"config\.toml: \[render\] scoped\[0\].*look-around"):
        load_config(config)


def test_a_turn_without_stop_names_row_template_and_what_was_expected(tmp_path, lines):
    (tmp_path / "odd.jinja").write_text(NO_STOPS)
    extra = f'[render]\ntemplate = "{tmp_path / "odd.jinja"}"\n'
    with pytest.raises(GateError) as refused:
        run(tmp_path, lines, extra)
    text = str(refused.value)
    assert "a.jsonl:1 (message 1)" in text
    assert "4 trained turn(s)" in text  # two of the six first answers are not trained
    assert "odd.jinja ends a turn with '<|im_end|>'" in text
    assert 'without_stop = "mask"' in text


def test_a_turn_without_stop_can_be_left_untrained(tmp_path, lines):
    (tmp_path / "odd.jinja").write_text(NO_STOPS)
    extra = f'[render]\ntemplate = "{tmp_path / "odd.jinja"}"\n[mask]\nwithout_stop = "mask"\n'
    directory = run(tmp_path, lines, extra)
    assert list(labelled(directory).values()) == [({0.0}, {1.0})] * len(ANSWERS)
    mask = read_manifest(directory, "mask")
    assert mask is not None
    assert mask.totals.counts["turns/masked_without_stop"] == 4
    assert mask.totals.counts["turns/trained"] == mask.totals.counts["turns/stopped"] == 6


def test_only_mask_names_the_template_in_its_refusals():
    assert [stage.name for stage in GRAPH if stage.context] == ["mask"]
