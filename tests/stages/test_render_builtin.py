"""The built-in templates: what they write, literally; transformers' rendering of them; what they refuse."""

import json
import re
from typing import Any

import pytest

from schemas.assets import Template
from stages.render import Render, RenderError, probe, render_conversations
from stages.render.builtin import find, load, names
from stages.render.declaration import Declaration, declaration
from stages.render.inputs import Message
from stages.render.renderer import FAILURES, renderer
from tests.corpus import ROOT
from tests.stages.test_render import expected, frame, pieces, say

CONVERSATION = say(
    ("system", "Be kind"), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "See you")
)
TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "look", "description": "Looks", "parameters": {"type": "object"}}}]
)
CALLS = json.dumps([{"id": "call12345", "type": "function", "function": {"name": "look", "arguments": {"at": "x"}}}])
TOOL_USE: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind"},
    {"role": "user", "content": "Find x"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "content": "found", "tool_call_id": "call12345", "name": "look"},
    {"role": "assistant", "content": "Here"},
]
WITH_TOOLS = ("chatml", "deepseek", "llama-3", "minimind", "mistral", "qwen")
WITH_REASONING = ("chatml", "deepseek", "minimind", "qwen")
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
CHATML = (
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nSee you<|im_end|>\n"
)

WITHOUT_SYSTEM = {
    "alpaca": f"<s>{ALPACA}\n\n### Instruction:\nHi\n\n### Response:\nHello</s>"
    "\n\n### Instruction:\nBye\n\n### Response:\nSee you</s>",
    "chatml": CHATML,
    "deepseek": "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜>"
    "<｜User｜>Bye<｜Assistant｜>See you<｜end▁of▁sentence｜>",
    "gemma": "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
    "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\nSee you<end_of_turn>\n",
    "guanaco": "<s>### Human: Hi### Assistant: Hello</s>### Human: Bye### Assistant: See you</s>",
    "human-assistant": "<s>Human: Hi\nAssistant: Hello</s>\nHuman: Bye\nAssistant: See you</s>\n",
    "llama-2": "<s>[INST] Hi [/INST] Hello </s><s>[INST] Bye [/INST] See you </s>",
    "llama-3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nSee you<|eot_id|>",
    "minimind": CHATML.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n"),
    "mistral": "<s>[INST]Hi[/INST]Hello</s>[INST]Bye[/INST]See you</s>",
    "phi-3": "<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\nSee you<|end|>\n</s>",
    "plain": "<s>user: Hi\nassistant: Hello</s>\nuser: Bye\nassistant: See you</s>\n",
    "qwen": f"<|im_start|>system\n{QWEN}<|im_end|>\n{CHATML}",
    "vicuna": f"<s>{VICUNA} USER: Hi ASSISTANT: Hello</s>USER: Bye ASSISTANT: See you</s>",
    "zephyr": "<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nBye</s>\n<|assistant|>\nSee you</s>\n",
}
BEGINNINGS = {
    "alpaca": "<s>Be kind\n\n### Instruction:\nHi",
    "chatml": "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi",
    "deepseek": "<｜begin▁of▁sentence｜>Be kind<｜User｜>Hi",
    "gemma": "<bos><start_of_turn>user\nBe kind\n\nHi",
    "guanaco": "<s>Be kind\n### Human: Hi",
    "human-assistant": "<s>Be kind\nHuman: Hi",
    "llama-2": "<s>[INST] <<SYS>>\nBe kind\n<</SYS>>\n\nHi",
    "llama-3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi",
    "minimind": "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi",
    "mistral": "<s>[INST]Be kind\n\nHi",
    "phi-3": "<|system|>\nBe kind<|end|>\n<|user|>\nHi",
    "plain": "<s>system: Be kind\nuser: Hi",
    "qwen": "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi",
    "vicuna": "<s>Be kind USER: Hi",
    "zephyr": "<|system|>\nBe kind</s>\n<|user|>\nHi",
}
"""With a system message; from the first answer on the text is that without one."""
PROMPTS = {
    "alpaca": "\n\n### Response:\n",
    "deepseek": "<｜Assistant｜>",
    "gemma": "<start_of_turn>model\n",
    "guanaco": "### Assistant:",
    "human-assistant": "Assistant:",
    "llama-2": "",
    "llama-3": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "minimind": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "mistral": "",
    "phi-3": "<|assistant|>\n",
    "plain": "assistant:",
    "vicuna": "ASSISTANT:",
    "zephyr": "<|assistant|>\n",
}


