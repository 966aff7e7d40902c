"""The examples of docs/masks.md are what the stages make of them."""

import json
import re
import tomllib

import msgspec
import numpy as np
import polars as pl
import pytest

from schemas.assets import Template
from schemas.fields import MESSAGE
from stages.mask import Mask, label_tokens
from stages.render import Render, render_conversations
from stages.render.builtin import load
from tests.corpus import ROOT
from tests.stages.rows import TEXT_SPAN

PAGE = (ROOT / "docs" / "masks.md").read_text(encoding="utf-8")
CONTROL = ("<|im_start|>", "<|im_end|>")
MESSAGE_FIELDS = {field.name: pl.Float32() if field.name == "weight" else pl.String() for field in MESSAGE}
EXAMPLES = re.findall(r"```toml\n(.*?)```\n+```text\n(.*?)```", PAGE, re.DOTALL)


def marked(messages: list[dict[str, object]], settings: str) -> str:
    """Return the conversation with what is trained in brackets; control tokens and characters are the tokens."""
    document = tomllib.loads(settings)
    template = Template(name="chatml", source=load("chatml"), control_tokens=CONTROL)
    row = [{name: message.get(name) for name in (field.name for field in MESSAGE)} for message in messages]
    frame = pl.DataFrame(
        {"id": ["a:1"], "split": ["train"], "messages": [row], "tools": [None]},
        schema_overrides={"messages": pl.List(pl.Struct(MESSAGE_FIELDS)), "tools": pl.String},
    )
    rendered = render_conversations(frame, msgspec.convert(document.get("render", {}), Render), template=template)
    tokens = re.findall("|".join([*map(re.escape, CONTROL), "(?s:.)"]), rendered["text"][0])
    starts = np.cumsum([0, *map(len, tokens)])
    spans = [
        {**span, "start": int(np.searchsorted(starts, span["start"])), "end": int(np.searchsorted(starts, span["end"]))}
        for span in rendered["spans"][0].to_list()
    ]
    tokenized = pl.DataFrame(
        {"id": ["a:1"], "split": ["train"], "input_ids": [list(range(len(tokens)))], "spans": [spans]},
        schema_overrides={"input_ids": pl.List(pl.Int32), "spans": pl.List(TEXT_SPAN)},
    )
    out = label_tokens(tokenized, msgspec.convert(document.get("mask", {}), Mask))
    weights = out["loss_weights"][0]
    weights = [float(label != -100) for label in out["labels"][0]] if weights is None else weights.to_list()
    text, first = "", 0
    for at in range(1, len(tokens) + 1):
        if at == len(tokens) or weights[at] != weights[first]:
            piece, weight = "".join(tokens[first:at]), weights[first]
            text += piece if weight == 0 else f"⟦{piece}⟧" + ("" if weight == 1 else f"×{weight:.2g}")
            first = at
    return text


@pytest.mark.parametrize(("settings", "shown"), EXAMPLES, ids=[settings.strip() for settings, _ in EXAMPLES])
def test_an_example_of_the_page_is_what_comes_out(settings, shown):
    (conversation,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert marked(json.loads(conversation)["messages"], settings).strip() == shown.strip()


def test_the_page_shows_every_preset_and_policy():
    presets = {tomllib.loads(settings).get("mask", {}).get("preset", "full") for settings, _ in EXAMPLES}
    assert presets == {"full", "last", "none", "partial", "layered"}
    for word in ("refuse", "mask", "drop", "train", "prompt_weight", "turns", "scoped"):
        assert f"`{word}`" in PAGE or f'"{word}"' in PAGE, word
