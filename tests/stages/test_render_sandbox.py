"""Odd templates render as in transformers, what they write is followed, and what they spend is counted."""

import pytest

from schemas.assets import Template
from stages.render import Render
from stages.render.inputs import Message, Shape
from stages.render.renderer import FAILURES, renderer
from stages.render.traced import spans_of, traced

HELLO = [Message("user", "Hi"), Message("assistant", "Hello")]


def run(source: str, **config: int) -> str:
    settings = Render(**config)
    template = Template(name="under test", source=source, variables={"eos_token": "</s>"})
    return traced(*renderer(template, settings).render(HELLO, settings, n_chars=7, shape=Shape()))


FAITHFUL = [
    "a\n  {% if true %}\n  {% set x = 1 %}\nb\n  {%- endif %}\n\n{{ x }}\n",
    "{{ messages[1].content | upper | lower | title }}",
    "{{ messages | map(attribute='content') | join(', ') }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first }}",
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.revindex0 }}{{ loop.previtem.role }}{% endfor %}",
    "{% for m in messages | rejectattr('role', 'in', ['tool']) %}{{ loop.last }}{{ m.content ~ 1 ~ none }}{% endfor %}",
    "{% filter replace('l', 'L') %}{{ messages[1].content }}{% endfilter %}",
    "{% macro f(x, y='-') %}{{ y }}{{ x }}{{ caller() }}{% endmacro %}{% call f(messages[1].content) %}c{% endcall %}",
    "{{ '%s and %r, %5.1f%%' % (messages[1].content, 'x', 2) }}",
    "{{ '%(a)s' % {'a': messages[1].content} }}",
    "{{ '{} {0!r}'.format(1) }}",
    "{{ '{a[content]:>9}|{b!r}'.format(a=messages[1], b=messages[0].content) }}",
    "{{ messages[1] | tojson(indent=2) }}{{ messages | tojson(sort_keys=true, separators=(',', ':')) }}",
    "{{ messages[1].content | safe }}{{ ('<b>' | safe) + messages[1].content + '<i>' }}",
    "{{ messages[1].content | e }}{{ '<' | e ~ messages[1].content }}",
    "{{ messages[1].content | indent(2, true) }}{{ 'a\n\nb' | indent('>', blank=true) }}",
    "{{ messages[1].content[0] }}{{ messages[1].content[-1] }}{{ messages[1].content[99] is defined }}",
    "{{ messages[1].content.content is defined }}{{ messages[1].missing is defined }}{{ messages[1].items is defined }}",
    "{{ messages[1].content is string }}{{ messages[1].content in 'Hello you' }}{{ messages[1].content == 'Hello' }}",
    "{{ messages[1].content | list }}{{ messages[1].content | reverse }}{{ messages[1].content | wordcount }}",
    "{{ messages[1].content | truncate(4, true, '..', 0) }}{{ messages[1].content | center(11) }}",
    "{{ {'a': messages[1].content} }}{{ [messages[1].content] }}{{ (1, 'x') }}",
    "{{ 1 + 2 * 3 - 4 }}{{ [1] + [2] }}{{ (1,) + (2,) }}{{ 2 ** 3 }}{{ 7 % 4 }}{{ 'ab' * 2 }}",
    "{% set x %}{{ messages[1].content }}{% endset %}{{ x | length }}{{ x.split('l') }}",
    "{% set x | upper %}{{ messages[1].content }}{% endset %}{{ x }}",
    "{% for c in messages[1].content %}{{ c }}{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}",
    "{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% else %}none{% endfor %}",
    "{% for k, v in messages[1] | dictsort %}{{ k }}={{ v }};{% endfor %}{{ messages[1] | items | list }}",
    "{% generation %}{{ messages[1].content }}{% endgeneration %}",
    "{% autoescape true %}{{ messages[1].content ~ '<' }}{{ '<' + messages[1].content }}{% endautoescape %}",
    "{{ messages[1].content.upper().lower().startswith('h') }}{{ messages[1].content.find('l') }}",
    "{{ dict(a=1) }}{{ dict.fromkeys([1]) }}{{ missing }}{{ missing | default('d') }}{{ none }}",
    "{{ ' '.join([messages[1].content, 'x']) }}{{ 'a-b'.replace('-', messages[1].content) }}",
    "{{ messages | sum(attribute='x') if false }}{{ [3, 1] | sort }}{{ [1, 1] | unique | list }}{{ [1, 2] | max }}",
    "{{ messages | groupby('role') | list | length }}{{ [1, 2, 3] | batch(2) | list }}{{ [1, 2] | slice(2) | list }}",
    "{% for m in messages recursive %}{{ m.role }}{% endfor %}{{ messages[::-1][0].content }}{{ 3.5 | round | int }}",
    "{% set ns = namespace(a=1) %}{% set ns.b = 'x' %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}{{ ns.items is defined }}",
    "{{ raise_exception('no') }}",
    "{{ messages[9].content }}",
    "{{ messages[1].content + 1 }}",
    "{{ messages[1].content - 1 }}",
    "{{ 9 is divisibleby(num=3) }}{{ 3 is odd }}{{ 'l' is in messages[1].content }}{{ 2 is in [1, 2] }}{{ 'a' is in {'a': 1} }}",
    "{{ 1 < 2 < 3 }}{{ 3 > 2 >= 2 != 1 }}{{ 'a' in 'abc' in ['abc'] }}{{ messages[0] == messages[1] }}{{ (1, 'x') == (1, 'x') }}",
    "{{ {'a' ~ 'b': 1, (1, 2): 3}[(1, 2)] }}{{ messages[0 + 1]['con' ~ 'tent'] }}{{ messages[[1]] is defined }}",
    "{{ [[1], [2]] | sum(start=[]) }}{{ [1, 2.5] | sum }}{{ messages | sum(attribute='missing', start=[]) }}",
    "{{ [[1], [2, 3]] | map('sum') | join('-') }}{{ messages[1].content.rsplit(sep='l') }}",
    "{{ '-'.join(messages | map(attribute='role')) }}",
    "{{ ('%s<' | safe) % '<' }}{{ ('{}<' | safe).format('<') }}{{ ('<' | safe).join(['<', '>']) }}",
    "{% autoescape true %}{{ '<' ~ messages[1].content ~ ('<' | safe) }}{{ ['<'] }}{% endautoescape %}",
    "{% for x in [1, [2, [3]]] recursive %}{{ x if x is number else loop(x) }}{% endfor %}",
    "{% block b %}x{{ self.c() if false }}{% endblock %}{{ self.b() }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 'x', y=messages[1].content) }}{{ m(*[1, 2], **{'z': 3}) }}",
    "{% for x in messages | map(attribute='role') | unique | batch(1) %}{{ x }}{{ loop.changed(x) }}{% endfor %}",
    "{{ messages[1].keys() | list }}{% for v in messages[1].values() %}{{ v }}{% endfor %}{{ messages[1].values() }}",
    "{{ '{:>{}}'.format('x', 5) }}{{ '{a}{b[0]!r}'.format(a=1, b=['x']) }}{{ '{x}'.format_map({'x': messages[1].content}) }}",
    "{{ messages[1].content[::-1] }}{{ messages[1].content[1:3] }}{{ [1, 2, 3][::2] }}{{ range(9)[2:4] | list }}",
    "{{ 'x' | wordwrap(3) }}{{ messages[1].content | wordwrap(2, wrapstring='|') }}",
    "{{ 2.345 | round(1, 'floor') }}{{ 1234 | round(-2) }}",
    "{{ ','.join([1]) }}",
]


