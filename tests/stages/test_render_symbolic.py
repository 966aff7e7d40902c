"""One render for all conversations of a form: it must be the render that each of them would have had."""

import random
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.filters import FILTERS
from jinja2.tests import TESTS
from polars.testing import assert_frame_equal

from schemas.assets import Template
from stages.render import Render, paths, program, render_conversations, stage
from stages.render.builtin import load, names
from stages.render.symbol import METHODS, Inquiry, ObservedError, Question, Slot, Symbol, View
from tests.stages.render_templates import ALL
from tests.stages.test_render import frame, say

BUILT_IN = tuple(
    Template(
        name=name,
        source=load(name),
        variables={"bos_token": "<s>", "eos_token": "</s>"},
        control_tokens=("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>"),
    )
    for name in names()
)
TEXT = st.one_of(
    st.sampled_from(
        [
            "a",
            " a ",
            "\n\na\n",
            "\x1c",
            "</think>",
            "<think>x</think>\n\ny",
            "<result>",
            "\u2003b",
            "汉字 ",
            "<|im_end|>",
        ]
    ),
    st.text(min_size=1, max_size=12),
).filter(lambda text: "\0" not in text)
CHAT = st.tuples(st.booleans(), st.lists(st.tuples(TEXT, TEXT, st.one_of(st.none(), TEXT)), min_size=1, max_size=4))


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Iterator[None]:
    """Explore every way at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "PATIENCE", 1)
        yield


def chat(with_system: bool, turns: list[tuple[str, str, str | None]]) -> list[dict[str, Any]]:
    messages = say(("system", turns[0][1])) if with_system else []
    for question, answer, reasoning in turns:
        messages += [*say(("user", question)), {"role": "assistant", "content": answer, "reasoning": reasoning}]
    return messages


def by_its_own_text(rows: pl.DataFrame, template: Template, config: Render) -> pl.DataFrame:
    """Render without symbols."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "MAX_FORM", -1)
        return render_conversations(rows, config, template=template)


def assert_the_same(rows: pl.DataFrame, template: Template) -> pl.DataFrame:
    out = render_conversations(rows, Render(), template=template)
    assert_frame_equal(out, by_its_own_text(rows, template, Render()))
    return out


def ends(template: Template) -> list[object]:
    """Return what the ways through a template that are known so far end in."""
    found: list[object] = []
    waiting: list[Any] = list(program.program(template, Render()).paths.roots.values())
    while waiting:
        node = waiting.pop()
        if isinstance(node, stage.Branch):
            waiting += [node.yes, node.no]
        elif node is not None:
            found.append(node)
    return found


@pytest.mark.parametrize("template", [*ALL, *BUILT_IN], ids=lambda template: template.name)
@settings(max_examples=25, deadline=None)
@given(chats=st.lists(CHAT, min_size=1, max_size=4))
def test_any_template_gives_each_conversation_the_render_it_would_have_had_alone(template, chats):
    assert_the_same(frame(*(chat(*given) for given in chats)), template)


def test_a_form_is_rendered_once_for_all_its_conversations():
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}"
    template = Template(name="once", source=source, control_tokens=("</s>",))
    rows = frame(*(say(("user", f" question {n}"), ("assistant", f"answer {n}\n")) for n in range(50)))
    out = assert_the_same(rows, template)
    assert out["text"][49] == "[user]question 49</s>[assistant]answer 49</s>"
    assert len(ends(template)) == 1


def test_a_way_is_explored_once_others_have_gone_it(monkeypatch):
    monkeypatch.setattr(paths, "PATIENCE", 3)
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}"
    template = Template(name="patient", source=source, control_tokens=("</s>",))
    chats = [say(("user", f"question {n}"), ("assistant", f"answer {n}\n")) for n in range(4)]
    for n_ends, conversation in zip((0, 0, 1, 1), chats, strict=True):
        assert render_conversations(frame(conversation), Render(), template=template)["text"].null_count() == 0
        assert len(ends(template)) == n_ends


def test_what_is_known_is_forgotten_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(paths, "MAX_WEIGHT", 20)
    source = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    template = Template(name="forgetful", source=source, control_tokens=("</s>",))
    rows = frame(*([*say(("user", "q"), ("assistant", "a"))] * n for n in range(1, 9)))
    assert_the_same(rows, template)
    assert program.program(template, Render()).paths.weight < 20 + 40


