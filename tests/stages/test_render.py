"""Rendering: transformers' text, and a partition of it by author."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import fields as f
from schemas import tables
from schemas.assets import Template
from schemas.conform import conform
from stages.render import Render, RenderError, probe, render_conversations
from stages.render.inputs import Message, Shape, build
from tests.stages.render_templates import ALL, BRACKETS, CHATML, HEADERS, INSTRUCTIONS, MACROS, THINKING, TURNS

BLANK: dict[str, Any] = dict.fromkeys(("content", "reasoning", "tool_calls", "tool_call_id", "name", "weight"))
CALL = {"id": "call12345", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}}
Piece = tuple[str, str, int, str]


def frame(*conversations: list[dict[str, Any]], tools: str | None = None) -> pl.DataFrame:
    rows = [[BLANK | message for message in conversation] for conversation in conversations]
    table = pa.table(
        {
            "id": [f"a:{index}" for index in range(1, len(rows) + 1)],
            "split": ["train"] * len(rows),
            "messages": pa.array(rows, pa.list_(f.MESSAGE)),
            "tools": pa.array([tools] * len(rows), pa.string()),
        }
    )
    out = pl.from_arrow(table)
    assert isinstance(out, pl.DataFrame)
    return out


def say(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


def pieces(row: dict[str, Any]) -> list[Piece]:
    """Return (class, role, message, text) of each span, having checked that the spans are a partition."""
    at = 0
    out: list[Piece] = []
    for span in row["spans"]:
        assert span["start"] == at < span["end"]
        at = span["end"]
        out.append((span["class"], span["role"], span["message"], row["text"][span["start"] : at]))
    assert at == len(row["text"])
    for left, right in itertools.pairwise(out):
        assert (left[0], left[2]) != (right[0], right[2]), "neighbours differ"
    return out


def render(template: Template, *messages: dict[str, Any], tools: str | None = None, **config: Any) -> list[Piece]:
    out = render_conversations(frame(list(messages), tools=tools), Render(**config), template=template)
    assert out["drop_reason"].to_list() == [None], out["detail"].to_list()
    return pieces(out.to_dicts()[0])


def expected(template: Template, messages: list[dict[str, Any]], tools: str | None, shape: Shape) -> str:
    """Render with transformers itself."""
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    canonical = [Message(*(message.get(name) for name in Message._fields)) for message in messages]
    texts, _ = transformers.render_jinja_template(
        [build(canonical, shape, tracing=False)],
        tools=None if tools is None else json.loads(tools),
        chat_template=template.source,
        **template.variables,
    )
    return str(texts[0])


def test_chatml_turn_is_content_and_stop():
    assert render(CHATML, *say(("user", "Hi"), ("assistant", "Hello"))) == [
        ("template", "", -1, "<|im_start|>user\n"),
        ("content", "user", 0, "Hi"),
        ("template", "", -1, "<|im_end|>\n"),
        ("generation_prompt", "assistant", 1, "<|im_start|>assistant\n"),
        ("content", "assistant", 1, "Hello"),
        ("stop", "assistant", 1, "<|im_end|>"),
        ("template", "", -1, "\n"),
    ]


def test_a_trimmed_character_is_in_no_span():
    assert render(HEADERS, *say(("user", " Hi\n"), ("assistant", "\nHello  there ")))[-2:] == [
        ("content", "assistant", 1, "Hello  there"),
        ("stop", "assistant", 1, "<|eot|>"),
    ]


def test_leading_and_closing_spaces_are_scaffold_where_there_is_no_header():
    conversation = say(
        ("system", "Be kind"), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Ok")
    )
    assert render(INSTRUCTIONS, *conversation) == [
        ("template", "", -1, "<s>[INST] <<SYS>>\n"),
        ("content", "system", 0, "Be kind"),
        ("template", "", -1, "\n<</SYS>>\n\n"),
        ("content", "user", 1, "Hi"),
        ("template", "", -1, " [/INST]"),
        ("scaffold", "assistant", 2, " "),
        ("content", "assistant", 2, "Hello"),
        ("scaffold", "assistant", 2, " "),
        ("stop", "assistant", 2, "</s>"),
        ("template", "", -1, "<s>[INST] "),
        ("content", "user", 3, "Bye"),
        ("template", "", -1, " [/INST]"),
        ("scaffold", "assistant", 4, " "),
        ("content", "assistant", 4, "Ok"),
        ("scaffold", "assistant", 4, " "),
        ("stop", "assistant", 4, "</s>"),
    ]


def test_a_renamed_role_is_still_the_assistant():
    assert render(TURNS, *say(("user", "Hi"), ("assistant", "Hello")))[-4:-1] == [
        ("generation_prompt", "assistant", 1, "<turn>model\n"),
        ("content", "assistant", 1, "Hello"),
        ("stop", "assistant", 1, "</turn>"),
    ]


def test_thinking_has_a_class_of_its_own_and_its_tags_are_scaffold():
    question, answer = say(("user", "2+2?"), ("assistant", "4"))
    assert render(THINKING, question, answer | {"reasoning": "two and two"})[-6:-1] == [
        ("scaffold", "assistant", 1, "<think>\n"),
        ("reasoning", "assistant", 1, "two and two"),
        ("scaffold", "assistant", 1, "\n</think>\n\n"),
        ("content", "assistant", 1, "4"),
        ("stop", "assistant", 1, "<|im_end|>"),
    ]


def test_thinking_that_the_template_cuts_out_of_the_content_stays_content():
    assert render(THINKING, *say(("user", "2+2?"), ("assistant", "<think>\nhm\n</think>\n\n4")))[-6:-1] == [
        ("scaffold", "assistant", 1, "<think>\n"),
        ("content", "assistant", 1, "hm"),
        ("scaffold", "assistant", 1, "\n</think>\n\n"),
        ("content", "assistant", 1, "4"),
        ("stop", "assistant", 1, "<|im_end|>"),
    ]


def calling(template: Template) -> list[Piece]:
    call = {"role": "assistant", "tool_calls": json.dumps([CALL])}
    result = {"role": "tool", "content": "found", "tool_call_id": "call12345"}
    return render(template, *say(("user", "Find x")), call, result, *say(("assistant", "Here")))


def test_arguments_stay_the_text_they_are_where_the_template_takes_text():
    assert calling(THINKING)[4:11] == [
        ("scaffold", "assistant", 1, '\n<call>\n{"name": "'),
        ("tool_call", "assistant", 1, "look"),
        ("scaffold", "assistant", 1, '", "arguments": '),
        ("tool_call", "assistant", 1, '{"at":"x"}'),
        ("scaffold", "assistant", 1, "}\n</call>"),
        ("stop", "assistant", 1, "<|im_end|>"),
        ("template", "", -1, "\n<|im_start|>user\n<result>\n"),
    ]


def test_arguments_are_an_object_where_the_template_would_write_json_in_json():
    assert calling(CHATML)[4:7] == [
        ("scaffold", "assistant", 1, "<tool_call>\n"),
        ("tool_call", "assistant", 1, '{"name": "look", "arguments": {"at": "x"}}'),
        ("scaffold", "assistant", 1, "\n</tool_call>"),
    ]


def test_content_is_none_beside_calls_where_the_template_writes_calls_only_then():
    assert calling(MACROS)[3:9] == [
        ("scaffold", "assistant", 1, "<|call|>"),
        ("tool_call", "assistant", 1, "look"),
        ("scaffold", "assistant", 1, "\n"),
        ("tool_call", "assistant", 1, '{"at":"x"}'),
        ("scaffold", "assistant", 1, "<|/call|>"),
        ("stop", "assistant", 1, "<|eos|>"),
    ]


def test_a_call_opens_its_turn_without_a_header():
    assert calling(BRACKETS)[2:] == [
        ("template", "", -1, "[/INST]"),
        ("scaffold", "assistant", 1, "[CALLS]["),
        ("tool_call", "assistant", 1, '{"name": "look", "arguments": {"at": "x"}'),
        ("scaffold", "assistant", 1, ', "id": "'),
        ("tool_call", "assistant", 1, "call12345"),
        ("scaffold", "assistant", 1, '"}]'),
        ("stop", "assistant", 1, "</s>"),
        ("template", "", -1, '[RESULT]{"content": '),
        ("tool_result", "tool", 2, "found"),
        ("template", "", -1, ', "id": "'),
        ("tool_result", "tool", 2, "call12345"),
        ("template", "", -1, '"}[/RESULT]'),
        ("content", "assistant", 3, "Here"),
        ("stop", "assistant", 3, "</s>"),
    ]


def test_tool_schemas_have_a_class_of_their_own():
    tools = '[{"type": "function", "function": {"name": "look"}}]'
    assert render(BRACKETS, *say(("user", "Hi"), ("assistant", "Hello")), tools=tools)[:3] == [
        ("template", "", -1, "<s>[TOOLS]"),
        ("tools", "", -1, tools),
        ("template", "", -1, "[/TOOLS][INST]"),
    ]


@pytest.mark.parametrize("spelled", ["</s>", r"\u003c/s>", "[INST] <s>"])
def test_a_control_token_in_a_tool_schema_is_the_schemas(spelled):
    tools = '[{"type": "function", "function": {"name": "' + spelled + '"}}]'
    found = render(BRACKETS, *say(("user", "Hi"), ("assistant", "Hello")), tools=tools)
    assert found[1] == ("tools", "", -1, json.dumps(json.loads(tools), ensure_ascii=False))


def test_a_control_token_in_content_is_content_and_no_stop():
    assert render(CHATML, *say(("user", "Hi"), ("assistant", "a<|im_end|>b")))[4:6] == [
        ("content", "assistant", 1, "a<|im_end|>b"),
        ("stop", "assistant", 1, "<|im_end|>"),
    ]


def test_a_message_weight_goes_with_its_spans_and_stop():
    conversation = say(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Ok"))
    conversation[1]["weight"] = 0.0
    spans = render_conversations(frame(conversation), Render(), template=CHATML)["spans"].to_list()[0]
    assert [(span["class"], span["weight"]) for span in spans if span["message"] == 1] == [
        ("generation_prompt", 0.0),
        ("content", 0.0),
        ("stop", 0.0),
    ]
    assert {span["weight"] for span in spans if span["message"] != 1} == {None}


def test_an_empty_answer_has_no_turn():
    out = render_conversations(frame(say(("user", "Hi"), ("assistant", ""))), Render(), template=CHATML)
    assert out["drop_reason"].to_list() == [None]
    assert out["detail"].to_list() == [None]
    assert [piece[:3] for piece in pieces(out.to_dicts()[0])] == [
        ("template", "", -1),
        ("content", "user", 0),
        ("template", "", -1),
    ]


def test_the_stop_of_an_empty_answer_is_not_its_neighbours():
    conversation = say(("user", "Hi"), ("assistant", "One"), ("assistant", ""), ("user", "Bye"), ("assistant", "Two"))
    assert [piece for piece in render(CHATML, *conversation) if piece[0] == "stop"] == [
        ("stop", "assistant", 1, "<|im_end|>"),
        ("stop", "assistant", 4, "<|im_end|>"),
    ]


def test_a_refused_row_is_marked_and_its_neighbours_are_kept():
    good, bad = say(("user", "Hi"), ("assistant", "Hello")), say(("assistant", "Hello"))
    out = render_conversations(frame(good, bad, good), Render(), template=INSTRUCTIONS)
    assert out["drop_reason"].to_list() == [None, "template_error", None]
    assert out["detail"].to_list() == [None, "TemplateError: roles must alternate", None]
    assert out["text"].is_null().to_list() == [False, True, False]
    assert out["spans"].is_null().to_list() == [False, True, False]
    assert pieces(out.to_dicts()[2]) == pieces(out.to_dicts()[0])


def test_broken_tool_calls_are_the_rows_fault():
    broken = {"role": "assistant", "tool_calls": "[{"}
    out = render_conversations(frame([*say(("user", "Hi")), broken]), Render(), template=CHATML)
    assert out["drop_reason"].to_list() == ["template_error"]
    assert out["detail"][0].startswith("ValueError: message 1: tool_calls is not JSON")


SURROGATE = '[{"type": "function", "function": {"name": "look", "arguments": {"at": "\\ud83d"}}}]'


def test_half_a_surrogate_pair_costs_its_row_alone():
    template = Template(
        name="tools",
        source="{{ tools | tojson if tools }}{% for m in messages %}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}"
        "{% if '!' in m.content %}{{ '\\ud800' }}{% endif %}</s>{% endfor %}",
        control_tokens=("</s>",),
    )
    calling = [*say(("user", "Hi")), {"role": "assistant", "tool_calls": SURROGATE}]
    asked, good = say(("user", "Hi!"), ("assistant", "Hello")), say(("user", "Hi"), ("assistant", "Hello"))
    out = render_conversations(frame(calling, asked, good), Render(), template=template)
    assert out["drop_reason"].to_list() == ["lone_surrogate", "lone_surrogate", None]
    out = render_conversations(frame(good, tools=SURROGATE), Render(), template=template)
    assert out["drop_reason"].to_list() == ["lone_surrogate"]


def test_text_that_differs_from_plain_jinja_stops_the_build():
    """Only plain Python returns the very object where nothing is added to it, so here the two disagree."""
    disputed = Template(
        name="disputed",
        source="{% for m in messages %}{{ m.content }}"
        "{% if messages | length > 2 and (m.content + '') is sameas m.content %}!{% endif %}{% endfor %}",
    )
    conversation = frame(say(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")))
    with pytest.raises(RenderError, match="template disputed, row a:1: the tracing renderer gives other text"):
        render_conversations(conversation, Render(), template=disputed)
    out = render_conversations(conversation, Render(verify=0), template=disputed)
    assert out["text"].to_list() == ["HiHelloBye"]


def test_plain_jinja_is_counted_too():
    """It would otherwise translate, and go on to count to a hundred million."""
    hostile = Template(
        name="hostile",
        source="{% for m in messages %}{{ m.content }}{% endfor %}{% if messages | length > 2 %}{{ 'a'.translate({}) }}"
        "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}{% endif %}",
    )
    conversation = frame(say(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")))
    out = render_conversations(conversation, Render(), template=hostile)
    assert out["detail"].to_list() == ["SecurityError: a chat template cannot call translate"]


def test_the_output_conforms_and_the_stage_is_pure():
    given_frame = frame(say(("user", "Hi"), ("assistant", "Hello")))
    before = given_frame.clone()
    out = render_conversations(given_frame, Render(), template=CHATML)
    assert given_frame.equals(before)
    assert out.equals(render_conversations(given_frame, Render(), template=CHATML))
    assert conform(out.to_arrow(), tables.RENDERED).num_rows == 1
    assert out.columns == ["id", "split", "text", "spans", "notes", "detail", "drop_reason"]


def test_an_empty_frame_gives_an_empty_frame():
    out = render_conversations(frame(), Render(), template=CHATML)
    assert conform(out.to_arrow(), tables.RENDERED).num_rows == 0


def test_rows_are_rendered_alone():
    rows = [say(("user", str(index)), ("assistant", "a" * index)) for index in range(6)]
    whole = render_conversations(frame(*rows), Render(), template=THINKING)
    halves = [render_conversations(frame(*rows).slice(at, 3), Render(), template=THINKING) for at in (0, 3)]
    assert whole.equals(pl.concat(halves))


def test_roles_and_weights_are_those_of_the_rows_own_messages():
    first, second = say(("user", "a"), ("assistant", "b")), say(("system", "c"), ("user", "d"), ("assistant", "e"))
    second[2]["weight"] = 0.5
    rows = render_conversations(frame(first, second, first), Render(), template=CHATML)["spans"].to_list()
    spoken = [[(span["role"], span["weight"]) for span in row if span["class"] == "content"] for row in rows]
    assert spoken == [
        [("user", None), ("assistant", None)],
        [("system", None), ("user", None), ("assistant", 0.5)],
        [("user", None), ("assistant", None)],
    ]


def test_the_date_is_the_configs():
    dated = Template(
        name="dated",
        source="{{ strftime_now('%d %b %Y') }}{% for m in messages %}<{{ m.content }}>{% endfor %}",
        control_tokens=(">",),
    )
    conversation = frame(say(("user", "Hi"), ("assistant", "Hello")))
    assert render_conversations(conversation, Render(), template=dated)["text"][0] == "26 Jul 2024<Hi><Hello>"
    assert (
        render_conversations(conversation, Render(date="2031-01-02"), template=dated)["text"][0][:11] == "02 Jan 2031"
    )
    with pytest.raises(RenderError, match="write it as YYYY-MM-DD"):
        render_conversations(conversation, Render(date="yesterday"), template=dated)


@pytest.mark.parametrize("template", ALL, ids=lambda template: template.name)
def test_text_equals_transformers(template: Template):
    shape = probe(template, Render()).shape
    call = {"role": "assistant", "tool_calls": json.dumps([CALL])}
    result = {"role": "tool", "content": "found", "tool_call_id": "call12345"}
    for conversation, tools in (
        (say(("system", "S"), ("user", " a "), ("assistant", "\nb\n")), None),
        ([*say(("user", "é🙂")), call, result, *say(("assistant", "{{ x }}"))], '[{"type": "function", "x": "é<"}]'),
        ([*say(("user", "q")), {"role": "assistant", "content": "a", "reasoning": "\nr"}], None),
    ):
        out = render_conversations(frame(conversation, tools=tools), Render(), template=template)
        if out["text"][0] is None:
            with pytest.raises(Exception, match="roles must alternate"):
                expected(template, conversation, tools, shape)
        else:
            assert out["text"][0] == expected(template, conversation, tools, shape)


CONTENT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            "{{ messages }}",
            "{% raw %}",
            "<|im_end|>\n<|im_start|>user\n",
            "</think>",
            "<think>a</think>b",
            "</s>",
        ]
    ),
    st.text(alphabet="{}%<|>/ \ntoolINS[]", max_size=20),
)


@pytest.mark.parametrize("template", ALL, ids=lambda template: template.name)
@settings(max_examples=40, deadline=None)
@given(contents=st.lists(CONTENT, min_size=2, max_size=6))
def test_any_content_is_rendered_as_by_transformers_and_followed(template: Template, contents: list[str]):
    conversation = say(*((("user", "assistant")[index % 2], text) for index, text in enumerate(contents)))
    row = render_conversations(frame(conversation), Render(verify=1), template=template).to_dicts()[0]
    assert row["drop_reason"] is None
    assert row["text"] == expected(template, conversation, None, Shape())
    written = pieces(row)
    for index, content in enumerate(contents):
        mine = "".join(text for kind, _, message, text in written if message == index and kind == "content")
        if template in (CHATML, MACROS, BRACKETS):
            assert mine == content
        elif template is not THINKING:
            assert mine == content.strip()
        if index % 2 and mine:
            assert [kind for kind, _, message, _ in written if message == index][-1] == "stop"


FOLDER = os.environ.get("CHATLOOM_TOKENIZERS")


@pytest.mark.skipif(not FOLDER, reason="CHATLOOM_TOKENIZERS names no folder of tokenizers")
def test_text_equals_transformers_on_the_tokenizers_of_a_folder():
    """For every tokenizer_config.json with a chat template under the folder."""
    seen = 0
    for path in sorted(Path(str(FOLDER)).rglob("tokenizer_config.json")):
        settings_ = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings_.get("chat_template"), str):
            continue
        variables = {
            name: token if isinstance(token, str) else token["content"]
            for name in ("bos_token", "eos_token", "pad_token", "unk_token")
            if (token := settings_.get(name)) is not None
        }
        added = json.loads(path.with_name("tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        template = Template(
            name=str(path),
            source=settings_["chat_template"],
            variables=variables,
            control_tokens=tuple(token["content"] for token in added if token["special"]),
        )
        conversation = say(("user", " Hi {{ x }} "), ("assistant", "\nHello é🙂"), ("user", "Bye"), ("assistant", "Ok"))
        out = render_conversations(frame(conversation), Render(), template=template).to_dicts()[0]
        assert out["text"] == expected(template, conversation, None, probe(template, Render()).shape)
        assert [piece[0] for piece in pieces(out) if piece[2] == 3][-1] == "stop", path
        seen += 1
    assert seen
