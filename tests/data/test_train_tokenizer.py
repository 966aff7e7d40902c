"""The committed tokenizer is what training gives, and every engine reads it alike."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gigatoken
import jinja2.sandbox
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

DATA = Path(__file__).parents[2] / "data"
FOLDER = DATA / "tokenizer"
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SPECIAL = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def hugging_face() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def conversations() -> list[list[dict[str, str]]]:
    """Conversations of the two files whose lines need no adapter, control texts included."""
    found = []
    for name, key in (("messages.jsonl", "messages"), ("conversations.jsonl", "conversations")):
        for line in (DATA / "sample" / name).read_bytes().splitlines():
            try:
                messages = json.loads(line)[key]
                line.decode()
                # a lone surrogate, or a message without text, is no conversation
                assert all(message["content"].encode() for message in messages)
            except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
                continue
            found.append(messages)
    return found


@functools.cache
def template() -> jinja2.Template:
    """Compile the template as transformers does."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((FOLDER / "chat_template.jinja").read_text(encoding="utf-8"))


def render(messages: list[dict[str, Any]], **variables: Any) -> str:
    return template().render(messages=messages, **variables)


def test_training_again_writes_the_committed_bytes(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, DATA / "train_tokenizer.py", "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), f"{name}: run data/train_tokenizer.py"


def test_the_vocabulary_has_2048_tokens_and_three_of_them_are_special(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == 2048
    assert {token.content: id_ for id_, token in tokenizer.get_added_tokens_decoder().items()} == SPECIAL


@pytest.fixture(scope="module")
def texts(conversations: Any) -> list[str]:
    return [render(messages) for messages in conversations]


@pytest.fixture(scope="module")
def ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def test_every_rendered_conversation_comes_back_from_its_ids(
    tokenizer: Tokenizer, texts: list[str], ids: list[list[int]]
) -> None:
    assert len(texts) > 2500
    assert tokenizer.decode_batch(ids, skip_special_tokens=False) == texts


@pytest.mark.parametrize(
    "text",
    ["naïve café 😀👩‍👩‍👧", "  tabs\t\tand\r\n\n lines ", "日本語 ไทย עברית", "\u0301x\u200d\ufeff", "12345 don't"],
)
def test_any_text_comes_back_from_its_ids(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_gigatoken_gives_the_same_ids(texts: list[str], ids: list[list[int]]) -> None:
    fast = gigatoken.Tokenizer.from_json((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    assert [list(row) for row in fast.encode_batch(texts)] == ids


def test_transformers_loads_it_with_the_right_special_tokens(hugging_face: Any) -> None:
    assert (hugging_face.eos_token, hugging_face.eos_token_id) == ("<|im_end|>", 2)
    assert (hugging_face.pad_token, hugging_face.pad_token_id) == ("<|endoftext|>", 0)
    assert hugging_face.bos_token is None
    assert hugging_face("Hello!")["input_ids"] == hugging_face.encode("Hello!", add_special_tokens=False)


def test_a_conversation_is_rendered_as_chatml(hugging_face: Any) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi!"},
    ]
    text = (
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\nHi!<|im_end|>\n"
    )
    assert render(messages) == hugging_face.apply_chat_template(messages, tokenize=False) == text
    prompt = hugging_face.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    assert prompt.endswith("<|im_start|>assistant\n")


def test_tools_calls_and_results_are_rendered(hugging_face: Any) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "3."},
    ]
    block = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    expected = (
        "<|im_start|>system\nYou may call these functions:\n<tools>\n"
        '{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}'
        "\n</tools><|im_end|>\n<|im_start|>user\n1 + 2?<|im_end|>\n"
        f"<|im_start|>assistant\n{block}\n{block}<|im_end|>\n"
        "<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n3.<|im_end|>\n"
    )
    assert render(messages, tools=tools) == expected
    assert hugging_face.apply_chat_template(messages, tools=tools, tokenize=False) == expected


def test_the_template_equals_transformers_on_the_sample(hugging_face: Any, conversations: Any) -> None:
    for messages in conversations[::10]:
        assert hugging_face.apply_chat_template(messages, tokenize=False) == render(messages)


def test_no_token_holds_more_than_one_chinese_character(tokenizer: Tokenizer) -> None:
    words = [tokenizer.decode([id_]) for id_ in range(tokenizer.get_vocab_size())]
    chinese = [word for word in words if any("一" <= character <= "鿿" for character in word)]
    assert len(chinese) > 200
    assert {len(word) for word in chinese} == {1}
