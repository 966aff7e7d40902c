"""What a template is like is found by rendering it."""

import pytest

from schemas.assets import Template
from stages.render import Render, RenderError, probe
from stages.render.inputs import Shape
from tests.stages.render_templates import ALL, BRACKETS, CHATML, HEADERS, INSTRUCTIONS, MACROS, THINKING


def template(source: str, *control_tokens: str) -> Template:
    return Template(name="under test", source=source, control_tokens=control_tokens)


def test_the_generation_prompt_is_what_the_template_appends_when_asked():
    assert probe(CHATML, Render()).generation_prompt == "<|im_start|>assistant\n"
    assert probe(HEADERS, Render()).generation_prompt == "<|head|>assistant<|/head|>\n\n"
    assert probe(INSTRUCTIONS, Render()).generation_prompt == ""


def test_the_stop_is_the_control_token_after_the_last_answer():
    stops = {each.name: probe(each, Render()).stops for each in ALL}
    assert stops == {
        "chatml": ("<|im_end|>",),
        "headers": ("<|eot|>",),
        "instructions": ("</s>",),
        "turns": ("</turn>",),
        "thinking": ("<|im_end|>",),
        "macros": ("<|eos|>",),
        "brackets": ("</s>",),
    }


def test_the_config_overrides_the_stop():
    assert probe(CHATML, Render(stop=("\n",))).stops == ("\n",)


def test_the_header_of_the_next_message_is_no_stop():
    bare = template(
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}",
        "<|start|>",
    )
    assert probe(bare, Render()).stops == ()


def test_the_header_of_the_next_message_is_no_second_stop():
    source = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% else %}<|eos|>{% endif %}"
    )
    assert probe(template(source, "<|start|>", "<|eos|>"), Render()).stops == ("<|eos|>",)


def test_an_earlier_turn_may_end_on_the_token_that_closes_a_question():
    source = (
        "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
        "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant<|message|>{% endif %}"
    )
    found = probe(template(source, "<|start|>", "<|message|>", "<|end|>", "<|return|>"), Render())
    assert found.stops == ("<|return|>", "<|end|>")


def test_a_prompt_that_goes_on_past_the_header_shares_only_the_header():
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
    )
    found = probe(template(source, "<|assistant|>", "<|end|>"), Render())
    assert found.generation_prompt == "<|assistant|><think>\n"
    assert found.boundaries.header == "<|assistant|>"


def test_calls_take_the_first_form_that_is_written_whole():
    assert probe(CHATML, Render()).shape == Shape("object", "")
    assert probe(THINKING, Render()).shape == Shape("text", "")
    assert probe(MACROS, Render()).shape == Shape("text", None)
    assert probe(BRACKETS, Render()).shape == Shape("object", "")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "'Bravo answer' cannot be followed"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "cannot be followed"),
        (
            "{% for m in mesages %}{{ m.content }}{{ strftime_now('%d') }}{% endfor %}{% for m in messages %}{% endfor %}",
            "it reads mesages, which nothing defines; correct that, or choose another template",
        ),
        ("{{ raise_exception('not today') }}", "refuses a conversation of one question and one answer.*not today"),
        ("{{ 'a' * 10 ** 9 }}", "refuses .* 1000000000 characters"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(source: str, message: str):
    with pytest.raises(RenderError, match=message):
        probe(template(source), Render())


def test_a_template_that_insists_on_a_system_prompt_can_be_probed():
    source = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert probe(template(source, "<|end|>"), Render()).generation_prompt == "<|assistant|>"


CALLING = (
    "{% for m in messages %}{% if m.role == 'user' %}<u>{{ m.content }}<end>"
    "{% elif m.tool_calls %}<a>{% for c in m.tool_calls %}{{ c.function.name }}{{ separator }}{% endfor %}{{ closing }}"
    "{% else %}<a>{{ m.content }}{{ ending }}{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.mark.parametrize(
    ("ending", "separator", "closing", "stops"),
    [
        ("<end>", ";", "<call>", ("<end>", "<call>")),  # as gpt-oss and Llama 3.1: a call ends on a token of its own
        ("<end>", "<call>", "<end>", ("<end>",)),  # as DeepSeek V3: that token stands behind each call
        ("<end>", "<call>", "", ("<end>",)),  # and the turn is never closed
        ("<done><end>", ";", "<done><end>", ("<end>",)),  # as Cohere: two tokens, of which eos_token is the last
        ("<done> <end>", ";", "<done>", ("<done>",)),  # as Phi-3: what stands apart from it ends the conversation
    ],
)
def test_the_stops_of_turns_and_of_calls(ending, separator, closing, stops):
    template = Template(
        name="calling",
        source=CALLING,
        variables={"ending": ending, "separator": separator, "closing": closing, "eos_token": "<end>"},
        control_tokens=("<u>", "<a>", "<end>", "<call>", "<done>"),
    )
    assert probe(template, Render()).stops == stops


def test_a_template_that_rewrites_an_answer_is_refused_with_its_line():
    source = "{% for m in messages %}\n{{ m.role }}\n{{ m.content | upper }}\n{% endfor %}"
    with pytest.raises(RenderError, match=r"template loud, line 3: .* rewrites it"):
        probe(Template(name="loud", source=source), Render())


def test_a_template_that_fails_on_the_simplest_conversation_is_refused_with_its_line():
    source = "{% for m in messages %}\n{{ m.content }}\n{{ m.nothing.text }}\n{% endfor %}"
    with pytest.raises(RenderError, match=r"template typo, line 3: it refuses .* UndefinedError"):
        probe(Template(name="typo", source=source), Render())
