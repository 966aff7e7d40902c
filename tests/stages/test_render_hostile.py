"""Hostile chat templates end soon, small and inside: each runs in a process of its own that is watched from outside.

Every case is tried twice: as the whole template, which must be refused by name, and inside a good template where it acts on
one conversation alone, which must lose that conversation and no other. An attempt to escape may also find nothing.
"""

import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from tests.corpus import ROOT

MAX_SECONDS = 1.5
"""Of CPU, for one build of three conversations."""
MAX_BYTES = 512 << 20
BAIT = "SENTINEL"
"""In a template: the path of a file that it must not make."""

GROW = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}"
NESTED = GROW + "{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
TUPLES = (
    "{% set ns = namespace(x=(1,), y=(1,)) %}{% for i in range(40) %}"
    "{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
)
LONG = "{% set x = 'a' * 50000 %}"
MANY = LONG + "{% for i in range(99999) %}"

ESCAPES = {
    "classes above a string": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes above the messages": "{{ messages.__class__.__base__.__subclasses__() }}",
    "class by item": "{{ messages['__class__']['__base__'] }}",
    "class by a name glued together": "{{ messages[('_' * 2) ~ 'class' ~ ('_' * 2)] }}",
    "class by an escaped name": "{{ messages | attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "class by the filter attr": "{{ messages | attr('__class__') }}{{ (messages | attr('__class__')).x }}",
    "class by the filter map": "{{ (messages | map(attribute='__class__') | list)[0].mro() }}",
    "class by a dotted map": "{{ (messages | map(attribute='content.__class__') | list)[0].mro() }}",
    "class by groupby": "{{ (messages | groupby('__class__'))[0].grouper.mro() }}",
    "class by sum": "{{ messages | sum(attribute='__class__') }}",
    "class by sort": "{{ messages | sort(attribute='__class__') | first | attr('x') }}",
    "class by join": "{{ messages | join(attribute='__class__') }}",
    "class by max": "{{ (messages | map(attribute='__class__') | max).mro() }}",
    "class by format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "class by a nested format": "{{ '{0[0].__class__.__mro__}'.format(messages) }}",
    "class by a nested width": "{{ '{0:{1.__class__}}'.format('', messages) }}",
    "class by format_map": "{{ '{m.__class__.__mro__}'.format_map({'m': messages}) }}",
    "class by a stored format": "{% set f = '{0.__class__.__mro__}'.format %}{{ f(messages) }}",
    "class by attr format": "{{ ('{0.__class__.__mro__}' | attr('format'))(messages) }}",
    "class by mapped format": "{{ (['{0.__class__}'] | map(attribute='format') | first)(messages) }}",
    "class by a safe string's format": "{{ ('{0.__class__.__mro__}' | safe).format(messages) }}",
    "class by a percent format": "{{ '%(x.__class__)s' % {'x': messages} }}",
    "globals of a method": "{{ messages[1].content.__init__.__globals__ }}",
    "globals of a tracked method": "{{ messages[1].content.split.__func__.__globals__ }}",
    "globals of raise_exception": "{{ raise_exception.__globals__ }}",
    "globals of strftime_now": f"{{{{ strftime_now.__globals__['__builtins__']['open']('{BAIT}', 'w') }}}}",
    "globals of namespace": f"{{{{ namespace.__init__.__globals__.os.system('touch {BAIT}') }}}}",
    "globals of lipsum": f"{{{{ lipsum.__globals__.os.system('touch {BAIT}') }}}}",
    "globals of cycler": f"{{{{ cycler.__init__.__globals__.os.popen('touch {BAIT}').read() }}}}",
    "globals of joiner": f"{{{{ joiner.__init__.__globals__.os.popen('touch {BAIT}').read() }}}}",
    "globals of self": f"{{{{ self.__init__.__globals__.__builtins__.open('{BAIT}', 'w') }}}}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}{{ m._func.__globals__ }}",
    "globals of a caller": "{% macro m() %}{{ caller.__class__.__mro__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "globals of the loop": "{% for m in messages %}{{ loop.__init__.__globals__ }}{{ loop._iterator }}{% endfor %}",
    "closure of a wrapped method": "{{ messages[1].content.join.__closure__ }}",
    "frame of a generator": "{{ (messages | map(attribute='role')).gi_frame.f_globals }}",
    "code of a generator": "{{ (messages | map(attribute='role')).gi_code.co_consts }}",
    "origin of a text": "{{ messages[1].content._spans[0] }}",
    "self of a method": "{{ messages[1].content.format.__self__ }}",
    "context of the template": "{{ self._TemplateReference__context.eval_ctx }}",
    "insides of a namespace": "{{ namespace()._Namespace__attrs }}{{ namespace() | attr('_Namespace__attrs') }}",
    "a namespace with a dunder": "{{ namespace(__class__=1) }}",
    "a namespace given a dunder": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__class__ }}",
    "a namespace with an underscore": "{% set ns = namespace() %}{% set ns._x = 1 %}{{ ns._x }}",
    "class of dict": "{{ dict.__class__.__mro__ }}",
    "a cycler": "{{ cycler.__init__ }}",
    "chance by lipsum": "{{ lipsum() }}",
    "chance by a filter": "{{ messages | random }}",
    "a joiner": "{{ joiner(', ') }}",
    "messages appended": "{{ messages.append(1) }}",
    "messages cleared": "{{ messages.clear() }}",
    "a message changed": "{{ messages[1].update(role='user') }}",
    "a message popped": "{{ messages[1].pop('content') }}",
    "a key set": "{{ messages[1].setdefault('x', 1) }}",
    "translate": "{{ 'a'.translate({97: 'b'}) }}",
    "bytes": "{{ 'a'.encode().hex() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as x %}",
    "from import": "{% from '/etc/passwd' import x %}",
    "extends": "{% extends '/etc/passwd' %}",
    "debug": "{% debug %}",
    "do": "{% do messages.append(1) %}",
    "config of a web server": "{{ config.items() }}{{ request.application }}",
}

