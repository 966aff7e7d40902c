"""Conversations that are too long: turns of their text are left out, and what stays is encoded anew."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas import fields as f
from schemas.assets import Vocabulary
from schemas.reasons import DropReason
from stages import arrow
from stages.tokenize.encode import encode_conversations
from stages.tokenize.engine import engine_for
from stages.tokenize.policies import POLICIES, Cut, Outline, Window, lost, outline
from stages.tokenize.settings import Tokenize
from stages.tokenize.unfinished import cut_windows, endings, shorten

WHAT_IF: Final = f.WHAT_IF.name


@dataclass
class _Long:
    """A conversation that is too long, and what is to become of it."""

    row: int
    id: str
    split: str
    text: str
    edges: NDArray[np.int64]
    """First character of each span, and at the end the length of the text."""
    first: int
    """Its first span among those of all long conversations."""
    outline: Outline
    budget: int
    """Tokens that a part may have by the whole conversation's count; less than the limit where parts proved longer."""
    windows: list[Window] = field(default_factory=list)
    reason: str = DropReason.OVER_MAX_SEQ_LEN.value
    detail: str = ""


def fit_conversations(frame: pl.DataFrame, out: pl.DataFrame, config: Tokenize, vocabulary: Vocabulary) -> pl.DataFrame:
    """Replace rows of `out`, the encoded `frame`, that have more than `max_seq_len` tokens by what `too_long` keeps.

    A part is text of the whole: its beginning up to the first user's first character (the head), then whole turns from a
    user's first character to the end of an assistant's stop. So any template's text stays exact. Parts are encoded and
    counted anew; where one proves too long, its conversation is cut again with less. A turn that `cut_answers` lets end
    early is encoded to its end and then cut, so its tokens are the first of the whole turn's, and nothing is appended. The
    head is trained once, context never, each other span once or not at all. Windows are numbered: `<id>#1`, `<id>#2`, in
    the conversation's place. What every policy would lose of a conversation, and the chosen one did, stands in `what_if`
    of its first row; elsewhere that is null. Rows that fit are left as they are.
    """
    limit = config.max_seq_len
    is_long = (out["input_ids"].list.len() > limit) & out["drop_reason"].is_null() if limit else None
    if limit is None or is_long is None or not is_long.any():
        return out.with_columns(pl.Series(WHAT_IF, pl.from_arrow(pa.nulls(out.height, f.WHAT_IF.type))))
    rows = is_long.arg_true()
    spans = frame["spans"].gather(rows).explode(empty_as_null=False).struct.unnest()
    long = _outlines(frame, out, rows, spans, config, limit)
    encoded = _encode_parts(long, spans, config, limit, vocabulary)
    details, reasons = out["detail"].to_list(), out["drop_reason"].to_list()
    what_if: list[list[dict[str, Any]] | None] = [None] * (out.height + encoded.height)
    place = np.arange(out.height + encoded.height)  # which row of `out` stands where each one does
    is_replaced = np.zeros(len(place), np.bool_)
    first = out.height
    for one in long:
        last = first + len(one.windows)
        is_replaced[one.row] = bool(one.windows)
        what_if[first if one.windows else one.row] = _what_if(one, config, limit)
        if not one.windows:
            details[one.row], reasons[one.row] = one.detail or _why(one, config, limit), one.reason
        place[first:last] = one.row
        first = last
    marked = out.with_columns(pl.Series("detail", details, pl.String), pl.Series("drop_reason", reasons, pl.String))
    # In one piece: Polars gathers nested rows ten times slower from several.
    whole = pl.concat([marked, encoded], rechunk=True) if encoded.height else marked
    whole = whole.with_columns(pl.Series(WHAT_IF, pl.from_arrow(pa.array(what_if, f.WHAT_IF.type))))
    if not encoded.height:
        return whole
    order = np.argsort(place, kind="stable")
    return whole[order[~is_replaced[order]]]


