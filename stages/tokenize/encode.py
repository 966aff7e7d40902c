"""Text and its spans in, token ids and the same spans in tokens out: one pass, no prefix is ever encoded again."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.assets import Vocabulary
from schemas.fields import PROOF
from schemas.reasons import DropReason
from stages import arrow
from stages.tokenize.definition import TokenizerError
from stages.tokenize.engine import COMPARED, Engine, engine_for
from stages.tokenize.guard import encode_guarded, is_clean
from stages.tokenize.offsets import Offsets, count_straddling, misspelling, place
from stages.tokenize.settings import Tokenize
from stages.tokenize.spelling import NEVER
from stages.tokenize.texts import Ints, Texts, ends_of, texts_of


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


def encode_conversations(frame: pl.DataFrame, config: Tokenize, vocabulary: Vocabulary) -> pl.DataFrame:
    """Encode each text of a RENDERED frame and move its spans from characters to tokens: a TOKENIZED frame.

    A token that straddles an edge belongs to the span in which it starts. A control token stands only where the
    template wrote it: a row whose content spells one is encoded anew with those tokens disabled in the content, and
    dropped (control_token) if even then the ids would hold one.

    Every row is proven: the bytes that its tokens stand for are laid beside the bytes of its text, and equal to the last
    one. Then the ids decode to the text, and the tokens of each span to the text of that span, but for those that
    straddle. Rows that a normaliser changes, or whose tokens have no bytes of their own, get the offsets of `tokenizers`
    and are held to the normalised text; a row that fails even that is dropped (unproven).

    The ids are those of `tokenizers`: a frame in whose compared rows gigatoken differs is encoded without it, and no
    other frame is touched by that. So what the tokenizer's own rules change stays changed, as when the model is served:
    an NFC normaliser joins a letter with its accent, and a token with `rstrip` takes the spaces behind it.

    How each row is known stands in `proof`, which stages.tokenize.report counts. Raises TokenizerError if the tokenizer
    cannot be used.
    """
    engine = engine_for(vocabulary, config.engine)
    whole = texts_of(frame)
    texts, pieces = _cut(engine, whole) if config.straddling == "cut" else (whole, None)
    out = encode_texts(engine, texts, verify=len(texts.texts) if config.verify == "all" else COMPARED)
    if pieces is not None:
        out = _join(out, whole, texts, pieces)
    spans = frame["spans"].explode(empty_as_null=False).struct.unnest()
    ends = np.zeros_like(out.starts)
    ends[:-1] = out.starts[1:]
    has_spans = np.diff(whole.span_offsets) > 0
    ends[whole.span_offsets[1:][has_spans] - 1] = np.diff(out.offsets)[has_spans]
    token_spans = pa.StructArray.from_arrays(
        [
            pa.array(out.starts.astype(np.int32)),
            pa.array(ends.astype(np.int32)),
            *(spans[name].to_arrow() for name in ("class", "role", "message", "weight")),
        ],
        names=["start", "end", "class", "role", "message", "weight"],
    )
    n_rows = len(whole.texts)
    proofs = (out.is_proven, out.is_guarded, np.full(n_rows, out.differs), out.n_straddling_turns)
    return arrow.frame(
        {
            "id": frame["id"].to_arrow(),
            "split": frame["split"].to_arrow(),
            "input_ids": arrow.list_column(out.offsets, out.ids),
            "spans": arrow.list_column(whole.span_offsets, token_spans),
            "n_straddling": pa.array(out.n_straddling),
            "proof": pa.StructArray.from_arrays(list(map(pa.array, proofs)), fields=list(PROOF.type)),
            "detail": pa.array([out.details.get(row) for row in range(n_rows)], pa.string()),
            "drop_reason": pa.array([out.reasons.get(row) for row in range(n_rows)], pa.string()),
        }
    )


def encode_texts(engine: Engine, texts: Texts, *, verify: int) -> Encoded:
    """Encode each text on its own; see encode_conversations."""
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
    _replace(out, {row: np.asarray(ids, np.int32) for row, (ids, _) in found.items()})


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


def _replace(out: Encoded, rows: dict[int, NDArray[np.int32]]) -> None:
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


def _cut(engine: Engine, texts: Texts) -> tuple[Texts, Ints]:
    """Return the texts cut where turns begin; raise TokenizerError where a piece would not be encoded as what it is."""
    cut, first_pieces = texts.cut()
    if engine.prepends != NEVER and len(cut.texts) > len(texts.texts):
        raise TokenizerError(
            "[tokenize] straddling = 'cut': this tokenizer puts a space before whatever it is given, so a turn that is "
            "encoded on its own would begin with a space that no model writes there; use straddling = 'keep', and a "
            "chat template whose generation prompt does not end in white space"
        )
    return cut, first_pieces


def _join(out: Encoded, whole: Texts, pieces: Texts, first_pieces: Ints) -> Encoded:
    """Return what was found of `pieces` as of the texts they are cut from; one that is dropped takes its text with it."""
    firsts, lasts = first_pieces[:-1], first_pieces[1:]
    rows = np.repeat(np.arange(len(firsts)), lasts - firsts)
    offsets = out.offsets[first_pieces]
    before = out.offsets[:-1] - offsets[rows]  # tokens of the text before each piece
    joined = Encoded(
        offsets=offsets,
        ids=out.ids,
        starts=out.starts + np.repeat(before, np.diff(pieces.span_offsets)),
        is_proven=np.logical_and.reduceat(out.is_proven, firsts) if len(firsts) else out.is_proven,
        is_guarded=np.logical_or.reduceat(out.is_guarded, firsts) if len(firsts) else out.is_guarded,
        n_straddling=np.bincount(rows, out.n_straddling, len(firsts)).astype(np.int32),
        n_straddling_turns=np.bincount(rows, out.n_straddling_turns, len(firsts)).astype(np.int32),
        reasons={int(rows[piece]): reason for piece, reason in out.reasons.items()},
        details={int(rows[piece]): detail for piece, detail in out.details.items()},
        differs=out.differs,
    )
    for row in joined.reasons:
        joined.starts[whole.spans_of(row)] = 0
    _replace(joined, {row: np.empty(0, np.int32) for row in joined.reasons})
    return joined
