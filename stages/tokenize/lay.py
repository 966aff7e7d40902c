"""Texts encoded, each token laid beside what it stands for, and what bytes do not prove settled another way."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.reasons import DropReason
from stages.tokenize.engine import Engine
from stages.tokenize.guard import encode_guarded, is_clean
from stages.tokenize.offsets import Offsets, count_straddling, misspelling, place
from stages.tokenize.texts import Texts, ends_of


@dataclass(kw_only=True)
class Encoded:
    """Ids of texts, the first token of each span, and how both are known; of text i unless said otherwise."""

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    """Of each span."""
    is_proven: NDArray[np.bool_]
    """Its tokens spell it byte for byte."""
    is_guarded: NDArray[np.bool_]
    """Its content spelled a control token."""
    n_straddling: NDArray[np.int32]
    n_straddling_turns: NDArray[np.int32]
    reasons: dict[int, str]
    details: dict[int, str]
    differs: bool = False
    """gigatoken gave other ids than `tokenizers`, whose ids these are."""


def encode_texts(engine: Engine, texts: Texts, *, verify: int) -> Encoded:
    """Encode each text on its own; see stages.tokenize.encode."""
    offsets, ids, differs = engine.encode(texts.texts, verify=verify)
    out = _lay(engine, texts, offsets, ids)
    out.differs = differs
    rows = np.flatnonzero(~(out.is_proven & ~out.is_guarded)).tolist()
    if not rows:
        return out
    anew = list(engine.encode_with_offsets([texts.texts[row] for row in rows]))
    if not differs and any(
        out.ids[out.offsets[row] : out.offsets[row + 1]].tolist() != anew[k][0] for k, row in enumerate(rows)
    ):
        # what the oracle had to encode anyway is compared as well
        out = _lay(engine, texts, *engine.encode_by_oracle(texts.texts))
        out.differs = True
        rows = np.flatnonzero(~(out.is_proven & ~out.is_guarded)).tolist()
        anew = list(engine.encode_with_offsets([texts.texts[row] for row in rows]))
    _settle(engine, texts, out, rows, anew)
    return out


def _lay(engine: Engine, texts: Texts, offsets: NDArray[np.int64], ids: NDArray[np.int32]) -> Encoded:
    """Return what the bytes of the tokens prove."""
    from stages.tokenize.kernels import lay_tokens  # compiled code is loaded only by a process that needs it

    buffers: tuple[NDArray[Any], ...] = (
        texts.offsets,
        texts.data,
        texts.span_offsets,
        texts.starts,
        texts.ends,
        texts.is_written,
        texts.starts_turn,
        offsets,
        ids,
        engine.spellings.starts,
        engine.spellings.lengths,
        engine.spellings.data,
        engine.ends_stretch,
        engine.is_control,
    )
    starts, is_proven, is_clean, n_straddling, n_straddling_turns = lay_tokens(
        *(_frozen(buffer) for buffer in buffers), engine.prepends
    )
    return Encoded(
        offsets=offsets,
        ids=ids,
        starts=starts,
        is_proven=is_proven,
        is_guarded=is_proven & ~is_clean,
        n_straddling=n_straddling,
        n_straddling_turns=n_straddling_turns,
        reasons={},
        details={},
    )


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that cannot be written to: a kernel is compiled anew, for seconds, for arrays that can."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _settle(engine: Engine, texts: Texts, out: Encoded, rows: list[int], anew: list[tuple[list[int], Offsets]]) -> None:
    """Fill in `rows` of `out`: those that are not proven, and those whose content became a control token."""
    found: dict[int, tuple[list[int], Offsets]] = {}
    guarded: list[int] = []
    for row, (ids, offsets) in zip(rows, anew, strict=True):
        text, spans = texts.texts[row], texts.spans_of(row)
        edges, is_written = texts.starts[spans].tolist(), texts.is_written[spans].tolist()
        found[row] = ids, offsets
        out.is_guarded[row] = not is_clean(engine, text, ids, offsets, edges, is_written)
        if out.is_guarded[row]:
            safe = encode_guarded(engine, text, edges, is_written)
            if safe is None:
                out.reasons[row] = DropReason.CONTROL_TOKEN.value
                out.details[row] = "the content spells a control token that this tokenizer cannot encode as text"
            else:
                found[row] = safe
                guarded.append(row)
    proven = _lay_guarded(engine, texts, out, guarded, found)
    for row in rows:
        spans = texts.spans_of(row)
        if row in proven:
            continue
        out.is_proven[row] = False
        out.n_straddling[row] = out.n_straddling_turns[row] = 0
        out.starts[spans] = 0
        if row not in out.reasons:
            _place(engine, texts, out, row, *found[row])
        if row in out.reasons:
            found[row] = [], []
    replace_rows(out, {row: np.asarray(ids, np.int32) for row, (ids, _) in found.items()})


def _lay_guarded(
    engine: Engine, texts: Texts, out: Encoded, rows: list[int], found: dict[int, tuple[list[int], Offsets]]
) -> set[int]:
    """Fill in those of `rows` whose bytes prove the ids that the guard made, and return them."""
    if not rows:
        return set()
    ids = [np.asarray(found[row][0], np.int32) for row in rows]
    some = texts.take(rows)
    laid = _lay(engine, some, ends_of([len(row) for row in ids]), np.concatenate(ids))
    proven = np.flatnonzero(laid.is_proven & ~laid.is_guarded).tolist()
    for k in proven:
        row = rows[k]
        out.is_proven[row] = True
        out.starts[texts.spans_of(row)] = laid.starts[some.spans_of(k)]
        out.n_straddling[row] = laid.n_straddling[k]
        out.n_straddling_turns[row] = laid.n_straddling_turns[k]
    return {rows[k] for k in proven}


def _place(engine: Engine, texts: Texts, out: Encoded, row: int, ids: list[int], offsets: Offsets) -> None:
    """Place the tokens of a row by their offsets in characters."""
    text, spans = texts.texts[row], texts.spans_of(row)
    if wrong := misspelling(engine, text, np.asarray(ids, np.int32), offsets):
        out.reasons[row] = DropReason.UNPROVEN.value
        out.details[row] = wrong
        return
    edges = texts.starts[spans]
    out.starts[spans], covered = place(offsets, edges)
    out.n_straddling[row] = count_straddling(offsets, edges, len(text))
    out.n_straddling_turns[row] = np.count_nonzero(texts.starts_turn[spans] & (covered > 0))


def replace_rows(out: Encoded, rows: dict[int, NDArray[np.int32]]) -> None:
    """Give some rows other ids."""
    lengths = np.diff(out.offsets)
    pieces = []
    previous = 0
    for row, new in sorted(rows.items()):
        pieces += [out.ids[out.offsets[previous] : out.offsets[row]], new]
        lengths[row] = len(new)
        previous = row + 1
    pieces.append(out.ids[out.offsets[previous] :])
    out.offsets, out.ids = np.concatenate(([0], np.cumsum(lengths))), np.concatenate(pieces)
