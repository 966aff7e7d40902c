"""Where a chat template comes from, and how transformers would choose among several."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.assets import load_assets, write_tokenizer
from pipeline.config import load_config
from pipeline.endings import turn_endings
from pipeline.templates import find_template, named_templates
from schemas.settings import ConfigError
from stages.render.builtin import load
from tests.pipeline.test_assets import PROMPT, TURNS
from tests.pipeline.test_assets import write_tokenizer as make_tokenizer

NAMED = [{"name": "default", "template": "{{ 1 }}"}, {"name": "tool_use", "template": "{{ 2 }}"}]
RAG = [*NAMED, {"name": "rag", "template": "{{ 3 }}"}]


def lay(directory: Path, **files: str) -> Path:
    """Write chat_template.jinja (`main`) and named templates as transformers lays them out."""
    if "main" in files:
        (directory / "chat_template.jinja").write_text(files.pop("main"))
    for name, source in files.items():
        (directory / "additional_chat_templates").mkdir(exist_ok=True)
        (directory / "additional_chat_templates" / f"{name}.jinja").write_text(source)
    return directory


def test_a_built_in_is_found_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chatml").write_text("{{ 1 }}")
    assert find_template("ChatML", tmp_path, {}).source == load("chatml")
    assert find_template("./chatml", tmp_path, {}).source == "{{ 1 }}"


def test_jinja_may_stand_in_the_config(tmp_path: Path):
    found = find_template("{#- tokens: <a> -#}{{ messages }}", tmp_path, {})
    assert (found.name, found.source) == ("in the config", "{#- tokens: <a> -#}{{ messages }}")
    assert found.declared.tokens == ("<a>",)


def test_a_file_declares_and_the_tokenizer_s_own_does_not(tmp_path: Path):
    source = "{#- tokens: <a> -#}{{ messages }}"
    lay(tmp_path, main=source)
    assert find_template(str(tmp_path / "chat_template.jinja"), tmp_path, {}).declared.tokens == ("<a>",)
    assert find_template("tokenizer", tmp_path, {}).declared.tokens == ()


@pytest.mark.parametrize(
    ("choice", "beside", "files", "expected"),
    [
        ("tokenizer", {"chat_template": "{{ 1 }}"}, {}, ("tokenizer_config.json", "{{ 1 }}", "")),
        ("tokenizer", {"chat_template": NAMED}, {}, ("tokenizer_config.json", "{{ 1 }}", "{{ 2 }}")),
        ("tokenizer:tool_use", {"chat_template": NAMED}, {}, ("tokenizer:tool_use", "{{ 2 }}", "")),
        ("tokenizer:rag", {"chat_template": RAG}, {}, ("tokenizer:rag", "{{ 3 }}", "")),
        ("tokenizer", {"chat_template": RAG}, {"main": "{{ 4 }}"}, ("chat_template.jinja", "{{ 4 }}", "")),
        ("tokenizer", {}, {"main": "{{ 4 }}", "tool_use": "{{ 5 }}"}, ("chat_template.jinja", "{{ 4 }}", "{{ 5 }}")),
        ("tokenizer:rag", {}, {"main": "{{ 4 }}", "rag": "{{ 6 }}"}, ("tokenizer:rag", "{{ 6 }}", "")),
    ],
)
def test_the_tokenizer_s_template(
    choice: str, beside: dict[str, Any], files: dict[str, str], expected: tuple[str, str, str], tmp_path: Path
):
    found = find_template(choice, lay(tmp_path, **files), beside)
    assert (found.name, found.source, found.tool_use) == expected


@pytest.mark.parametrize("beside", [{"chat_template": "{{ 1 }}"}, {"chat_template": RAG}, {}])
@pytest.mark.parametrize(
    "files", [{}, {"main": "{{ 4 }}"}, {"main": "{{ 4 }}", "tool_use": "{{ 5 }}"}, {"tool_use": "{{ 5 }}"}]
)
def test_transformers_chooses_the_same(beside: dict[str, Any], files: dict[str, str], tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    make_tokenizer(lay(tmp_path, **files), "<a>", tokenizer_class="PreTrainedTokenizerFast", **beside)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    try:
        default = tokenizer.get_chat_template()
    except ValueError:
        with pytest.raises(ConfigError, match=r"names no default|there is no chat template"):
            find_template("tokenizer", tmp_path, beside)
        return
    found = find_template("tokenizer", tmp_path, beside)
    assert found.source == default
    for tools in ([], [{}]):
        assert (found.tool_use or found.source) == tokenizer.get_chat_template(tools=tools)


@pytest.mark.parametrize(
    ("choice", "beside", "message"),
    [
        ("tokenizer", {}, r"there is no chat template in .*Set it to .*built-in ones: alpaca, chatml"),
        (
            "tokenizer",
            {"chat_template": NAMED[1:]},
            r"names no default among its templates; choose one of 'tokenizer:tool_",
        ),
        ("tokenizer:tooluse", {"chat_template": NAMED}, r"no template of that name; did you mean 'tool_use'\?"),
        ("tokenizer:x", {}, r"no template of that name; it has none at all"),
        ("tokenizer:", {"chat_template": NAMED}, r"'tokenizer:': .* no template of that name; known: "),
        ("lama-3", {}, r"'lama-3': no such built-in and no such file; did you mean 'llama-3'\?"),
    ],
)
def test_what_is_not_there_is_refused_naming_what_is(choice: str, beside: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=message):
        find_template(choice, tmp_path, beside)


def test_a_template_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "chat_template.jinja").write_bytes(b"{{ '\xff' }}")
    with pytest.raises(ConfigError, match=r"chat_template\.jinja: not UTF-8 at byte 4"):
        named_templates(tmp_path, {})


def test_both_templates_are_exported_and_one_that_is_gone_does_not_stay(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    tool_use = "{% if tools %}{{ tools | tojson }}{% endif %}" + TURNS + PROMPT
    home = make_tokenizer(
        tmp_path / "tokenizer", "<|im_start|>", "<|im_end|>", tokenizer_class="PreTrainedTokenizerFast"
    )
    lay(home, main=TURNS + PROMPT, tool_use=tool_use)
    (tmp_path / "c.toml").write_text(f"[tokenize]\ntokenizer = '{home}'\n")
    assets = load_assets(load_config(tmp_path / "c.toml"))
    assert (assets.template.source, assets.template.tool_use) == (TURNS + PROMPT, tool_use)
    write_tokenizer(tmp_path / "out", assets)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.get_chat_template(tools=[{}]) == tool_use
    assert tokenizer.get_chat_template() == TURNS + PROMPT
    lay(home, tool_use="")
    write_tokenizer(tmp_path / "out", load_assets(load_config(tmp_path / "c.toml")))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").get_chat_template(tools=[{}]) == TURNS + PROMPT
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }


def test_a_model_is_served_with_the_stops_of_both_templates(tmp_path: Path):
    tool_use = (TURNS + PROMPT).replace("<|im_end|>", "<|eom|>")
    home = make_tokenizer(tmp_path / "tokenizer", "<|im_start|>", "<|im_end|>", "<|eom|>")
    lay(home, main=TURNS + PROMPT, tool_use=tool_use)
    (tmp_path / "c.toml").write_text(f"[tokenize]\ntokenizer = '{home}'\n")
    config = load_config(tmp_path / "c.toml")
    assets = load_assets(config)
    assert assets.generation_config["eos_token_id"] == [257, 258]
    said = turn_endings(config.sections, assets.by_name)
    assert said == "Template chat_template.jinja ends a turn with '<|im_end|>' or '<|eom|>'"