def count_too_long(out: pl.DataFrame, config: Tokenize) -> dict[str, int]:
    """Return the counts of a fitted frame for the manifest.

    "too_long": conversations with more than `max_seq_len` tokens. "what_if/<policy>/<conversations|turns|tokens>": what
    each policy would lose of them, whichever is chosen. "cut/turns", "cut/tokens": what the chosen one did lose of those
    that were not dropped. With `cut_answers` also ".../answers": answers of which only the beginning is kept.
    """
    too_long = out.filter(pl.col(WHAT_IF).is_not_null()).select("drop_reason", WHAT_IF)
    if not too_long.height:
        return {}
    losses = too_long.explode(WHAT_IF).unnest(WHAT_IF)
    counts = {"too_long": too_long.height}
    names = ("turns", "tokens", "answers") if config.cut_answers else ("turns", "tokens")
    sums = [pl.col(name).cast(pl.Int64).sum() for name in ("conversations", *names)]
    for policy, *found in losses.group_by("policy", maintain_order=True).agg(sums).iter_rows():
        counts |= {f"what_if/{policy}/{name}": n for name, n in zip(("conversations", *names), found, strict=True)}
    cut = losses.filter(pl.col("drop_reason").is_null(), pl.col("policy") == config.too_long)
    return counts | {f"cut/{name}": int(cut[name].sum()) for name in names}


def _outlines(
    frame: pl.DataFrame, out: pl.DataFrame, rows: pl.Series, spans: pl.DataFrame, config: Tokenize, limit: int
) -> list[_Long]:
    taken = frame[rows]
    roles, messages = spans["role"].to_list(), spans["message"].to_list()
    ends = endings(roles, spans["class"].to_list()) if config.cut_answers else []
    chars = spans["start"].to_list()
    tokens = out["spans"].gather(rows).explode(empty_as_null=False).struct.field("start").to_list()
    lengths = out["input_ids"].gather(rows).list.len().to_list()
    found = []
    first = 0
    for row, name, split, text, n_spans, n_tokens in zip(
        rows.to_list(), taken["id"], taken["split"], taken["text"], taken["spans"].list.len(), lengths, strict=True
    ):
        part = slice(first, first + n_spans)
        turns = outline(roles[part], messages[part], [*tokens[part], n_tokens], ends[part])
        found.append(_Long(row, name, split, text, np.array([*chars[part], len(text)]), first, turns, limit))
        first += n_spans
    return found


def _encode_parts(
    long: list[_Long], spans: pl.DataFrame, config: Tokenize, limit: int, vocabulary: Vocabulary
) -> pl.DataFrame:
    """Decide on the windows of each conversation and return all of them, encoded, each of at most `limit` tokens."""
    engine = engine_for(vocabulary, config.engine)
    for one in long:
        one.windows = POLICIES[config.too_long](one.outline, one.budget)
    finished: list[pl.DataFrame] = []
    rows: list[int] = []
    waiting = [one for one in long if one.windows]
    while waiting or not finished:
        encoded = encode_conversations(_texts(waiting, spans, config, vocabulary), config, vocabulary)
        lengths, reasons = encoded["input_ids"].list.len().to_list(), encoded["drop_reason"].to_list()
        cuts: dict[int, Cut] = {}
        taken: list[int] = []
        again: list[_Long] = []
        first = 0
        for one in waiting:
            parts = range(first, first + len(one.windows))
            first = parts.stop
            refused = [part for part in parts if reasons[part] is not None]
            one.windows, cut = cut_windows(one.windows, one.outline, encoded[parts.start : parts.stop], engine, limit)
            for number, found in cut.items():
                cuts[parts[number]], lengths[parts[number]] = found, found.n_tokens
            excess = max(lengths[parts.start : parts.stop]) - limit
            if refused:
                one.windows, one.reason, one.detail = [], reasons[refused[0]], encoded["detail"][refused[0]]
            elif excess > 0:  # where a part is glued together it may have other tokens than the whole has there
                one.budget -= excess
                one.windows = POLICIES[config.too_long](one.outline, one.budget)
                again.append(one)
            else:
                taken += parts
                rows += [one.row] * len(parts)
        finished.append(shorten(encoded, cuts)[taken])
        waiting = [one for one in again if one.windows]
    # In the order of the conversations, however often one of them had to be cut.
    return pl.concat(finished)[np.argsort(np.asarray(rows, np.int64), kind="stable")]


