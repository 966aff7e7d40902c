"""What the stage counts for the manifest."""

import polars as pl

from stages.tokenize.encode import BY_ORACLE, WITHOUT_GIGATOKEN
from stages.tokenize.fit import count_too_long
from stages.tokenize.settings import Tokenize


def report_tokens(out: pl.DataFrame, _frame: pl.DataFrame, config: Tokenize) -> dict[str, int]:
    """Return the counts of a shard, of the rows it keeps unless said otherwise.

    "rows/proven": the tokens spell the text byte for byte; "rows/by_offsets": the other rows, placed by the offsets of
    `tokenizers`. "rows/guarded": the content spelled a control token, and was encoded as the text it is. "straddling":
    tokens that begin in one span and end in another; "straddling/turn_start": turns whose first character belongs to a
    token that began before it. "mismatched_shards": 1 where gigatoken differed and `tokenizers` encoded the shard;
    "shards_without_gigatoken": 1 where engine = "auto" found that it cannot be used. What was too long, see
    stages.tokenize.fit.
    """
    kept = out.filter(pl.col("drop_reason").is_null()).select("n_straddling", "proof").unnest("proof")
    return {
        "rows/proven": int(kept["is_proven"].sum()),
        "rows/by_offsets": int((~kept["is_proven"]).sum()),
        "rows/guarded": int(kept["is_guarded"].sum()),
        "straddling": int(kept["n_straddling"].sum()),
        "straddling/turn_start": int(kept["n_straddling_turns"].sum()),
        "mismatched_shards": int(BY_ORACLE in out.columns),
        "shards_without_gigatoken": int(WITHOUT_GIGATOKEN in out.columns and kept.height > 0),
    } | count_too_long(out, config)