BOMBS = {
    # much out of little
    "text times a power": "{{ 'a' * 10**9 }}",
    "text times a number": "{{ 'a' * 999999999 }}",
    "message times a number": "{{ messages[1].content * 999999999 }}",
    "list times a number": "{{ [1] * 999999999 }}",
    "tuple times a number": "{{ (1,) * 999999999 }}",
    "list of long texts": LONG + "{{ [x] * 50000 }}",
    "list of long texts, joined": LONG + "{{ ([x] * 50000) | join }}",
    "power of a power": "{{ 10 ** (10 ** 10) }}",
    "power of a negative number": "{{ (-7) ** 99999999 }}",
    "squares in a loop": "{% set ns = namespace(x=3) %}{% for i in range(99999) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "text doubled by +": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "text doubled by ~": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "text doubled by join": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}"
    ),
    "text doubled by format": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}"
    ),
    "text doubled by %": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}"
    ),
    "text doubled by set blocks": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}"
    ),
    "text doubled by a macro": (
        "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}"
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = m(ns.x) %}{% endfor %}"
    ),
    "text escaped again and again": (
        "{% set ns = namespace(x='&' * 999) %}{% for i in range(99) %}{% set ns.x = ns.x | forceescape %}{% endfor %}"
    ),
    "message doubled by +": (
        "{% set ns = namespace(x=messages[1].content) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
    ),
    "message added in a loop": (
        "{% set ns = namespace(x='') %}{% for i in range(90000) %}{% set ns.x = ns.x + messages[1].content %}{% endfor %}"
    ),
    "message written in a loop": "{% for i in range(90000) %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}",
    "list doubled by +": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "nested lists, written": NESTED + "{{ ns.x }}",
    "nested lists, as JSON": NESTED + "{{ ns.x | tojson }}",
    "nested lists, upper case": NESTED + "{{ ns.x | upper }}",
    "nested lists, by %": NESTED + "{{ '%s' % ns.x }}",
    "nested lists, by format": NESTED + "{{ '{}'.format(ns.x) }}",
    "nested lists, as a string": NESTED + "{{ ns.x | string | length }}",
    "nested lists, printed": NESTED + "{{ ns.x | pprint }}",
    "nested lists, joined to a text": NESTED + "{{ 'x' ~ ns.x }}",
    "nested lists, compared": NESTED + "{{ ns.x == ns.y }}",
    "nested lists, ordered": NESTED + "{{ ns.x < ns.y }}",
    "nested lists, sought": NESTED + "{{ ns.x in [ns.y] }}",
    "nested lists, tested": NESTED + "{{ ns.x is eq(ns.y) }}",
    "nested lists, selected": NESTED + "{{ [ns.x] | select('equalto', ns.y) | list | length }}",
    "nested lists, counted": NESTED + "{{ [ns.x].count(ns.y) }}",
    "nested lists, indexed": NESTED + "{{ [ns.x].index(ns.y) }}",
    "nested lists, changed": NESTED + "{% for i in [ns.x, ns.y] %}{{ loop.changed(i) }}{% endfor %}",
    "nested lists, sorted": NESTED + "{{ [ns.x, ns.y] | sort | length }}",
    "nested lists, largest": NESTED + "{{ ([ns.x, ns.y] | max) | length }}",
    "nested lists, in an error": NESTED + "{{ raise_exception(ns.x) }}",
    "nested lists, as a missing key": NESTED + "{{ messages[ns.x].y }}",
    "nested lists, as a missing attribute": NESTED + "{{ messages[0].content[ns.x].y }}",
    "nested tuples, hashed": TUPLES + "{{ {ns.x: 1} | length }}",
    "nested tuples, unique": TUPLES + "{{ [ns.x, ns.y] | unique | list | length }}",
    "nested tuples, looked up": TUPLES + "{{ messages[0][ns.x] }}",
    "nested tuples, looked up by get": TUPLES + "{{ messages[0].get(ns.x) }}",
    "nested tuples, compared": TUPLES + "{{ ns.x == ns.y }}",
    "nested lists, by a macro": (
        "{% macro m() %}{% set ns.x = varargs %}{% endmacro %}{% macro n() %}{% set ns.y = kwargs %}{% endmacro %}"
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(40) %}{{ m(ns.x, ns.x) }}{{ n(a=ns.y, b=ns.y) }}"
        "{% endfor %}{{ ns.x == ns.y }}"
    ),
    "nested dicts, by dict": (
        "{% set ns = namespace(x={}, y={}) %}{% for i in range(40) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}"
        "{% set ns.y = dict.fromkeys('ab', ns.y) %}{% endfor %}{{ ns.x == ns.y }}"
    ),
    "nested lists, by batches": (
        "{% set ns = namespace(x=[1, 1], y=[1, 1]) %}{% for i in range(40) %}{% set ns.x = (ns.x * 2) | batch(2) | list %}"
        "{% set ns.y = (ns.y * 2) | batch(2) | list %}{% endfor %}{{ ns.x == ns.y }}"
    ),
    "nested dicts, compared": (
        "{% set ns = namespace(x={}, y={}) %}{% for i in range(40) %}{% set ns.x = {1: ns.x, 2: ns.x} %}"
        "{% set ns.y = {1: ns.y, 2: ns.y} %}{% endfor %}{{ ns.x == ns.y }}"
    ),
    # loops
    "loop in a loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loop in a loop that keeps nothing": (
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}"
    ),
    "loop in a loop over characters": LONG + "{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
    "a long range": "{% for a in range(99999999999) %}{% endfor %}",
    "a long range, summed": "{{ range(999999999) | sum }}",
    "a long range as keys": "{{ dict.fromkeys(range(99999999)) }}",
    "ranges without loops": "{% for a in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
    "ranges by slices": "{% for a in range(99999) %}{{ range(99999)[::1] | length }}{% endfor %}",
    "lists by slices": "{% set x = range(9999) | list %}{% for a in range(99999) %}{% set y = x[::1] %}{% endfor %}",
    "texts by slices": MANY + "{% set y = x[1:] %}{% endfor %}",
    "texts by steps": MANY + "{% set y = x[::2] %}{% endfor %}",
    "output in a loop": MANY + "{{ x }}{% endfor %}",
    "capital letters in a loop": MANY + "{% set y = x.upper() %}{% endfor %}",
    "search in a loop": MANY + "{% set y = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaab' in x %}{% endfor %}",
    "find in a loop": MANY + "{% set y = x.find('aaaaaaaaaaaaaaaaaaaaaaaaaaaaab') %}{% endfor %}",
    "count in a loop": MANY + "{% set y = x.count('aaaaaaaaaaaaaaaaaaaaaaaaaaaaab') %}{% endfor %}",
    "comparison in a loop": LONG
    + "{% set y = 'a' * 49999 + 'b' %}{% for i in range(199999) %}{{ x == y }}{% endfor %}",
    "membership in a loop": "{% set x = range(9999) | list %}{% for a in range(99999) %}{% set y = -1 in x %}{% endfor %}",
    "words in a loop": MANY + "{% set y = x | wordcount %}{% endfor %}",
    "a test in a loop": MANY + "{% set y = x is lower %}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that calls itself twice, sixty deep": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "a macro that writes nothing": (
        "{% macro m(n) %}{% if n %}{% set x = m(n - 1) %}{% set y = m(n - 1) %}{% endif %}{% endmacro %}"
        "{% set z = m(60) %}"
    ),
    "a caller that calls itself": (
        "{% macro m(n) %}{% if n %}{% call m(n - 1) %}{{ caller() }}{{ caller() }}{% endcall %}{% else %}{{ caller() }}"
        "{% endif %}{% endmacro %}{% call m(40) %}x{% endcall %}"
    ),
    "a recursive loop": "{% for x in [[1]] recursive %}{{ loop([x, x]) }}{% endfor %}",
    "a block that calls itself": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "a filter block in a filter block": "{% filter upper %}" * 12 + "{{ 'a' * 999999999 }}" + "{% endfilter %}" * 12,
    "generators over generators": (
        "{% set ns = namespace(x=[1]) %}{% for i in range(20000) %}{% set ns.x = ns.x | map('string') %}{% endfor %}"
        "{{ ns.x | list }}"
    ),
    # widths
    "center": "{{ 'a'.center(10**9) }}",
    "ljust": "{{ 'a'.ljust(999999999) }}",
    "rjust of a message": "{{ messages[1].content.rjust(999999999) }}",
    "zfill": "{{ '1'.zfill(999999999) }}",
    "expandtabs": "{{ '\t'.expandtabs(999999999) }}",
    "expandtabs of many": "{{ ('\t' * 50000).expandtabs(9999) }}",
    "filter center": "{{ 'a' | center(999999999) }}",
    "filter center, mapped": "{{ ['a'] | map('center', 999999999) | list }}",
    "filter indent": "{{ 'a\nb' | indent(999999999) }}",
    "filter indent of many lines": "{{ ('a\n' * 50000) | indent(9999) }}",
    "filter batch": "{{ [1] | batch(999999999, 0) | list }}",
    "filter slice": "{{ [1] | slice(999999999) | list }}",
    "filter round": "{{ 1.5 | round(999999999) }}",
    "filter round, of a whole number": "{{ 5 | round(-999999999) }}",
    "filter round, upwards": "{{ 5 | round(999999999, 'ceil') }}",
    "filter wordwrap": "{{ ('a' * 50000) | wordwrap(1, wrapstring='x' * 50000) }}",
    "filter truncate": "{{ ('a ' * 30000) | truncate(5, end='x' * 60000) * 99 }}",
    "JSON indent": "{{ messages | tojson(indent=999999999) }}",
    "JSON indent of many": "{{ ([1] * 50000) | tojson(indent=99) }}",
    "JSON separators": LONG + "{{ ([1] * 9999) | tojson(separators=(x, x)) }}",
    "width in a percent format": "{{ '%999999999d' % 1 }}",
    "precision in a percent format": "{{ '%.999999999f' % 1.5 }}",
    "starred width": "{{ '%*d' % (999999999, 1) }}",
    "filter format": "{{ '%999999999d' | format(1) }}",
    "width in a format": "{{ '{:999999999}'.format(1) }}",
    "nested width in a format": "{{ '{:{}}'.format(1, 999999999) }}",
    "a long date": "{{ strftime_now('%Y' * 50000) }}",
    # replace and join
    "replace of nothing": LONG + "{{ x.replace('', x) }}",
    "replace of everything": LONG + "{{ x.replace('a', x) }}",
    "filter replace": LONG + "{{ x | replace('', x) }}",
    "join of long texts": LONG + "{{ x.join([x] * 50000) }}",
    "join of characters": LONG + "{{ x.join(x) }}",
    "filter join": LONG + "{{ x | join(x) }}",
    "filter urlize": "{{ ('www.a.b ' * 9999) | urlize(target='x' * 50000) }}",
    "filter xmlattr": LONG + "{{ {'a': x, 'b': x, 'c': x} | xmlattr }}",
    "filter sum of lists": "{{ ([[1] * 300] * 300) | sum(start=[]) | string * 9 }}",
    # what the tracing sees otherwise than plain Jinja does
    "a bomb for plain Jinja: identity": (
        "{% if (messages[1].content + '') is sameas messages[1].content %}{{ 'a' * 999999999 }}{% endif %}"
        "{{ raise_exception('no') }}"
    ),
    "a bomb for plain Jinja: bytes": "{% set x = 'a'.encode() %}{{ 'a' * 9999999999 }}",
    "a loop for plain Jinja: identity": (
        "{% if (messages[1].content + '') is sameas messages[1].content %}"
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}{{ raise_exception('no') }}"
    ),
    "a loop for plain Jinja: bytes": (
        "{% set x = 'a'.encode() %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
}
BROKEN = {
    "no statement": "{% for %}",
    "an unknown filter": "{{ x | nosuchfilter }}",
    "an unknown test": "{{ x is nosuchtest }}",
    "an unclosed block": "{% if true %}",
    "five thousand brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a sum of a hundred thousand": "{{ " + "1 + " * 100_000 + "1 }}",
    "a hundred thousand filters": "{{ 1" + " | abs" * 100_000 + " }}",
    "ten thousand attributes": "{{ messages" + ".a" * 10_000 + " }}",
    "thirty loops in each other": "{% for i in [1] %}" * 30 + "x" + "{% endfor %}" * 30,
    "three hundred conditions in each other": "{% if true %}" * 300 + "x" + "{% endif %}" * 300,
    "a number of a hundred thousand digits": "{{ " + "9" * 100_000 + " }}",
    "more than a million characters": "x" * 1_000_001,
    "a NUL in a name": "{{ a\0b }}",
}