def test_a_row_is_refused_for_its_cost_in_any_company(monkeypatch):
    """By its own text it costs more than it may, on its way nothing: it goes its way, be it explored or not."""
    monkeypatch.setattr(paths, "PATIENCE", 3)
    source = (
        "{% for m in messages %}{% if messages|length > 2 %}{% for i in range(300) %}{% set x = m.content.strip() %}"
        "{% endfor %}{% endif %}{{ m.content }}</s>{% endfor %}"
    )
    template = Template(name="costly", source=source, control_tokens=("</s>",))
    conversation = say(("user", "q" * 900), ("assistant", "a" * 900), ("user", "!"))
    for n_rows in (1, 2, 9):
        program._made.cache_clear()
        out = render_conversations(frame(*[conversation] * n_rows), Render(max_steps=6000), template=template)
        assert out["drop_reason"].null_count() == n_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "MAX_FORM", -1)
        out = render_conversations(frame(conversation), Render(max_steps=6000, verify=0), template=template)
    assert "took more than" in out["detail"][0]


def test_each_answer_to_a_templates_question_has_a_way_of_its_own():
    source = (
        "{% for m in messages %}{% if '?' in m.content %}<q>{% elif m.content.startswith('no') %}<n>{% endif %}"
        "{{ m.content }}</s>{% endfor %}"
    )
    template = Template(name="questions", source=source, control_tokens=("</s>",))
    rows = frame(
        *(say(("user", first), ("assistant", second)) for first in ("a", "a?", "no") for second in ("b", "no!", "?"))
    )
    assert_the_same(rows, template)
    assert len(ends(template)) == 9


def test_what_is_learned_does_not_depend_on_the_order_of_conversations():
    template = next(template for template in ALL if template.name == "thinking")
    texts = ("a", "<result>b", "x</think>y", "\n\nz", "<think>\nq\n</think>r")
    chats = [
        say(("user", a), ("assistant", b), ("user", c), ("assistant", a)) for a in texts for b in texts for c in texts
    ]
    whole = render_conversations(frame(*chats), Render(), template=template)
    for seed in range(3):
        order = random.Random(seed).sample(range(len(chats)), len(chats))
        program._made.cache_clear()
        shuffled = render_conversations(frame(*(chats[at] for at in order)), Render(), template=template)
        for name in ("text", "spans", "notes", "drop_reason"):
            assert_frame_equal(shuffled.select(name), whole[order].select(name))


def test_a_conversation_too_large_for_its_template_is_refused_in_any_company():
    source = "{% for m in messages %}{% for i in range(30) %}{{ m.content }}{% endfor %}</s>{% endfor %}"
    template = Template(name="thirty", source=source, control_tokens=("</s>",))
    small, large = say(("user", "a"), ("assistant", "b")), say(("user", "a" * 3000), ("assistant", "b" * 3000))
    for chats in ([small, large], [large, small]):
        out = assert_the_same(frame(*chats), template)
        assert [chats[row] is large for row in range(2)] == out["drop_reason"].is_not_null().to_list()


LOOKING = ("'s' in m.content", "m.content == '</s>'", "m.content.endswith('>')", "m.content is in ['</s>']")


@pytest.mark.parametrize("question", LOOKING)
def test_a_text_cannot_ask_for_a_control_token_by_spelling_it(question):
    source = "{% for m in messages %}{% if " + question + " %}</s>{% endif %}{{ m.content }}</s>{% endfor %}"
    template = Template(name=question, source=source, control_tokens=("</s>",))
    out = assert_the_same(frame(*(say(("user", text), ("assistant", "b")) for text in ("</s>", "so>", "b"))), template)
    assert out["drop_reason"].to_list() == ["control_token", None, None]


def test_what_an_assistant_repeats_otherwise_is_looked_at_in_its_own_text():
    source = (
        "{% for m in messages %}{{ m.content | trim }}</s>"
        "{% if messages|length > 2 %}{{ m.content }}{% endif %}{% endfor %}"
    )
    template = Template(name="repeats", source=source, control_tokens=("</s>",))
    assert_the_same(
        frame(*(say(("user", "a"), ("assistant", text), ("user", "b")) for text in ("c", " c", "d\n"))), template
    )


