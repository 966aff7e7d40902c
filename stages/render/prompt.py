"""Conversations that wait for an answer become text, up to where the assistant begins to speak."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
from jinja2.exceptions import SecurityError

from schemas import fields as f
from schemas.assets import Template
from schemas.reasons import DropReason
from stages import arrow
from stages.render.forgery import forged
from stages.render.inputs import FIELDS, Message
from stages.render.meter import LimitError
from stages.render.notes import notes_of
from stages.render.program import Program, for_tools, program
from stages.render.regions import CLASSES, partition
from stages.render.renderer import FAILURES, describe
from stages.render.settings import Render, RenderError
from stages.render.traced import Span


def render_prompts(frame: pl.DataFrame, config: Render, *, template: Template) -> pl.DataFrame:
    """Write every conversation of `frame` (id, messages, tools) with the generation prompt behind it.

    One row in, one row out, in order, with the columns that render_conversations gives, so that both are encoded alike. The
    text is compared with plain Jinja's in every row. A row that the template refuses has a drop reason and no text. Raises
    RenderError if the template cannot be used, or if the texts differ.
    """
    plain, with_tools = program(template, config), program(for_tools(template), config)
    rows = [
        _render(
            id_,
            [Message(*(said[name] for name in FIELDS)) for said in messages],
            tools,
            config,
            with_tools if tools else plain,
        )
        for id_, messages, tools in frame.select("id", "messages", "tools").iter_rows()
    ]
    texts, spans, notes, reasons, details = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return arrow.frame(
        {
            "id": frame["id"].to_arrow(),
            "split": pa.nulls(frame.height, pa.string()),
            "text": pa.array(texts, pa.string()),
            "spans": pa.array(spans, f.SPANS.type),
            "notes": pa.array(notes, f.NOTES.type),
            "detail": pa.array(details, pa.string()),
            "drop_reason": pa.array(reasons, pa.string()),
        }
    )


Row = tuple[str | None, list[dict[str, object]] | None, Sequence[str], str | None, str | None]
"""Text, spans, notes, drop reason and detail."""


def _render(id_: str, messages: list[Message], tools: str | None, config: Render, program: Program) -> Row:
    compiled, known = program.compiled, program.known
    n_chars = len(tools or "") + sum(len(field or "") for message in messages for field in message)

    def write(messages: Sequence[Message], tools: str | None) -> tuple[str, Sequence[Span]]:
        return compiled.render(
            messages, config, n_chars=n_chars, shape=known.shape, tools=tools, generation_prompt=True
        )

    try:
        text, written = write(messages, tools)
        text.encode()
        token = forged(messages, tools, text, written, program.controls, write)
        if token is None:
            expected = compiled.plain_text(
                messages, shape=known.shape, tools=tools, generation_prompt=True, config=config
            )
    except UnicodeEncodeError:
        return _refused(DropReason.LONE_SURROGATE, "the text holds half of a surrogate pair; no text can")
    except (LimitError, SecurityError, *FAILURES) as error:
        return _refused(DropReason.TEMPLATE_ERROR, describe(error))
    if token is not None:
        detail = f"the template writes a control token, {token!r}, that only the conversation can have spelled"
        return _refused(DropReason.CONTROL_TOKEN, detail)
    if text != expected:
        raise RenderError(
            f"template {compiled.name}, {id_}: the tracing renderer writes other text than plain Jinja. This is a defect of "
            "the renderer: set [render] template to another one until it is mended"
        )
    roles = [message.role for message in messages]
    spans: list[dict[str, object]] = [
        {
            "start": start,
            "end": end,
            "class": CLASSES[class_],
            "role": roles[message] if message >= 0 else "",
            "message": message,
            "weight": None,
        }
        for start, end, class_, message in partition(text, written, roles, known.boundaries)
    ]
    return str(text), spans, notes_of(messages, tools, written), None, None


def _refused(reason: DropReason, detail: str) -> Row:
    return None, None, (), reason.value, detail
