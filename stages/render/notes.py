"""What a template left out of a conversation, said so that it can be counted."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import polars as pl

from stages.render.inputs import Message
from stages.render.scoped import count_scoped
from stages.render.settings import Render
from stages.render.traced import REASONING, TOOL_CALL, Span

FIELDS: Final = {REASONING: "reasoning", TOOL_CALL: "tool_calls"}
"""Fields by the kind of text they become; all others are content."""


def unwritten(fields: Iterable[tuple[int, str]]) -> Iterator[str]:
    """Say of each (message, field) that the template wrote nothing of it."""
    return (f"{field}:{message} not written" for message, field in fields)


def behind_stops(messages: Iterable[int]) -> Iterator[str]:
    """Say of each message that the template goes on with it behind the stop of its turn."""
    return (f"message:{message} goes on behind its stop" for message in messages)


def notes_of(messages: Sequence[Message], tools: str | None, written: Sequence[Span]) -> list[str]:
    """Return what is missing of a rendered conversation, message by message.

    A field is "not written" when no character of it came through, be it dropped or rewritten, and "cut" when more than
    white space at its ends is missing.
    """
    lengths: dict[tuple[int, str], int] = {}
    for start, end, who in written:
        key = (who >> 2, FIELDS.get(who & 3, "content"))
        lengths[key] = lengths.get(key, 0) + end - start
    notes = []
    for index, message in enumerate(messages):
        for field in ("content", "reasoning", "tool_calls"):
            given = getattr(message, field)
            if not given or given.isspace():
                continue
            n_written = lengths.get((index, field), 0)
            if not n_written:
                notes.append(f"{field}:{index} not written")
            elif field != "tool_calls" and n_written < len(given.strip()):
                notes.append(f"{field}:{index} cut")
    if tools and not any(who < 0 for _, _, who in written):
        notes.append("tools not written")
    return notes


def report_render(out: pl.DataFrame, _frame: pl.DataFrame, _config: Render) -> dict[str, int]:
    """Return {"notes/<note, less the message's number>": how often} over the kept rows, and the matches of scoped rules."""
    kept = out.filter(pl.col("drop_reason").is_null())
    notes = kept.select(pl.col("notes").explode().drop_nulls().str.replace(r":\d+ ", " ")).to_series()
    return {f"notes/{note}": n for note, n in notes.value_counts().sort("notes").iter_rows()} | count_scoped(out)