def test_a_text_may_be_stripped_a_thousand_times():
    source = (
        "{% for m in messages %}{% set ns = namespace(t=m.content) %}{% for i in range(1000) %}"
        "{% set ns.t = ns.t.strip().lstrip('\\n') %}{% endfor %}{{ ns.t }}</s>{% endfor %}"
    )
    template = Template(name="stripped", source=source, control_tokens=("</s>",))
    assert assert_the_same(frame(say(("user", " a"), ("assistant", "\nb "))), template)["text"].to_list() == [
        "a</s>b</s>"
    ]


# What follows is the proof that no way of looking into a text goes unnoticed: every filter, test, method and operator there is.
ARGUMENTS = ("", "1", "'a'", "'a', 'b'", "m.content", "'content'", "attribute='content'")
SIGNS = ("<", ">", "<=", ">=", "==", "!=", "in", "not in", "+", "*", "%", "~", "and", "or", "/", "//", "-", "**")
OTHERS = ("'a'", "1", "['a']", "messages[0].content", "none", "''", "'%s'")
BY_NAME = {
    **{
        f"filter {name}": [
            *(
                f"{value} | {name}{f'({given})' if given else ''}"
                for value in ("m.content", "messages")
                for given in ARGUMENTS
            ),
            f"[m.content, 'z', messages[0].content] | {name}",
        ]
        for name in sorted(FILTERS)
    },
    **{
        f"test {name}": [f"m.content is {name}{f'({given})' if given else ''}" for given in ARGUMENTS[:5]]
        for name in sorted(TESTS)
    },
    **{
        f"method {name}": [f"m.content.{name}({given})" for given in ARGUMENTS[:5]]
        for name in sorted(dir(str))
        if name[0] != "_"
    },
    **{
        f"operator {sign}": [
            *(f"m.content {sign} {other}" for other in OTHERS),
            *(f"{other} {sign} m.content" for other in OTHERS),
        ]
        for sign in SIGNS
    },
}
EXPRESSIONS = """
m
messages
m.content[0]
m.content[-1]
m.content[1:]
m.content['upper']()
m.content.nothing
'one' if (m.content | attr('upper')) is defined else 'none'
(m.content | attr('strip'))()
-m.content
m.content if m.content else 'none'
not m.content
{m.content: 1}
{'a': 1}[m.content]
{'a': m.content}
[m.content, 1]
(m.content, m.role)
range(m.content)
dict(a=m.content)
namespace(a=m.content).a
'{}'.format(m.content)
'{0!r}'.format(m.content)
'%s' | format(m.content)
'x'.join([m.content, 'b'])
'ab'.replace('a', m.content)
'abc'.startswith(m.content)
'abc'.strip(m.content)
m.items() | list
m.values() | list
m.get('content')
m.get(m.content)
m == messages[0]
m in messages
messages.index(m)
messages.count(m)
strftime_now(m.content)
raise_exception(m.content)
m.content | string | upper
('<' + m.content + '>').strip()
('<' + m.content).startswith('<a')
(m.content + '>').endswith('>')
('' + m.content) == 'a'
(m.content ~ messages[0].content) | trim
(' ' + m.content) | trim
(m.content + ' ').rstrip()
('x' + m.content + ' ').strip()
(m.content + 'b') in 'ab'
'a' in (m.content + 'b')
'<' in ('<' + m.content)
m.content.split('a')[0]
m.content.split('a') | length
loop.changed(m.content)
loop.cycle(m.content, 'b')
loop.previtem.content
""".strip().splitlines()
STATEMENTS = [
    "{% set x %}{{ m.content }}!{% endset %}{{ x | trim }}",
    "{% filter upper %}{{ m.content }}{% endfilter %}",
    "{% filter trim %}{{ m.content }}{% endfilter %}",
    "{% for c in m.content %}{{ c }}{% endfor %}",
    "{% for c in m.content.split() %}{{ c }}{% endfor %}",
    "{% for k, v in m.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(m.content) }}{{ f(m.content) | length }}",
    "{% call(x) y() %}{{ m.content }}{% endcall %}",
    "{% set ns = namespace(t='') %}{% set ns.t = ns.t + m.content %}{{ ns.t }}",
    "{% if m.content == 'a' %}1{% elif m.content != 'b' %}2{% endif %}",
    "{% if m.content > 'a' %}1{% endif %}",
    "{% if m.content|length > 1 %}1{% endif %}",
    "{% with x = m.content %}{{ x }}{% endwith %}",
    "{% set a, b = m.content, m.role %}{{ b }}{{ a }}",
    "{% set a, b = m.content %}{{ b }}{{ a }}",
    "{% if loop.changed(m.content) %}new{% endif %}",
    "{% if loop.first and m.content %}{{ m.content }}{% else %}{{ m.content }}{{ m.content }}{% endif %}",
    "{% generation %}{{ m.content }}{% endgeneration %}",
    "{% autoescape true %}{{ m.content }}{% endautoescape %}",
    "{% set ns = namespace(t='') %}{% autoescape true %}{% set ns.t = m.content | replace('zz', 'b') %}{% endautoescape %}"
    "{{ ns.t }}",
    "{% autoescape true %}{% if (m.content | replace('zz', 'b')) == 'A&lt;' %}1{% endif %}{% endautoescape %}",
]
TEXTS = (("a", "b"), ("b", "a"), ("ab", "a"), (" a", "b "), ("1", "2"), ("A<", "a"))


