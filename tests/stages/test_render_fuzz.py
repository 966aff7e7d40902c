"""Templates drawn from a grammar: on symbols, traced, alone, in any order and by plain Jinja they must all say the same."""

import random
import re
from typing import Any, Final

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from schemas.assets import Template
from stages.render import Render, RenderError, paths, program, render_conversations, stage
from stages.render.inputs import Message
from stages.render.renderer import FAILURES
from tests.stages.test_render import frame

N_TEMPLATES: Final = 15
FIRST_MARK: Final = 0xE000
"""Of the private characters that only one message's content, or the next one its reasoning, is given: they tell the author."""
LITERALS: Final = (
    *("a", "b", "ab", "x", "?", "no", " ", "", "<t>", "</t>", "</s>"),
    *(r"\n", r"\n\n", r"\t", r"\u2003", r"\x1c"),
)
FRAGMENTS: Final = (
    *("a", "b", "ab", "x", "?", "no", " ", "A", "ß", "汉", "😀", "<t>", "</t>", "</s>", "&<", "%s", "{}"),
    *("\n", "\n\n", "\t", "\u2003", "\x1c", "\x85", "\xa0", "\0"),
)
BLANK: Final = ("", " ", "\n", "\u2003", "\x1c")

# T is a text, B a yes or no, L a literal, S statements. The first line of each ends every growth; the second seldom, or never,
# needs more of a text than symbols show; the third does.
GRAMMAR: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "T": (
        (
            *("m.content", "m.content", "m['content']", "m.get('content')", "m.role", "L", "ns.x", "ns.y"),
            *("messages[0].content", "messages[-1].content", "(m.reasoning_content or '')"),
        ),
        (
            *("(T | trim)", "(T).strip()", "(T).lstrip()", r"(T).rstrip('\n')", "(T).split(L)[0]", "(T).split(L)[-1]"),
            *("(T).replace(L, L)", "(T | replace(L, L))", "(T + T)", "(T ~ T)", "(T ~ loop.index0 ~ T)", "(T if B else T)"),
            *("f(T)", "g(T, T)", "(T | default(L, true))", "(T | string)", "(T or T)", "(T and T)", "{'a': T}.a"),
            *("[T, T][1]", "(T | attr('strip'))()", "namespace(q=T).q", "([T] | map('trim') | first)", "((T, T) | last)"),
            "(messages | map(attribute='content') | last)",
        ),
        (
            *("(T).strip(L)", "(T)[:3]", "(T)[1:]", "(T | upper)", "([T, T] | join(L))", "('%s' | format(T))", "(T | first)"),
            *("(T).removeprefix(L)", "(T | tojson)", "(T).partition(L)[2]", "((T).splitlines() | join(L))", "(T | indent(2))"),
        ),
    ),
    "B": (
        (
            *("loop.first", "loop.last", "m.role == 'user'", "m.role != 'assistant'", "L in m.content", "m.content == L"),
            *("m.content.startswith(L)", "m.reasoning_content is defined", "add_generation_prompt", "messages | length > 3"),
        ),
        (
            *("L in T", "(T).startswith(L)", "(T).endswith(L)", "T == L", "L != T", "not (B)", "(B and B)", "(B or B)", "T"),
            *("T in [L, L]", "T not in (L, L)", "T is eq(L)", "T is in [L]", "T is string", "T is none", "T is mapping"),
            *("[T].count(L) == 1", "(T, 1) == (L, 1)", "messages[0] == m", "(T | attr('title')) is defined"),
            "(messages | rejectattr('content', 'in', [L]) | list | length) > 1",
        ),
        ("T == T", "T in T", "T < T", "(T | length) > 3", "T is sameas none"),
    ),
    "S": (
        ("{{ T }}", "{{ T }}", "{{ T }}", "[", "\n", " lit ", "</s>", "{% set ns.x = T %}", "{% set ns.y = T %}"),
        (
            *("{% if B %}SS{% elif B %}S{% else %}S{% endif %}", "{%- if B -%} S {%- endif -%}", "{% set v = T %}{{ v ~ v }}"),
            *("{% set v %}S{% endset %}{{ v }}", "{% for m in messages[1:] %}SS{% endfor %}"),
            *("{% with w = T %}{{ w }}{% endwith %}", "{% for m in messages %}{% if B %}{% continue %}{% endif %}S{% endfor %}"),
            *("{% for m in messages %}S{% if B %}{% break %}{% endif %}{% endfor %}",),
            *("{% call h(T) %}S{% endcall %}", "{% generation %}S{% endgeneration %}", "{% filter trim %}S{% endfilter %}"),
        ),
        (
            *("{% filter upper %}S{% endfilter %}", "{% autoescape true %}S{% endautoescape %}"),
            *("{% autoescape true %}{% set ns.x = T %}{% endautoescape %}", "{% if B %}{{ raise_exception(T) }}{% endif %}"),
        ),
    ),
}  # fmt: skip
SYMBOL: Final = re.compile(r"\b[TBL]\b|S(?=[S{% ]|$)")
PRELUDE: Final = (
    "{% set ns = namespace(x='', y=messages[0].content) %}{% macro f(x) %}<{{ x }}>{% endmacro %}"
    "{% macro g(x, y='d') %}{% if x %}{{ x ~ y }}{% else %}{{ y | trim }}{% endif %}{% endmacro %}"
    "{% macro h(x) %}({{ caller() }}{{ x }}{{ caller() }}){% endmacro %}"
)
THINK: Final = (
    "",
    "{% if m.reasoning_content %}<th>{{ m.reasoning_content.strip() }}</th>{% endif %}",
    "{% if m.reasoning_content is defined and not loop.last %}{{ m.reasoning_content }}{% endif %}",
)
ENDS: Final = (
    "{{ m.content }}",
    "{{ m.content | trim }}",
    "{{ m.content.strip() }}",
    r"{{ m['content'].lstrip('\n') }}",
)


