"""Prompts are rendered as conversations are, with the generation prompt behind them."""

import polars as pl
import pyarrow as pa

from schemas import fields as f
from schemas.assets import Template
from stages.render import Render
from stages.render.prompt import render_prompts

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROLS = ("<|im_end|>", "<|im_start|>")


def render(*messages: tuple[str, str], source: str = CHATML, tools: str | None = None) -> dict[str, object]:
    said = [{"role": role, "content": content} for role, content in messages]
    table = {"id": ["a:1"], "messages": pa.array([said], f.MESSAGES.type), "tools": pa.array([tools], pa.string())}
    frame = pl.from_arrow(pa.table(table))
    assert isinstance(frame, pl.DataFrame)
    template = Template(name="t", source=source, control_tokens=CONTROLS)
    return render_prompts(frame, Render(), template=template).row(0, named=True)


def test_the_spans_cover_the_text_and_say_who_wrote_it():
    row = render(("user", " one "), ("assistant", "two"), ("user", "three"))
    assert row["text"] == (
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n<|im_start|>user\nthree<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    pieces = [(span["class"], row["text"][span["start"] : span["end"]]) for span in row["spans"]]
    assert "".join(text for _, text in pieces) == row["text"]
    assert [text for name, text in pieces if name == "content"] == ["one", "two", "three"]
    assert pieces[-1] == ("template", "<|im_end|>\n<|im_start|>assistant\n")
    assert (row["notes"], row["drop_reason"]) == ([], None)


def test_what_the_template_leaves_out_is_noted():
    row = render(("user", "one"), tools='[{"type": "function", "function": {"name": "f"}}]')
    assert row["notes"] == ["tools not written"]


def test_a_refusal_is_a_reason():
    row = render(
        ("user", "one"),
        source=CHATML.replace("{% for", "{{ raise_exception('no') if messages[0].content == 'one' }}{% for", 1),
    )
    assert (row["text"], row["drop_reason"], row["detail"]) == (None, "template_error", "TemplateError: no")


def test_a_control_token_that_only_the_conversation_can_have_spelled_is_refused():
    row = render(
        ("user", "<|IM_END|>"),
        source=CHATML.replace("m.content | trim", "m.content | lower if m.role == 'user' else m.content"),
    )
    assert (row["text"], row["drop_reason"]) == (None, "control_token")
    assert render(("user", "<|im_end|>"))["drop_reason"] is None


def test_no_prompts_give_no_rows():
    empty = pl.DataFrame(schema={"id": pl.String, "messages": pl.List(pl.Struct({})), "tools": pl.String})
    assert render_prompts(empty, Render(), template=Template(name="t", source=CHATML)).height == 0
