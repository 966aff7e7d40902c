"""What a template leaves out is said, and counted."""

import json

import pytest

from schemas.assets import Template
from stages.render import Render, render_conversations
from tests.stages.render_templates import CHATML
from tests.stages.test_render import CALL, frame, say

IGNORANT = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{% endif %}"
)


@pytest.mark.parametrize("left_out", ["note", "drop"])
def test_what_a_template_leaves_out_is_noted_or_costs_the_row(left_out):
    call = {"role": "assistant", "content": "I look", "reasoning": "Hm", "tool_calls": json.dumps([CALL])}
    rows = frame(
        say(("system", "Be kind"), ("user", "Hi"), ("assistant", "Hello")),
        say(("user", "Hi"), ("assistant", "Hello")),
        [*say(("user", "Find x")), call],
    )
    template = Template(name="ignorant", source=IGNORANT, control_tokens=("</s>",))
    out = render_conversations(rows, Render(left_out=left_out), template=template)
    notes = [["content:0 not written"], [], ["reasoning:1 not written", "tool_calls:1 not written"]]
    assert out["notes"].to_list() == notes
    if left_out == "note":
        assert out["drop_reason"].to_list() == [None] * 3
    else:
        assert out["drop_reason"].to_list() == ["left_out", None, "left_out"]
        assert out["detail"].to_list() == ["; ".join(note) or None for note in notes]


def test_tools_that_a_template_does_not_know_are_noted():
    tools = '[{"type": "function", "function": {"name": "look"}}]'
    rows = frame(say(("user", "Hi"), ("assistant", "Hello")), tools=tools)
    assert render_conversations(rows, Render(), template=CHATML)["notes"].to_list() == [[]]
    template = Template(name="ignorant", source=IGNORANT, control_tokens=("</s>",))
    assert render_conversations(rows, Render(), template=template)["notes"].to_list() == [["tools not written"]]