def grown(symbol: str, depth: int, draw: random.Random, n_kinds: int) -> str:
    """Return a text of the grammar; `n_kinds` is 2 where symbols shall mostly do, and 3 for any."""
    if symbol == "L":
        return f"'{draw.choice(LITERALS)}'"
    kinds = GRAMMAR[symbol][:n_kinds] if depth > 0 else GRAMMAR[symbol][:1]
    rule = draw.choice([rule for kind in kinds for rule in kind])
    return SYMBOL.sub(lambda match: grown(match.group(), depth - 1, draw, n_kinds), rule)


def any_template(draw: random.Random) -> str:
    """Return a template that writes question and answer plainly, and more in longer conversations."""
    n_kinds = draw.choice((2, 2, 2, 3))
    first, last = ("".join(grown("S", 3, draw, n_kinds) for _ in range(draw.randint(1, 3))) for _ in range(2))
    guarded = "{% if messages | length > 2 %}"
    body = "[{{ m.role }}]" + guarded + first + "{% endif %}" + draw.choice(THINK) + draw.choice(ENDS) + "</s>"
    return PRELUDE + "{% for m in messages %}" + body + guarded + last + "{% endif %}{% endfor %}"


def any_text(draw: random.Random, mark: int) -> str:
    if draw.random() < 0.04:
        return draw.choice(BLANK)
    pieces = [draw.choice(FRAGMENTS) for _ in range(draw.choice((1, 1, 2, 3, 5)))]
    if draw.random() < 0.7:
        pieces.insert(draw.randrange(len(pieces) + 1), chr(mark))
    return "".join(pieces)


def any_chats(draw: random.Random, n: int) -> list[list[dict[str, Any]]]:
    """Return conversations of a few forms."""
    forms = []
    for _ in range(n // 4):
        form = [("system", False)] if draw.random() < 0.3 else []
        for _ in range(draw.randint(1, 3)):
            form += [("user", False), ("assistant", draw.random() < 0.3)]
        forms.append(form + draw.choice([[], [], [], [("tool", False)], [("user", False)], [("bogus", False)]]))
    chats = []
    for _ in range(n):
        chat = []
        for at, (role, has_reasoning) in enumerate(draw.choice(forms)):
            message = {"role": role, "content": any_text(draw, FIRST_MARK + 2 * at)}
            if has_reasoning:
                message["reasoning"] = any_text(draw, FIRST_MARK + 2 * at + 1)
            chat.append(message)
        chats.append(chat)
    return chats


def assert_partition_by_author(row: dict[str, Any]) -> None:
    at = 0
    for span in row["spans"]:
        assert span["start"] == at < span["end"]
        at = span["end"]
        if span["class"] in ("content", "reasoning", "tool_result") and span["message"] >= 0:
            author = chr(FIRST_MARK + 2 * span["message"] + (span["class"] == "reasoning"))
            text = row["text"][span["start"] : at]
            assert not re.search(f"(?!{author})[\ue000-\ue0ff]", text), f"{text!r} in {span}"
    assert at == len(row["text"])


def assert_all_ways_agree(template: Template, chats: list[list[dict[str, Any]]]) -> int:
    """Compare everything there is to compare; return the number of conversations that have a text."""
    config = Render(verify=0)
    rows = frame(*chats)

    def render(rows: pl.DataFrame) -> pl.DataFrame:
        return render_conversations(rows, config, template=template).drop("id")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "MAX_FORM", -1)
        try:
            traced = render(rows)
        except RenderError:
            return 0  # it rewrites even the simplest answer
    out = render(rows)
    assert_frame_equal(out, traced)
    backwards = list(range(rows.height))[::-1]
    assert_frame_equal(render(rows[backwards]), out[backwards])
    program._made.cache_clear()
    assert_frame_equal(pl.concat([render(rows[row]) for row in range(0, len(chats), 3)]), out.gather_every(3))
    compiled, known, *_ = program.program(template, config)
    for chat, row in zip(chats, out.to_dicts(), strict=True):
        if row["drop_reason"] == "control_token" or "LimitError" in (row["detail"] or ""):
            continue  # plain Jinja knows neither
        messages = [Message(message["role"], message["content"], message.get("reasoning")) for message in chat]
        try:
            expected = compiled.plain_text(messages, shape=known.shape)
        except FAILURES:
            expected = None
        assert row["text"] == expected
        if expected is not None:
            assert_partition_by_author(row)
    return len(chats) - out["text"].null_count()


@pytest.mark.parametrize("seed", range(8))
def test_any_template_says_the_same_in_every_way_it_is_run(seed, monkeypatch):
    monkeypatch.setattr(paths, "PATIENCE", 1)
    n_texts = 0
    for at in range(N_TEMPLATES):
        draw = random.Random(1000 * seed + at)
        template = Template(name=f"{seed}/{at}", source=any_template(draw), control_tokens=("</s>",))
        chats = any_chats(draw, 12)
        try:
            n_texts += assert_all_ways_agree(template, chats)
        except Exception as error:
            error.add_note(f"seed {seed}, template {at}:\n{template.source}\nconversations:\n{chats}")
            raise
    assert n_texts > 4 * N_TEMPLATES