@pytest.mark.parametrize("source", FAITHFUL)
def test_a_construct_gives_what_transformers_gives(source: str):
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    chat = [{"role": message.role, "content": message.content} for message in HELLO]
    variables = {"eos_token": "</s>"}
    try:
        texts, _ = transformers.render_jinja_template([chat], chat_template=source, **variables)
    except Exception as refusal:  # noqa: BLE001  # whatever transformers raises, we raise
        with pytest.raises(type(refusal)):
            run(source)
    else:
        assert run(source) == texts[0]


FOLLOWED = [
    "{{ messages[1].content ~ '!' }}",
    "{% filter trim %}{{ messages[1].content }}{% endfilter %}",
    "{{ messages[1].content | safe }}",
    "{{ messages[1].content | string | default('x') | trim }}",
    "{{ messages | map(attribute='content') | join }}",
    "{{ [messages[1].content, 'x'] | join('-') }}",
    "{{ 'a-b'.replace('-', messages[1].content) }}",
    "{{ 'a-b' | replace('-', messages[1].content) }}",
    "{{ '%s!' % messages[1].content }}",
    "{{ '%s!' | format(messages[1].content) }}",
    "{{ '{}!'.format(messages[1].content) }}",
    "{{ messages[1].content | indent }}",
    "{{ messages[1].content | list | join }}",
    "{{ messages[1].content | reverse | reverse }}",
    "{{ {'x': messages[1].content} | tojson }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(messages[1].content) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ messages[1].content }}{% endcall %}",
    "{% set x %}{{ messages[1].content }}{% endset %}{{ x }}",
    "{% set ns = namespace(x='') %}{% set ns.x = ns.x + messages[1].content %}{{ ns.x }}",
    "{% block b %}{{ messages[1].content }}{% endblock %}",
    "{% generation %}{{ messages[1].content }}{% endgeneration %}",
    "{{ messages[1].content if true else '' }}{% for m in messages %}{{ m['con' ~ 'tent'] }}{% endfor %}",
]


@pytest.mark.parametrize("source", FOLLOWED)
def test_the_assistants_text_is_followed(source: str):
    text = run(source)
    mine = [text[start:end] for start, end, who in spans_of(text) if who >> 2 == 1]
    assert "".join(mine).startswith("Hello")


def test_steps_are_those_of_the_settings():
    loop = "{% for i in range(2000) %}{% endfor %}{{ messages[1].content }}"
    assert run(loop) == "Hello"
    with pytest.raises(FAILURES, match=r"more than 1112 steps; see \[render\] max_steps"):
        run(loop, max_steps=1000)


def test_output_is_bounded_by_the_settings():
    with pytest.raises(FAILURES, match=r"101 characters or items where 100 are allowed"):
        run("{{ 'a' * 101 }}", max_output_floor=72)  # 72 + 4 * 7 = 100
