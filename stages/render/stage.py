"""Conversations become text, and every character keeps its author."""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import polars as pl

from schemas.assets import Template
from schemas.reasons import DropReason
from stages.render.inputs import FIELDS, Message, Shape, tools_of
from stages.render.meter import LimitError
from stages.render.probe import probe
from stages.render.renderer import FAILURES, Renderer, describe, renderer
from stages.render.rows import Rows
from stages.render.settings import Render, RenderError
from stages.render.traced import Span


class Conversation(NamedTuple):
    """One row of the input; its messages are `first` to `last` (exclusive) of the frame's."""

    id: str
    messages: list[Message]
    first: int
    last: int
    tools: str | None
    n_chars: int


def render_conversations(frame: pl.DataFrame, config: Render, *, template: Template) -> pl.DataFrame:
    """Write every conversation as the chat template does, with spans that say who wrote each character.

    One row in, one row out, in order. `text` equals what transformers renders; `spans` is a partition of it. A row that
    the template refuses has neither, but a drop reason and the refusal in `detail`; so has a row whose tool schemas
    hold a control token, for templates write these as their own text. An assistant's message of which the template
    wrote nothing has no span and cannot be trained; the row is kept, and its `detail` says so. Raises RenderError if
    the template cannot be used, or if one of the first `verify` rows differs from its untraced rendering.
    """
    compiled = renderer(template, config)
    known = probe(template, config)
    guarded = (*template.control_tokens, *template.plain_control_tokens) if "tools" in template.source else ()
    messages = _messages(frame)
    rows = Rows(known.boundaries, messages["role"].to_list(), messages["weight"].to_list())
    to_verify = config.verify
    # A loop over rows: a template is a program, and Jinja runs it for one conversation at a time.
    for row in _conversations(frame, messages):
        if row.tools is not None and guarded and (token := _control_token(row.tools, guarded)):
            rows.refuse(DropReason.CONTROL_TOKEN, f"the tool schemas hold the control token {token!r}")
            continue
        text: str | None = None
        written: Sequence[Span] = ()
        problem = ""
        try:
            text, written = compiled.render(
                row.messages, config, n_chars=row.n_chars, shape=known.shape, tools=row.tools
            )
        except LimitError as error:
            rows.refuse(DropReason.TEMPLATE_ERROR, describe(error))
            continue
        except FAILURES as error:
            problem = describe(error)
        if to_verify > 0:
            to_verify -= 1
            _verify(compiled, row, known.shape, text, problem)
        if text is None:
            rows.refuse(DropReason.TEMPLATE_ERROR, problem)
        else:
            rows.add(text, written, row.first, row.last)
    return frame.select("id", "split").with_columns(rows.columns())


def _messages(frame: pl.DataFrame) -> pl.DataFrame:
    """Return all messages, one row each: a Python dictionary per message would cost more than rendering it."""
    column = frame.get_column("messages")
    return column.filter(column.list.len() > 0).explode().struct.unnest()


def _conversations(frame: pl.DataFrame, messages: pl.DataFrame) -> Iterator[Conversation]:
    """Walk the rows with their messages and sizes."""
    flat = list(map(Message._make, zip(*[messages[name].to_list() for name in FIELDS], strict=True)))
    lengths = pl.sum_horizontal(pl.col(name).str.len_chars().fill_null(0).cast(pl.Int64) for name in FIELDS)
    sizes = [0, *messages.select(lengths.cum_sum()).to_series().to_list()]
    first = 0
    for name, n_messages, tools in zip(
        frame["id"].to_list(), frame["messages"].list.len().to_list(), frame["tools"].to_list(), strict=True
    ):
        last = first + n_messages
        n_chars = sizes[last] - sizes[first] + len(tools or "")
        yield Conversation(name, flat[first:last], first, last, tools, n_chars)
        first = last


def _verify(compiled: Renderer, row: Conversation, shape: Shape, text: str | None, problem: str) -> None:
    """Raise RenderError unless untraced strings give the same text, or are refused likewise."""
    try:
        expected = compiled.plain_text(row.messages, shape=shape, tools=row.tools)
    except FAILURES as error:
        if text is None:
            return
        found = f"text where Jinja raises {describe(error)}"
    else:
        if text == expected:
            return
        found = problem or f"other text from character {_first_difference(text or '', expected)} on"
    raise RenderError(
        f"template {compiled.name}, row {row.id}: the tracing renderer gives {found};"
        " it must give what plain Jinja gives. This is a defect of the renderer: set [render] template to another one"
        " until it is mended"
    )


def _first_difference(left: str, right: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


@lru_cache(maxsize=256)
def _control_token(tools: str, tokens: tuple[str, ...]) -> str | None:
    """Return a control token that the tool schemas would bring into the text, if any."""
    try:
        written = json.dumps(tools_of(tools), ensure_ascii=False)
    except ValueError:
        return None  # rendering will refuse it
    return next((token for token in tokens if token in written), None)