JAIL = """
import json, resource, signal, sys, time

from schemas.assets import Template
from stages.render import Render, RenderError, render_conversations
from tests.stages.test_render import frame

GOOD = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ANSWERS = [
    [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}] for text in ("Hello", "spring it", "Bye")
]


def attempt(source, whole):
    if not whole:
        source = "{% if messages[0].content == 'spring it' %}" + source + "{% endif %}" + GOOD
    tokens = ("<|im_start|>", "<|im_end|>")
    template = Template(name="the hostile one", source=source, variables={"eos_token": "<|im_end|>"}, control_tokens=tokens)
    try:
        out = render_conversations(frame(*ANSWERS), Render(), template=template)
    except RenderError as error:
        return {"refused": str(error)}
    return {"texts": out["text"].to_list(), "reasons": out["drop_reason"].to_list(), "details": out["detail"].to_list()}


resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
attempt("", True), attempt("", False)
print("ready", flush=True)
for line in sys.stdin:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak of resident memory is counted anew
    signal.setitimer(signal.ITIMER_PROF, 3)  # of CPU; then the signal kills
    start = time.process_time()
    found = attempt(*json.loads(line))
    found["seconds"] = time.process_time() - start
    signal.setitimer(signal.ITIMER_PROF, 0)
    with open("/proc/self/status") as file:
        found["bytes"] = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    print(json.dumps(found), flush=True)
"""

