"""Text and its spans in, token ids and the same spans in tokens out: one pass, no prefix is ever encoded again."""

from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.assets import Vocabulary
from schemas.fields import PROOF
from stages import arrow
from stages.tokenize.definition import TokenizerError
from stages.tokenize.engine import COMPARED, Engine, engine_for
from stages.tokenize.lay import Encoded, encode_texts, replace_rows
from stages.tokenize.settings import Tokenize
from stages.tokenize.spelling import NEVER
from stages.tokenize.texts import Ints, Texts, texts_of

WITHOUT_GIGATOKEN: Final = "is_without_gigatoken"
"""The tokenizer is none of gigatoken's, or it erred on the probes; likewise counted and never written."""
BY_ORACLE: Final = "is_by_oracle"
"""gigatoken differed in this frame, which `tokenizers` encoded: counted, and never written, for no byte depends on it."""


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
    proofs = (out.is_proven, out.is_guarded, out.n_straddling_turns, np.full(n_rows, out.differs))
    return arrow.frame(
        {
            "id": frame["id"].to_arrow(),
            "split": frame["split"].to_arrow(),
            "input_ids": arrow.list_column(out.offsets, out.ids),
            "spans": arrow.list_column(whole.span_offsets, token_spans),
            "n_straddling": pa.array(out.n_straddling),
            "proof": pa.StructArray.from_arrays(
                list(map(pa.array, proofs)), fields=[*PROOF.type, pa.field(BY_ORACLE, pa.bool_())]
            ),
            "detail": arrow.sparse_strings(out.details, n_rows),
            "drop_reason": arrow.sparse_strings(out.reasons, n_rows),
        }
    )


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
    replace_rows(joined, {row: np.empty(0, np.int32) for row in joined.reasons})
    return joined
