"""Every column once: its type, whether it may be null, what it means and in which unit."""

from typing import Final

import pyarrow as pa


def field(name: str, kind: pa.DataType, doc: str, *, unit: str | None = None, nullable: bool = False) -> pa.Field:
    """Return an Arrow field that carries its documentation as metadata."""
    metadata = {"doc": doc} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


MESSAGE: Final = pa.struct(
    [
        field("role", pa.string(), "system, user, assistant or tool"),
        field("content", pa.string(), "what was said, unaltered; null only beside tool calls", nullable=True),
        field("reasoning", pa.string(), "thinking that came before the content", nullable=True),
        field("tool_calls", pa.string(), "list of the calls the assistant made, as JSON text", nullable=True),
        field("tool_call_id", pa.string(), "the call that a tool message answers", nullable=True),
        field("name", pa.string(), "name of the speaker or tool", nullable=True),
        field("weight", pa.float32(), "loss weight of this message, 0 to 1,000,000; null means 1", nullable=True),
    ]
)

_SPAN: Final = (
    field("class", pa.string(), "who wrote it: see schemas.spans.SpanClass"),
    field("role", pa.string(), "role of the message; empty for text of no message"),
    field("message", pa.int32(), "index of the message, -1 for text of no message"),
    field("weight", pa.float32(), "the message's own loss weight; null means 1", nullable=True),
)
TEXT_SPAN: Final = pa.struct(
    [
        field("start", pa.int32(), "first character", unit="character"),
        field("end", pa.int32(), "one past the last character", unit="character"),
        *_SPAN,
    ]
)
TOKEN_SPAN: Final = pa.struct(
    [
        field("start", pa.int32(), "first token that starts in the span", unit="token"),
        field("end", pa.int32(), "one past its last token", unit="token"),
        *_SPAN,
    ]
)

ID: Final = field(
    "id",
    pa.string(),
    "<source as given>:<1-based line or record>; .1, .2, ... for one of several in it, from tokenize on #1, #2, ... for windows",
)
RECORD_ID: Final = field("record_id", pa.string(), "the id that the record has of its own", nullable=True)
SHAPE: Final = field("shape", pa.string(), "shape in which the record was read: see docs/formats.md")
REPAIRS: Final = field(
    "repairs", pa.list_(pa.string()), "what a policy of [ingest] changed, e.g. trailing:1 for a turn that was left out"
)
REJECTED: Final = field(
    "rejected", pa.string(), "of a preference record, the answer that was not chosen, as JSON text", nullable=True
)
SOURCE: Final = field("source", pa.string(), "path of the file the record came from, as given")
TAGS: Final = field(
    "tags", pa.list_(pa.string()), "the tags of its set, the record's own, and its `source` as source:<name>"
)
MESSAGES: Final = field("messages", pa.list_(MESSAGE), "the conversation, in order")
TOOLS: Final = field(
    "tools",
    pa.string(),
    "tool schemas as JSON text, byte for byte as given",
    nullable=True,
)

SCORE: Final = field("score", pa.float64(), "the record's score, where [ingest] score names it", nullable=True)
CREATED: Final = field(
    "created", pa.timestamp("us", "UTC"), "when the record was made, where [ingest] created names it", nullable=True
)

N_CHARS: Final = field("n_chars", pa.int32(), "characters of all contents", unit="character")
N_TURNS: Final = field("n_turns", pa.int32(), "messages of the assistant", unit="message")

CONTENT_HASH: Final = field("content_hash", pa.uint64(), "64-bit hash of the conversation as it stands; it breaks ties")
TEXT_HASH: Final = field(
    "text_hash", pa.binary(), "128-bit hash of its normalised text; null if that has no token", nullable=True
)
PROMPT_HASH: Final = field(
    "prompt_hash",
    pa.binary(),
    "128-bit hash of its normalised first user message; null if there is none",
    nullable=True,
)
EXACT_HASH: Final = field("exact_hash", pa.binary(), "128-bit hash of the normalised text")
SHINGLES: Final = field("shingles", pa.list_(pa.uint32()), "distinct shingle hashes, ascending; at least one")
MINHASH: Final = field("minhash", pa.list_(pa.uint32()), "MinHash values, as datasketch's scheme affine32 has them")
UNITS: Final = field(
    "units",
    pa.list_(
        pa.struct(
            [
                field("scope", pa.string(), "what it is of: see schemas.scopes"),
                field("message", pa.int32(), "index of the message; -1 for the whole conversation"),
                EXACT_HASH,
                SHINGLES,
                MINHASH,
            ]
        )
    ),
    "a signature of each text to be compared, scope by scope; a text without tokens has none",
)