def _texts(long: list[_Long], spans: pl.DataFrame, config: Tokenize, vocabulary: Vocabulary) -> pl.DataFrame:
    """Return the windows of `long` as rendered rows."""
    ids: list[str] = []
    splits: list[str] = []
    texts: list[str] = []
    counts = [0]
    none = np.empty(0, np.int64)
    sources, starts, ends, untrained = [none], [none], [none], [none.astype(np.bool_)]
    for one in long:
        turns, edges = one.outline.turns, one.edges
        n_head = turns[0].first
        head = edges[n_head]
        for number, window in enumerate(one.windows, 1):
            first, new, last = turns[window.first].first, turns[window.new].first, turns[window.last - 1].last
            begin = edges[first]
            if window.cut:
                begin += _beginning(one.text[begin : edges[first + 1]], window.cut, config, vocabulary)
            ids.append(f"{one.id}#{number}" if config.too_long == "windows" else one.id)
            splits.append(one.split)
            texts.append(one.text[:head] + one.text[begin : edges[last]])
            counts.append(n_head + last - first)
            sources.append(one.first + np.concatenate((np.arange(n_head), np.arange(first, last))))
            moved = edges[first : last + 1] - begin + head
            moved[0] = head
            starts.append(np.concatenate((edges[:n_head], moved[:-1])))
            ends.append(np.concatenate((edges[1 : n_head + 1], moved[1:])))
            untrained.append(np.repeat([number > 1, True, False], [n_head, new - first, last - new]))
    own = spans[np.concatenate(sources)]
    weights = own.select(
        pl.when(pl.Series(np.concatenate(untrained))).then(pl.lit(0.0, pl.Float32)).otherwise("weight")
    )
    columns = [
        pa.array(np.concatenate(starts).astype(np.int32)),
        pa.array(np.concatenate(ends).astype(np.int32)),
        *(own[name].to_arrow() for name in ("class", "role", "message")),
        weights.to_series().to_arrow(),
    ]
    parts = pa.StructArray.from_arrays(columns, names=["start", "end", "class", "role", "message", "weight"])
    return arrow.frame(
        {
            "id": pa.array(ids, pa.string()),
            "split": pa.array(splits, pa.string()),
            "text": pa.array(texts, pa.string()),
            "spans": arrow.list_column(np.cumsum(counts), parts),
        }
    )


def _beginning(text: str, n_tokens: int, config: Tokenize, vocabulary: Vocabulary) -> int:
    """Return how many characters the first `n_tokens` tokens of a question take; one character at least is left."""
    offsets = engine_for(vocabulary, config.engine).oracle.encode(text, add_special_tokens=False).offsets
    first, _ = offsets[min(n_tokens, len(offsets) - 1)]
    return min(int(first), len(text) - 1)


def _what_if(one: _Long, config: Tokenize, limit: int) -> list[dict[str, Any]]:
    """Return what each policy would lose of a conversation; of the chosen one, what it did lose."""
    losses = []
    for policy, choose in POLICIES.items():
        kept = one.windows if policy == config.too_long else choose(one.outline, limit)
        losses.append({"policy": policy} | lost(one.outline, kept)._asdict())
    return losses


def _why(one: _Long, config: Tokenize, limit: int) -> str:
    """Say why nothing is left of a conversation."""
    found = f"{one.outline.n_tokens} tokens, [tokenize] max_seq_len = {limit}"
    if config.too_long == "drop":
        return found
    if not one.outline.turns:
        return f"{found}; it has no turns that could be told apart"
    n = len(one.outline.turns)
    partly = ", and no answer that could begin" if config.cut_answers else ""
    return f"{found}; too_long = {config.too_long!r} found no whole turn that fits{partly}, of {n}"