def builtin(name: str) -> Template:
    source = load(name)
    return Template(
        name=name,
        source=source,
        variables={"bos_token": "<s>", "eos_token": "</s>"},
        control_tokens=("<s>", "</s>", *declaration(source).tokens),
    )


def text_of(name: str, messages: list[dict[str, Any]], *, tools: str | None = None, prompt: bool = False) -> str:
    template = builtin(name)
    canonical = [Message(*(message.get(field) for field in Message._fields)) for message in messages]
    shape = probe(template, Render()).shape
    return renderer(template, Render()).plain_text(canonical, shape=shape, tools=tools, generation_prompt=prompt)


def test_these_are_all():
    assert names() == tuple(sorted(WITHOUT_SYSTEM))


def test_the_document_has_a_row_for_each():
    page = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE)) == list(names())


@pytest.mark.parametrize("name", names())
def test_the_text_is_literally_this(name: str):
    plain = WITHOUT_SYSTEM[name]
    assert text_of(name, CONVERSATION[1:]) == plain
    assert text_of(name, CONVERSATION) == BEGINNINGS[name] + plain[plain.index("Hi") + 2 :]


@pytest.mark.parametrize("name", names())
def test_what_the_model_is_asked_with_is_what_it_was_trained_behind(name: str):
    template, shape = builtin(name), probe(builtin(name), Render()).shape
    trained = text_of(name, CONVERSATION)
    for n in (2, 4):
        asked = text_of(name, CONVERSATION[:n], prompt=True)
        assert trained.startswith(asked)
        assert asked.endswith(PROMPTS.get(name, "<|im_start|>assistant\n"))
        assert trained[len(asked) :].lstrip(" ").startswith(CONVERSATION[n]["content"])
    if name in WITH_TOOLS:
        shaped = text_of(name, TOOL_USE, tools=TOOLS)
        assert shaped.startswith(text_of(name, TOOL_USE[:2], tools=TOOLS, prompt=True))
        assert shaped.startswith(text_of(name, TOOL_USE[:4], tools=TOOLS, prompt=True))
        assert shape == probe(template, Render()).shape


@pytest.mark.parametrize("name", names())
def test_every_answer_ends_on_a_stop_that_is_one_token(name: str):
    template = builtin(name)
    tool_use = [TOOL_USE] if name in WITH_TOOLS else []
    rows = frame(CONVERSATION, CONVERSATION[1:], *tool_use)
    out = render_conversations(rows, Render(), template=template)
    assert out["drop_reason"].to_list() == [None] * rows.height, out["detail"].to_list()
    for row, messages in zip(out.to_dicts(), [CONVERSATION, CONVERSATION[1:], *tool_use], strict=True):
        stops = {message: text for kind, _, message, text in pieces(row) if kind == "stop"}
        assert list(stops) == [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        assert set(stops.values()) <= set(template.control_tokens)
        contents = [text for kind, _, _, text in pieces(row) if kind in ("content", "tool_result")]
        assert [text for text in contents if text != "call12345"] == [m["content"] for m in messages if m["content"]]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:], say(("user", " a\n"), ("assistant", "\n b "))])
def test_transformers_renders_the_same(name: str, messages: list[dict[str, Any]]):
    template = builtin(name)
    out = render_conversations(frame(messages), Render(), template=template)
    assert out["text"].to_list() == [expected(template, messages, None, probe(template, Render()).shape)]


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_transformers_renders_tools_the_same(name: str):
    template = builtin(name)
    out = render_conversations(frame(TOOL_USE, tools=TOOLS), Render(), template=template)
    assert out["text"].to_list() == [expected(template, TOOL_USE, TOOLS, probe(template, Render()).shape)]
    assert '"type": "object"' in out["text"][0]


@pytest.mark.parametrize(
    ("name", "call", "result"),
    [
        (
            "chatml",
            '<|im_start|>assistant\n<tool_call>\n{"name": "look", "arguments": {"at": "x"}}\n</tool_call><|im_end|>\n',
            "<|im_start|>tool\nfound<|im_end|>\n",
        ),
        (
            "qwen",
            '<|im_start|>assistant\n<tool_call>\n{"name": "look", "arguments": {"at": "x"}}\n</tool_call><|im_end|>\n',
            "<|im_start|>user\n<tool_response>\nfound\n</tool_response><|im_end|>\n",
        ),
        (
            "minimind",
            "<|im_start|>assistant\n<think>\n\n</think>\n\n<tool_call>\n"
            '{"name": "look", "arguments": {"at": "x"}}\n</tool_call><|im_end|>\n',
            "<|im_start|>user\n<tool_response>\nfound\n</tool_response><|im_end|>\n",
        ),
        (
            "llama-3",
            '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "look", "parameters": {"at": "x"}}<|eot_id|>',
            "<|start_header_id|>ipython<|end_header_id|>\n\nfound<|eot_id|>",
        ),
        (
            "mistral",
            '[TOOL_CALLS][{"name": "look", "arguments": {"at": "x"}, "id": "call12345"}]</s>',
            '[TOOL_RESULTS]{"content": found, "call_id": "call12345"}[/TOOL_RESULTS]Here</s>',
        ),
        (
            "deepseek",
            "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n"
            '{"at": "x"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>',
            "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>found<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
            "Here<｜end▁of▁sentence｜>",
        ),
    ],
)
def test_a_call_and_its_result_are_literally_this(name: str, call: str, result: str):
    assert call + result in text_of(name, TOOL_USE, tools=TOOLS)


