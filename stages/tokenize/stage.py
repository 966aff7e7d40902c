"""The stage: encode every conversation."""

import polars as pl

from schemas.assets import Vocabulary
from stages.tokenize.encode import encode_conversations
from stages.tokenize.settings import Tokenize


def tokenize_conversations(frame: pl.DataFrame, config: Tokenize, *, vocabulary: Vocabulary) -> pl.DataFrame:
    """Encode each text and move its spans from characters to tokens (stages.tokenize.encode)."""
    return encode_conversations(frame, config, vocabulary)
