"""Conversations become text, and every character keeps its author."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, islice, pairwise
from typing import Final

import numpy as np
import polars as pl
from jinja2.exceptions import SecurityError
from numpy.typing import NDArray

from schemas.assets import Template
from schemas.reasons import DropReason
from stages.render.forgery import forged, spelled
from stages.render.inputs import FIELDS, Message
from stages.render.meter import LimitError
from stages.render.notes import behind_stops, notes_of
from stages.render.paths import Branch, Node
from stages.render.program import for_tools, program
from stages.render.regions import overruns, partition
from stages.render.renderer import FAILURES, describe
from stages.render.rows import Rows
from stages.render.scoped import apply_scoped
from stages.render.settings import Render, RenderError
from stages.render.skeleton import Skeleton
from stages.render.traced import Span
from stages.render.views import ODD, Views, fields_of

MAX_FORM: Final = 64
"""Messages of the longest conversation whose form is remembered: longer ones seldom come twice."""


def render_conversations(frame: pl.DataFrame, config: Render, *, template: Template) -> pl.DataFrame:
    """Write every conversation as the chat template does, with spans that say who wrote each character.

    One row in, one row out, in order. `text` equals what transformers renders; `spans` is a partition of it; `notes` says
    what the template left out. A row that the template refuses has no text, but a drop reason and the refusal in `detail`;
    so has a row of whose words the template makes a control token of its own. An assistant's message of which the template
    wrote nothing has no span and cannot be trained.

    The template is run once, on symbols, for each form of conversation and each way that it takes through itself; all
    conversations that go the same way are then written at once. Where it looks into a text more closely, it is run on that
    conversation's own text, traced. Both are compared with plain Jinja: one conversation of every way that is explored, and the
    first `verify` rows. Raises RenderError if the template cannot be used, or if one of these differs.
    """
    return _Shard(frame, config, template).render()


class _Shard:
    """The rows of one frame on their way."""

    def __init__(self, frame: pl.DataFrame, config: Render, template: Template) -> None:
        self.frame, self.config = frame, config
        self.program = program(template, config)
        self.with_tools = program(for_tools(template), config)
        column = frame.get_column("messages")
        # All messages, one row each: a Python dictionary per message would cost more than rendering it.
        self.messages = column.filter(column.list.len() > 0).explode().struct.unnest()
        self.ends = column.list.len().cum_sum().to_numpy().astype(np.int64)
        self.firsts = np.concatenate((np.zeros(1, np.int64), self.ends))[:-1]
        self.views = Views(self.messages)
        self.rows = Rows(self.views, self.firsts)
        self.problems: dict[int, str] = {}
        """Rows that the template refused, and what it said."""
        self.refused_here: set[int] = set()
        """Rows that were refused before the template was asked, or for what it spent."""

    def render(self) -> pl.DataFrame:
        explored, others = self._follow()
        explored += [row for row in self._render_rows(others) if self._follow_by_symbols(row)]
        self._render_rows(self.rows.larger_than(self._size_limits()))
        columns = self.rows.columns()
        verified = (row for row in range(self.frame.height) if row not in self.refused_here)
        self._verify(columns[0], sorted({*explored, *islice(verified, self.config.verify)} - self.refused_here))
        out = self.frame.select("id", "split").with_columns(columns)
        if self.config.left_out == "drop":
            out = _dropping_noted(out)
        return apply_scoped(out, self.config.scoped) if self.config.scoped else out

    def _follow(self) -> tuple[list[int], list[int]]:
        """Send each row on its way; return the rows that opened a new one, and those that must be rendered by their text."""
        paths, texts, forms, has_form = self.program.paths, self.views.texts, self.forms, self.has_form
        explored: list[int] = []
        others: list[int] = []
        follow = self.rows.follow
        first = 0
        # A loop over rows: each goes its own way, though mostly one that is known.
        for row, last in enumerate(self.ends.tolist()):
            form = forms[first:last]
            node: Node | None = paths.roots.get(form) if has_form[row] and ODD not in form else "unknown"
            while type(node) is Branch:
                text = texts[node.view][first + node.message]
                node = node.yes if node.answer(text, node.literal) else node.no
            if node is None and paths.is_worth_exploring(form):
                node = paths.explore(form, self._texts(form, first))
                explored += [row] if type(node) is Skeleton else []
            if type(node) is Skeleton and not (node.is_asked and self._spells_control(form, first)):
                follow(row, node)
            else:
                others.append(row)
            first = last
        return explored, others

    def _follow_by_symbols(self, row: int) -> bool:
        """Send a row on its way that cost too much by its own text; return whether it has one.

        On its way it costs nothing: whether it is refused must not depend on how many others went there before.
        """
        first = int(self.firsts[row])
        form = self.forms[first : int(self.ends[row])]
        if not self.has_form[row] or ODD in form:
            return False
        node = self.program.paths.explore(form, self._texts(form, first))
        if type(node) is not Skeleton or (node.is_asked and self._spells_control(form, first)):
            return False
        self.rows.follow(row, node)
        self.refused_here.discard(row)
        return True

    @cached_property
    def forms(self) -> bytes:
        """Return the code of each message."""
        return self.views.forms.tobytes()

    @cached_property
    def has_form(self) -> list[bool]:
        """Return which rows have no tools and few messages: if these have codes, others may go the same way."""
        is_short = self.ends - self.firsts <= MAX_FORM
        return (is_short & self.frame["tools"].is_null().to_numpy()).tolist()  # type: ignore[no-any-return]

    def _spells_control(self, form: bytes, first: int) -> bool:
        """Tell whether a text may make the template write a control token: `forged` then has to look."""
        return spelled(self._texts(form, first).values(), self.program.controls)

    def _texts(self, form: bytes, first: int) -> dict[tuple[int, str], str]:
        """Return contents and reasonings of one conversation by message and field."""
        fields = ((message, field) for message, code in enumerate(form) for field in fields_of(code))
        return {(message, field): self.messages[field][first + message] for message, field in fields}

    def _render_rows(self, rows: list[int]) -> list[int]:
        """Render some rows by their own text; return those that cost too much."""
        conversations = zip(rows, self._conversations(rows), strict=True)
        return [row for row, messages in conversations if not self._render_row(row, messages, self.frame["tools"][row])]

    def _render_row(self, row: int, messages: list[Message], tools: str | None) -> bool:
        """Render one conversation by its own text; return whether that was within its limits."""
        program = self.program if tools is None else self.with_tools

        def write(messages: Sequence[Message], tools: str | None) -> tuple[str, Sequence[Span]]:
            shape, n_chars = program.known.shape, int(self.sizes[row])
            return program.compiled.render(messages, self.config, n_chars=n_chars, shape=shape, tools=tools)

        try:
            text, written = write(messages, tools)
            encoded = text.encode()
            token = forged(messages, tools, text, written, program.controls, write)
        except LimitError as error:
            self._refuse_here(row, DropReason.TEMPLATE_ERROR, describe(error))
            return False
        except SecurityError as error:  # plain Jinja's sandbox allows more
            self._refuse_here(row, DropReason.TEMPLATE_ERROR, describe(error))
        except UnicodeEncodeError:
            detail = (
                "the text holds half of a surrogate pair, from an escape in JSON text or of the template; no text can"
            )
            self._refuse_here(row, DropReason.LONE_SURROGATE, detail)
        except FAILURES as error:
            self.problems[row] = describe(error)
            self.rows.refuse(row, DropReason.TEMPLATE_ERROR, self.problems[row])
        else:
            if token is not None:
                detail = f"the template writes a control token, {token!r}, that only the conversation can have spelled"
                self._refuse_here(row, DropReason.CONTROL_TOKEN, detail)
                return True
            roles = [message.role for message in messages]
            boundaries = program.known.boundaries
            notes = notes_of(messages, tools, written)
            notes += behind_stops(overruns(text, written, roles, boundaries))
            self.rows.add(row, encoded, partition(text, written, roles, boundaries), notes)
        return True

    def _refuse_here(self, row: int, reason: DropReason, detail: str) -> None:
        self.refused_here.add(row)
        self.rows.refuse(row, reason, detail)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Return the characters of each row's input."""
        lengths = pl.sum_horizontal(pl.col(name).str.len_chars().fill_null(0).cast(pl.Int64) for name in FIELDS)
        running = np.concatenate(([0], self.messages.select(lengths.cum_sum()).to_series().to_numpy()))
        tools = self.frame["tools"].str.len_chars().fill_null(0).to_numpy()
        return np.asarray(running[self.ends] - running[self.firsts] + tools, np.int64)

    def _size_limits(self) -> NDArray[np.float64]:
        return self.config.max_output_floor + self.config.max_output_ratio * self.sizes.astype(np.float64)

    def _conversations(self, rows: list[int]) -> list[list[Message]]:
        """Return the messages of some rows."""
        bounds = [(int(self.firsts[row]), int(self.ends[row])) for row in rows]
        chosen = self.messages[[message for first, last in bounds for message in range(first, last)]]
        flat = list(map(Message._make, zip(*[chosen[name].to_list() for name in FIELDS], strict=True)))
        ends = [0, *accumulate(last - first for first, last in bounds)]
        return [flat[first:last] for first, last in pairwise(ends)]

    def _verify(self, texts: pl.Series, rows: list[int]) -> None:
        """Raise RenderError unless plain strings give the same texts, or are refused likewise."""
        for row, messages in zip(rows, self._conversations(rows), strict=True):
            text, tools = texts[row], self.frame["tools"][row]
            program = self.program if tools is None else self.with_tools
            try:
                shape = program.known.shape
                expected = program.compiled.plain_text(messages, shape=shape, tools=tools, config=self.config)
            except FAILURES as error:
                if text is None:
                    continue
                found = f"text where Jinja raises {describe(error)}"
            else:
                if text == expected:
                    continue
                difference = f"other text from character {_first_difference(text or '', expected)} on"
                found = self.problems.get(row, difference)
            raise RenderError(
                f"template {program.compiled.name}, row {self.frame['id'][row]}: the tracing renderer gives {found};"
                " it must give what plain Jinja gives. This is a defect of the renderer: set [render] template to another one"
                " until it is mended"
            )


def _first_difference(left: str, right: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _dropping_noted(out: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with a drop reason for those that have notes, which are then the detail."""
    is_noted = pl.col("drop_reason").is_null() & (pl.col("notes").list.len() > 0)
    return out.with_columns(
        detail=pl.when(is_noted).then(pl.col("notes").list.join("; ")).otherwise("detail"),
        drop_reason=pl.when(is_noted).then(pl.lit(DropReason.LEFT_OUT.value)).otherwise("drop_reason"),
    )
