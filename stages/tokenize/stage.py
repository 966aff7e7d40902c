"""The stage: encode every conversation, and mend those that come out too long."""

import polars as pl

from schemas.assets import Vocabulary
from schemas.fields import PROOF
from stages.tokenize.encode import BY_ORACLE, WITHOUT_GIGATOKEN, encode_conversations
from stages.tokenize.engine import engine_for
from stages.tokenize.fit import fit_conversations
from stages.tokenize.settings import Tokenize


def tokenize_conversations(frame: pl.DataFrame, config: Tokenize, *, vocabulary: Vocabulary) -> pl.DataFrame:
    """Encode each text and move its spans from characters to tokens (stages.tokenize.encode).

    A row of more than `max_seq_len` tokens is dropped, shortened, or replaced by several (stages.tokenize.fit).
    """
    out = fit_conversations(frame, encode_conversations(frame, config, vocabulary), config, vocabulary)
    proof = out["proof"].struct
    if proof.field(BY_ORACLE).any():
        out = out.with_columns(pl.lit(value=True).alias(BY_ORACLE))
    if config.engine == "auto" and engine_for(vocabulary, "auto").fast is None:
        out = out.with_columns(pl.lit(value=True).alias(WITHOUT_GIGATOKEN))
    return out.with_columns(pl.struct(*(proof.field(name) for name in PROOF.type.names)).alias(PROOF.name))
