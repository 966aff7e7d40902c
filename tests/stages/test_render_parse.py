"""Rendered text back into messages: what the template got, whoever wrote the template."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.assets import Template
from stages.render.builtin import names
from stages.render.parse import markers, parse
from tests.stages.render_templates import HEADERS, THINKING
from tests.stages.test_render import say
from tests.stages.test_render_builtin import CONVERSATION, VICUNA, builtin, text_of

MERGED = ("gemma", "mistral")
"""Formats in which system and user text share a turn, so that nothing tells them apart again."""
TRACELESS = ("deepseek", "llama-2")
"""Formats that write nothing, or strip what they wrote, around an empty system text or the first question behind it."""
FRAGMENTS = (
    "\n",
    " ",
    "#",
    "##",
    "<",
    "|",
    "</",
    "s>",
    "[",
    "INST",
    "<|im_",
    "Human",
    ":",
    "a",
    "é",
    "你好",
    "👍",
    "{{",
    "{%",
)
CONTENT = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join))


def stripped(name: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages as the format keeps them."""
    out = []
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if name in ("gemma", "llama-3") or (name, role) in (("alpaca", "assistant"), ("llama-2", "assistant")):
            content = content.strip()
        elif name == "minimind" and role == "assistant":
            content = content.lstrip("\n")
        elif name == "llama-2" and role == "user":
            content = content.rstrip() if index == 1 else content.strip()  # the system text goes before the first
        out.append({"role": role, "content": content})
    return out


def conversations(name: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    cores = {text.strip() for text in markers(builtin(name)).texts()} - {""}
    cores |= {"<think>", "</think>"} if name == "minimind" else set()
    # without cores, and without what could become one together with what the template writes beside it
    content = CONTENT.filter(
        lambda text: not any(core in f" {text} " for core in cores) and (name not in TRACELESS or bool(text.strip()))
    )
    system = st.just([]) if name in MERGED else st.lists(content.map(lambda text: ("system", text)), max_size=1)
    turns = st.lists(content, min_size=1, max_size=5).map(
        lambda texts: [(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
    )
    return st.tuples(system, turns).map(lambda pair: say(*pair[0], *pair[1]))


@pytest.mark.parametrize("name", names())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(data=st.data())
def test_every_built_in_can_be_read_back(name: str, data: st.DataObject):
    messages = data.draw(conversations(name))
    assert parse(text_of(name, messages), builtin(name)) == stripped(name, messages)


@pytest.mark.parametrize("name", MERGED)
def test_a_system_text_in_the_user_s_turn_comes_back_as_the_user_s(name: str):
    assert parse(text_of(name, CONVERSATION), builtin(name)) == [
        {"role": "user", "content": "Be kind\n\nHi"},
        *CONVERSATION[2:],
    ]


@pytest.mark.parametrize("name", names())
def test_a_question_without_an_answer_can_be_read_back(name: str):
    question = say(("user", "Hi"))
    assert parse(text_of(name, question), builtin(name)) == question


def test_what_nobody_said_is_no_message():
    text = f"<s>{VICUNA} USER: Hi ASSISTANT: Hello</s>"
    assert parse(text, builtin("vicuna")) == say(("user", "Hi"), ("assistant", "Hello"))
    default = say(("system", VICUNA), ("user", "Hi"), ("assistant", "Hello"))
    assert text_of("vicuna", default) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"character 0, '': the text begins like no conversation"),
        ("Hello", r"character 0, 'Hello': the text begins like no conversation"),
        (
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello",
            r"character 52, 'Hello': this assistant message has no end: expected '<\|im_end\|>\\n' at the end",
        ),
        ("<|im_start|>user\nHi<|im_end|>\n\n", r"character 17, 'Hi<\|im_end\|>\\n\\n': this user message has no end"),
    ],
)
def test_text_that_does_not_fit_is_refused_naming_the_place(text: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        parse(text, builtin("chatml"))


def test_text_that_the_template_would_write_otherwise_is_refused():
    text = "<bos><start_of_turn>user\n Hi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
    with pytest.raises(ValueError, match="renders what was found there otherwise"):
        parse(text, builtin("gemma"))
    assert parse(text.replace(" Hi", "Hi"), builtin("gemma")) == say(("user", "Hi"), ("assistant", "Hello"))


def test_templates_of_others_are_learned_likewise():
    text = "<|begin|><|head|>user<|/head|>\n\nHi<|eot|><|head|>assistant<|/head|>\n\nHello<|eot|>"
    assert parse(text, HEADERS) == say(("user", "Hi"), ("assistant", "Hello"))
    text = (
        "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n"
        "<|im_start|>user\n2<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\ny<|im_end|>\n"
    )
    assert parse(text, THINKING) == say(("user", "1"), ("assistant", "x"), ("user", "2"), ("assistant", "y"))


def test_a_template_that_writes_no_content_is_refused():
    with pytest.raises(ValueError, match="template mute: no content can be found"):
        parse("x", Template(name="mute", source="{{ 'x' }}"))