BODIES = {
    **{name: [f"{{{{ {one} }}}}" for one in expressions] for name, expressions in BY_NAME.items()},
    **{one: [f"{{{{ {one} }}}}"] for one in EXPRESSIONS},
    **{one: [one] for one in STATEMENTS},
}


@pytest.mark.parametrize("name", BODIES)
def test_no_way_to_look_into_a_text_goes_unnoticed(name):
    rows = frame(*(say(("user", one), ("assistant", two), ("user", one)) for one, two in TEXTS))
    for body in BODIES[name]:
        guarded = (
            "{% if messages|length > 2 %}" + body + "{% endif %}"
        )  # a template must render one question and answer
        source = "{% for m in messages %}" + guarded + "{{ m.content }}</s>{% endfor %}"
        template = Template(name=body, source=source, control_tokens=("</s>",))
        try:
            expected = by_its_own_text(rows, template, Render(verify=0))
        except stage.RenderError:  # does not compile
            with pytest.raises(stage.RenderError):
                render_conversations(rows, Render(verify=0), template=template)
            continue
        if " at 0x" in str(expected["text"].to_list()):  # an address: no two renders are equal
            continue
        assert_frame_equal(render_conversations(rows, Render(verify=0), template=template), expected)


SPACES = st.sampled_from([None, " ", "\n", " \n\t"])


@settings(max_examples=300, deadline=None)
@given(
    text=TEXT.filter(lambda text: not text.isspace()),
    strips=st.lists(st.tuples(st.sampled_from(["strip", "lstrip", "rstrip"]), SPACES), max_size=3),
    kind=st.sampled_from(["contains", "startswith", "endswith", "equals"]),
    literal=st.one_of(TEXT, st.just("")),
)
def test_a_symbol_answers_as_its_text_would(text, strips, kind, literal):
    symbol, real = Symbol((Slot(0, View("content")),), Inquiry({(0, "content"): text})), text
    for method, chars in strips:
        symbol, real = getattr(symbol, method)(chars), getattr(real, method)(chars)
    answers = {
        "contains": lambda value: literal in value,
        "startswith": lambda value: value.startswith(literal),
        "endswith": lambda value: value.endswith(literal),
        "equals": lambda value: value == literal,
    }
    assert answers[kind](symbol) is answers[kind](real)
    for question, answer in symbol.inquiry.path:
        assert question.decide(question.slot.view.of(text), question.literal) is answer


def test_a_question_is_asked_once():
    inquiry = Inquiry({(0, "content"): "ab"})
    symbol = Symbol((Slot(0, View("content")),), inquiry)
    assert [("a" in symbol) for _ in range(3)] == [True] * 3
    assert inquiry.path == [(Question("contains", Slot(0, View("content")), "a"), True)]


@pytest.mark.parametrize("name", sorted({name for name in dir(str) if name[0] != "_"} - METHODS))
def test_a_symbol_has_no_other_method_of_a_string(name):
    assert not hasattr(Symbol, name)


@pytest.mark.parametrize(
    "look",
    [len, str, repr, hash, iter, int, float, reversed, sorted, list, lambda x: x[0], lambda x: x < "a", lambda x: x + "a",
     lambda x: "a" + x, lambda x: f"{x}", lambda x: x == x.strip(), lambda x: {x}, lambda x: x * 2, lambda x: x % 1],
)  # fmt: skip
def test_a_symbol_shows_nothing_of_its_text(look):
    with pytest.raises(ObservedError):
        look(Symbol((Slot(0, View("content")),), Inquiry({(0, "content"): "secret"})))