CASES = {**ESCAPES, **BOMBS, **BROKEN}
KEYS = [(name, whole) for name in CASES for whole in (True, False)]
Verdict = dict[str, Any]
Verdicts = dict[tuple[str, bool], Verdict]


def start_jail() -> subprocess.Popen[str]:
    """Start a process that has loaded the code and rendered something."""
    jail = subprocess.Popen(
        [sys.executable, "-c", JAIL], cwd=ROOT, text=True, stdin=PIPE, stdout=PIPE, stderr=subprocess.DEVNULL
    )
    assert jail.stdout is not None
    assert jail.stdout.readline() == "ready\n"
    return jail


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def verdicts(home: Path) -> Verdicts:
    """Run every case in the jail, a new one after each that dies in it, and say how they ended."""
    out: Verdicts = {}
    jail = start_jail()
    for name, whole in KEYS:
        assert jail.stdin is not None
        assert jail.stdout is not None
        jail.stdin.write(json.dumps([CASES[name].replace(BAIT, str(home / BAIT)), whole]) + "\n")
        jail.stdin.flush()
        line = jail.stdout.readline()
        if line:
            out[name, whole] = json.loads(line)
        else:
            jail.communicate()
            out[name, whole] = {"died": jail.returncode}
            jail = start_jail()
    jail.communicate()
    return out


