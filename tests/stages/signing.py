"""Small shards of conversations, and a plain reading of their text that the kernels must agree with."""

from collections.abc import Sequence
from typing import Any
from unicodedata import category, normalize

import msgspec
import polars as pl
from hypothesis import strategies as st

from schemas.fields import MESSAGE
from stages.signatures import Signatures, sign_conversations
from stages.signatures.alphabet import UNSPACED

Message = dict[str, str | None]

MESSAGES = pl.List(pl.Struct({field.name: pl.Float32 if field.name == "weight" else pl.String for field in MESSAGE}))
SCHEMA = {
    "id": pl.String,
    "source": pl.String,
    "tags": pl.List(pl.String),
    "score": pl.Float64,
    "created": pl.Datetime("us", "UTC"),
    "messages": MESSAGES,
    "tools": pl.String,
    "record_id": pl.String,
    "line": pl.Int64,
    "offset": pl.Int64,
    "shape": pl.String,
    "rejected": pl.String,
    "repairs": pl.List(pl.String),
    "n_chars": pl.Int32,
    "n_turns": pl.Int32,
}

# what makes tokenising hard, next to each other more often than chance would have it
HOSTILE = st.sampled_from(
    "aZé9ßİΣ ,.'_-`^¨$+=😀❤👍🏽中文あがｶﾞไทยမြန်한글ᄒ①ﬁＡ　。\U00020000\U0010ffff\n\t\x00"
    "\u0301\u0300\u200d\u200b\ufe0f\u00ad\ufeff"
)
TEXTS = st.text(HOSTILE | st.characters(exclude_categories=["Cs"]), max_size=60)
# runs of one kind, so that words and blocks end at, before and after multiples of 8 and 64 bytes
RUNS = st.lists(
    st.tuples(
        st.sampled_from(["a", "Bc", " ", "x ", "word ", "=", "中", "é", "\u0301", "\u00ad", ", "]), st.integers(1, 70)
    ),
    max_size=8,
).map(lambda runs: "".join(piece * times for piece, times in runs))


def conversation(*messages: tuple[str, str | None], **extra: str) -> list[Message]:
    return [{"role": role, "content": content, **extra} for role, content in messages]


def measured(*rows: list[Message], tools: Sequence[str | None] = (), source: str = "a.jsonl") -> pl.DataFrame:
    """Return rows of MEASURED with ids <source>:1, <source>:2, ..."""
    return pl.DataFrame(
        [
            {
                "id": f"{source}:{i + 1}",
                "source": source,
                "tags": [],
                "line": i + 1,
                "shape": "messages",
                "repairs": [],
                "messages": row,
                "tools": tools[i] if tools else None,
                "n_chars": sum(len(message["content"] or "") for message in row),
                "n_turns": sum(message["role"] == "assistant" for message in row),
            }
            for i, row in enumerate(rows)
        ],
        schema=SCHEMA,
    )


def configured(**config: Any) -> Signatures:
    return msgspec.convert(config, Signatures)


def units(frame: pl.DataFrame, **config: Any) -> pl.DataFrame:
    """Return the units of a frame's rows, with the ids of the rows."""
    out = sign_conversations(frame, configured(**config))
    return out.select("id", "units").explode("units", empty_as_null=False).unnest("units")


def signed(*texts: str, **config: Any) -> pl.DataFrame:
    """Return the units of conversations of one user message each; every text has a token."""
    out = units(measured(*[conversation(("user", text)) for text in texts]), **config)
    assert out.height == len(texts)
    return out


def plain_tokens(text: str, **config: str) -> list[str]:
    """Cut a text into tokens, one character after another, by nothing but the Unicode database."""
    tokens: list[str] = []
    is_open = is_word = False
    for character in text:
        folded = _fold(character, config)
        kind = category(folded)
        if "\u180b" <= folded <= "\u180f" or "\ufe00" <= folded <= "\ufe0f" or "\U000e0100" <= folded <= "\U000e01ef":
            continue
        if kind == "Cf" and folded != "\u200b":
            continue
        if _separates(folded, config):
            is_open = False
        elif kind[0] == "M" and is_open:
            tokens[-1] += folded
        else:
            continues = kind[0] == "M" or (
                kind[0] in "LN"
                and config.get("token") != "character"
                and not any(start <= ord(folded) < end for start, end in UNSPACED)
            )
            if continues and is_open and is_word:
                tokens[-1] += folded
            else:
                tokens.append(folded)
            is_open, is_word = True, continues
    return tokens


def _fold(character: str, config: dict[str, str]) -> str:
    wide = normalize("NFKC", character) if config.get("width") != "keep" else character
    wide = wide if len(wide) == 1 else character
    lower = wide.lower() if config.get("case") != "keep" else wide
    return lower if len(lower) == 1 else character


def _separates(character: str, config: dict[str, str]) -> bool:
    kind = category(character)
    if character.isspace():
        return config.get("white_space") != "keep"
    is_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    if kind[0] == "P" or (kind == "Sk" and not is_tone):
        return config.get("punctuation") != "keep"
    return kind[0] == "Z" or kind in ("Cc", "Cf")


def is_same_partition(left: Sequence[object], right: Sequence[object]) -> bool:
    """Say whether two sequences repeat themselves in the same places, that is, map onto each other one to one."""
    return len(left) == len(right) and len(set(zip(left, right, strict=True))) == len(set(left)) == len(set(right))
