"""One schema per table: what each stage reads from its neighbour and promises to write."""

from typing import Final

import pyarrow as pa

from schemas import fields as f

LINES: Final = pa.schema([f.SOURCE, f.LINE, f.OFFSET, f.RAW, f.SKIP, f.RULES])
"""What the reader hands to ingest: bounded slices of a file, undecoded."""

CONVERSATIONS: Final = pa.schema(
    [
        f.ID,
        f.RECORD_ID,
        f.SOURCE,
        f.LINE,
        f.OFFSET,
        f.SHAPE,
        f.TAGS,
        f.SCORE,
        f.CREATED,
        f.MESSAGES,
        f.TOOLS,
        f.REJECTED,
        f.REPAIRS,
    ]
)
QUARANTINE: Final = pa.schema([f.DETAIL, f.EXCERPT])
"""Evidence that ingest adds to a line it could not read."""

MEASURED: Final = pa.schema([*CONVERSATIONS, f.N_CHARS, f.N_TURNS])
SIGNED: Final = pa.schema(
    [
        f.ID,
        f.SOURCE,
        f.TAGS,
        f.SCORE,
        f.CREATED,
        f.N_CHARS,
        f.CONTENT_HASH,
        f.TEXT_HASH,
        f.PROMPT_HASH,
        f.UNITS,
    ]
)
CLUSTERED: Final = pa.schema(
    [
        f.ID,
        f.CLUSTER,
        f.REASON,
        f.KEEPER,
        f.SIMILARITY,
        f.SCOPE,
        f.N_DUPLICATES,
        f.EVALUATION,
        f.OVERLAP,
        f.SPLIT,
    ]
)
DISTINCT: Final = pa.schema([*MEASURED, f.CLUSTER, f.SPLIT])
"""Without the number of duplicates: it changes whenever another copy comes in, and all that follows would be rebuilt."""
DUPLICATE: Final = pa.schema([f.KEEPER, f.SIMILARITY, f.SCOPE, f.EVALUATION, f.OVERLAP])
"""Evidence that dedup adds to a row it drops."""
RENDERED: Final = pa.schema([f.ID, f.SPLIT, f.TEXT, f.SPANS, f.NOTES])
TOKENIZED: Final = pa.schema([f.ID, f.SPLIT, f.INPUT_IDS, f.TOKEN_SPANS, f.N_STRADDLING])
LABELLED: Final = pa.schema([f.ID, f.SPLIT, f.INPUT_IDS, f.LABELS, f.LOSS_WEIGHTS, f.N_TOKENS, f.N_SUPERVISED])
PACKED: Final = pa.schema(
    [
        f.IDS,
        f.PACK_TAGS,
        f.SPLIT,
        f.INPUT_IDS,
        f.LABELS,
        f.LOSS_WEIGHTS,
        f.SEQ_LENGTHS,
        f.PACK_TOKENS,
        f.LONGEST,
        f.SUM_SQUARES,
        f.N_SUPERVISED,
        f.N_TRAINED,
        f.WEIGHT_SUM,
        f.ROOT_WEIGHT_SUM,
        f.CHECKSUM,
    ]
)
EXPLAINED: Final = pa.schema([f.DETAIL])
"""Evidence of a stage that can only say what went wrong."""
WEIGHED: Final = pa.schema([*EXPLAINED, f.PROOF, f.WHAT_IF])
"""Evidence of the stage that decides what becomes of a conversation that is too long."""


def dropped_schema(kept: pa.Schema, evidence: pa.Schema) -> pa.Schema:
    """Return the schema of a stage's dropped rows: its own columns where known, the evidence and the reason."""
    columns = [column.with_nullable(True) for column in (*kept, *evidence)]
    return pa.schema([*columns, f.DROP_REASON])