@pytest.mark.parametrize("name", names())
def test_reasoning_is_written_or_refused(name: str):
    question, answer = say(("user", "2+2?"), ("assistant", "4"))
    messages = [question, answer | {"reasoning": "two and two"}]
    if name in WITH_REASONING:
        assert "<think>\ntwo and two\n</think>\n\n4" in text_of(name, messages)
    else:
        with pytest.raises(FAILURES, match="reasoning"):
            text_of(name, messages)


@pytest.mark.parametrize("name", sorted(set(names()) - set(WITH_TOOLS)))
def test_tools_are_refused_where_the_format_has_none(name: str):
    with pytest.raises(FAILURES, match="no place for tools"):
        text_of(name, CONVERSATION, tools=TOOLS)
    with pytest.raises(FAILURES, match=r"no place for tool calls|in turn"):
        text_of(name, TOOL_USE)


@pytest.mark.parametrize("name", ["alpaca", "deepseek", "guanaco", "human-assistant", "vicuna", "llama-2", "gemma"])
def test_a_system_message_amid_the_conversation_is_refused(name: str):
    with pytest.raises(FAILURES, match="system text"):
        text_of(name, [*CONVERSATION[1:3], *CONVERSATION[:3]])


@pytest.mark.parametrize("name", ["gemma", "llama-2", "mistral"])
def test_a_system_message_without_a_user_turn_is_refused(name: str):
    with pytest.raises(FAILURES, match="first user turn"):
        text_of(name, CONVERSATION[:1])


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_a_tool_may_be_described_without_its_wrapping(name: str):
    bare = json.dumps([tool["function"] for tool in json.loads(TOOLS)])
    assert "Looks" in text_of(name, TOOL_USE, tools=bare)


def test_minimind_takes_reasoning_out_of_the_content():
    text = text_of("minimind", say(("user", "2+2?"), ("assistant", "<think>\ntwo and two\n</think>\n4")))
    assert text.endswith("<|im_start|>assistant\n<think>\ntwo and two\n</think>\n\n4<|im_end|>\n")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("llama-3", "llama-3"),
        ("llama3", "llama-3"),
        ("Llama_2", "llama-2"),
        ("ChatML", "chatml"),
        ("phi3", "phi-3"),
        ("tinyllama", "zephyr"),
        ("TinyLlama-chat", "zephyr"),
        ("human_assistant", "human-assistant"),
        ("chatml.jinja", None),
        ("", None),
    ],
)
def test_names_are_found_whatever_their_case_and_dashes(given: str, name: str | None):
    assert find(given) == name


def test_the_nearest_name_is_suggested():
    with pytest.raises(RenderError, match="'chatlm' is no built-in template; did you mean 'chatml'"):
        load("chatlm")


def test_every_built_in_begins_with_what_it_is_and_the_tokens_it_needs():
    for name in names():
        assert load(name).startswith("{#- ")
        found = declaration(load(name))
        assert found.tokens or found.variables == ("eos_token",)
        assert all(token in load(name).rpartition("tokens:")[2].partition("#}")[2] for token in found.variables)


@pytest.mark.parametrize(
    ("source", "tokens", "variables"),
    [
        ("{#- tokens: <a> <b> -#}{{ 1 }}", ("<a>", "<b>"), ()),
        ("{# tokens: <a>\n   <b> #}{#- tokens: <a> eos_token -#}", ("<a>", "<b>"), ("eos_token",)),
        ("{#- about tokens: <a> -#}", (), ()),
        ("{#- tokens: -#}", (), ()),
        ("tokens: <a>", (), ()),
    ],
)
def test_a_comment_declares_tokens(source: str, tokens: tuple[str, ...], variables: tuple[str, ...]):
    assert declaration(source) == Declaration(tokens, variables)