def is_contained(verdict: Verdict) -> None:
    assert "died" not in verdict, "killed after 3 seconds of CPU, or crashed"
    assert verdict["seconds"] < MAX_SECONDS
    assert verdict["bytes"] < MAX_BYTES


GOOD_TEXT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"


def loses_one_row(verdict: Verdict, *, may_find_nothing: bool) -> None:
    hello, sprung, bye = (GOOD_TEXT.format(said) for said in ("Hello", "spring it", "Bye"))
    if may_find_nothing and verdict["texts"][1] is not None:
        assert verdict["texts"] == [hello, sprung, bye]
        return
    assert verdict["texts"] == [hello, None, bye]
    assert verdict["reasons"] == [None, "template_error", None]
    assert len(verdict["details"][1]) < 1000


@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_is_refused_or_finds_nothing(name: str, verdicts: Verdicts):
    alone, within = verdicts[name, True], verdicts[name, False]
    is_contained(alone)
    is_contained(within)
    assert "the hostile one" in alone["refused"]  # of itself it writes nothing of what the assistant says
    if "refused" in within:
        assert "the hostile one" in within["refused"]
    else:
        loses_one_row(within, may_find_nothing=True)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_name_and_loses_one_row(name: str, verdicts: Verdicts):
    alone, within = verdicts[name, True], verdicts[name, False]
    is_contained(alone)
    is_contained(within)
    assert "the hostile one" in alone["refused"]
    loses_one_row(within, may_find_nothing=False)


@pytest.mark.parametrize("name", BROKEN)
def test_a_template_that_does_not_compile_is_refused_by_name(name: str, verdicts: Verdicts):
    is_contained(verdicts[name, True])
    assert "the hostile one" in verdicts[name, True]["refused"]


def test_no_file_was_made(home: Path, verdicts: Verdicts):
    assert len(verdicts) == 2 * len(CASES)
    assert not (home / BAIT).exists()


def test_the_jail_sees_what_it_is_there_to_see():
    """Memory that is taken and given back shows; so does time, after which the case is killed."""
    jail = start_jail()
    small, large = ("{{ 'a' * 90000 }}", False), ("{{ ('a' * 90000) | list | length }}", False)
    answers = []
    for case in (small, large):
        print(json.dumps(case), file=jail.stdin, flush=True)
        answers.append(json.loads(jail.stdout.readline()))
    jail.communicate()
    assert answers[1]["bytes"] > answers[0]["bytes"] > 0