CLUSTER: Final = field(
    "cluster", pa.string(), "name of the cluster, made from its keeper's text; the row's own id where it is in none"
)
REASON: Final = field(
    "reason", pa.string(), "why dedup drops the row: see schemas.reasons.DropReason; null for a survivor", nullable=True
)
KEEPER: Final = field(
    "keeper", pa.string(), "id of the row kept in this one's place, or of the row of `against`", nullable=True
)
SIMILARITY: Final = field("similarity", pa.float64(), "exact Jaccard similarity with the keeper", nullable=True)
SCOPE: Final = field("scope", pa.string(), "scope in which they are similar: see schemas.scopes", nullable=True)
N_DUPLICATES: Final = field("n_duplicates", pa.int32(), "rows of the cluster, its survivor included", unit="row")
EVALUATION: Final = field(
    "evaluation", pa.string(), "id of the evaluation record of which most is found in the row", nullable=True
)
OVERLAP: Final = field(
    "overlap", pa.float64(), "share of that record's shingles that the row has; null if there is none", nullable=True
)
SPLIT: Final = field("split", pa.string(), "train, validation or test: whole clusters, and all rows of one prompt")

TEXT: Final = field("text", pa.string(), "the conversation as the chat template writes it")
SPANS: Final = field("spans", pa.list_(TEXT_SPAN), "a partition of the text by who wrote it")
NOTES: Final = field(
    "notes", pa.list_(pa.string()), "what the template left out or rewrote, e.g. reasoning:2 not written"
)
TOKEN_SPANS: Final = field("spans", pa.list_(TOKEN_SPAN), "the same partition, of the tokens")

INPUT_IDS: Final = field("input_ids", pa.list_(pa.int32()), "token ids as fed to the model", unit="token")
N_STRADDLING: Final = field(
    "n_straddling", pa.int32(), "tokens that begin in one span and end in another", unit="token"
)
WHAT_IF: Final = field(
    "what_if",
    pa.list_(
        pa.struct(
            [
                field("policy", pa.string(), "a value of [tokenize] too_long"),
                field("conversations", pa.int32(), "1 if it loses the conversation whole", unit="conversation"),
                field("turns", pa.int32(), "turns it loses", unit="turn"),
                field("tokens", pa.int32(), "tokens it loses", unit="token"),
                field("answers", pa.int32(), "answers of which it keeps only the beginning", unit="answer"),
            ]
        )
    ),
    "what each policy for conversations that are too long loses of this one; null for other rows",
    nullable=True,
)
PROOF: Final = field(
    "proof",
    pa.struct(
        [
            field("is_proven", pa.bool_(), "the tokens spell the text byte for byte; else they are placed by offsets"),
            field("is_guarded", pa.bool_(), "the content spelled a control token, and was encoded as the text it is"),
            field("n_straddling_turns", pa.int32(), "turns whose first character belongs to a token begun before it"),
        ]
    ),
    "how the tokens are known to be those of the text",
)
LABELS: Final = field("labels", pa.list_(pa.int32()), "input_ids where trained, else -100; not shifted", unit="token")
LOSS_WEIGHTS: Final = field(
    "loss_weights", pa.list_(pa.float32()), "weight of each label; null when all are 0 or 1", nullable=True
)
N_TOKENS: Final = field("n_tokens", pa.int32(), "tokens of the conversation", unit="token")
N_SUPERVISED: Final = field("n_supervised", pa.int32(), "labels that are trained", unit="token")
WEIGHT_SUM: Final = field("weight_sum", pa.float64(), "sum of the loss weights of the trained labels")

IDS: Final = field("ids", pa.list_(pa.string()), "conversations of this pack, in order")
PACK_TAGS: Final = field("tags", pa.list_(pa.list_(pa.string())), "tags of each of them, in the same order")
SEQ_LENGTHS: Final = field("seq_lengths", pa.list_(pa.int32()), "their lengths, in the same order", unit="token")
PACK_TOKENS: Final = field("n_tokens", pa.int32(), "tokens of the pack", unit="token")
LONGEST: Final = field("longest", pa.int32(), "tokens of its longest conversation", unit="token")
SUM_SQUARES: Final = field("sum_squares", pa.int64(), "sum of the squared lengths: what attention costs")
N_TRAINED: Final = field(
    "n_trained", pa.int32(), "conversations whose trained labels weigh more than 0", unit="conversation"
)
ROOT_WEIGHT_SUM: Final = field(
    "root_weight_sum", pa.float64(), "sum over its conversations of the square root of the weight of their labels"
)
CHECKSUM: Final = field(
    "checksum", pa.uint32(), "CRC-32 of all of this row that is trained with: see schemas.checksum.PackedRow"
)

LINE: Final = field("line", pa.int64(), "1-based line of the file; of an array or a table, 1-based record")
OFFSET: Final = field(
    "offset",
    pa.int64(),
    "where the line starts in the (decompressed) file; null where records are no stretch of bytes",
    unit="byte",
    nullable=True,
)
RAW: Final = field("raw", pa.binary(), "the record's bytes; null where they are too many to be held", nullable=True)
SKIP: Final = field(
    "skip",
    pa.string(),
    "why the record is not read: a schemas.reasons.DropReason, and after a colon and a blank what was found, if more is known",
    nullable=True,
)
RULES: Final = field(
    "rules", pa.string(), "settings of the set that the row is of, as stages.ingest.rules writes them", nullable=True
)
EXCERPT: Final = field("excerpt", pa.string(), "the beginning of the line, made printable", nullable=True)
DETAIL: Final = field("detail", pa.string(), "what was found, and what was expected", nullable=True)
DROP_REASON: Final = field("drop_reason", pa.string(), "why the row was dropped: see schemas.reasons.DropReason")
