"""Signatures: text to distinct shingle hashes, a MinHash sketch and an exact hash; one row in, one row out."""

from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.scopes import SCOPES, Scope
from stages.arrow import string_buffers
from stages.signatures.alphabet import code_points

LANES: Final = 16
"""MinHash values are made sixteen at a time: one AVX-512 register, two AVX2 ones."""


class Signatures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What text is compared, and how finely."""

    scope: Scope | tuple[Scope, ...] = "conversation"
    """What is compared: "conversation" (all messages), "prompt" (the first of the user), "answer" (the last of the assistant),
    "turns" (each message by itself), or a list of these."""
    includes_system: bool = False
    """Whether "conversation" counts system prompts; they are boilerplate that makes strangers look alike."""
    leave_out: tuple[str, ...] = ()
    """Regular expressions; what they match in a message counts as a space."""
    case: Literal["fold", "keep"] = "fold"
    """Whether A and a are the same."""
    width: Literal["fold", "keep"] = "fold"
    """Whether full-width, half-width, circled and other compatibility forms are the same as the plain ones (NFKC)."""
    punctuation: Literal["ignore", "keep"] = "ignore"
    """Whether each punctuation mark is a token; else it only separates."""
    white_space: Literal["ignore", "keep"] = "ignore"
    """Whether each white-space character is a token; else it only separates."""
    token: Literal["word", "character"] = "word"
    """What a shingle is made of; scripts without spaces are always read character by character."""
    ngram: Annotated[int, msgspec.Meta(ge=1, le=64)] = 5
    """Tokens per shingle."""
    num_perm: Annotated[int, msgspec.Meta(ge=LANES, le=1024, multiple_of=LANES)] = 128
    """MinHash values per text; more find candidates more surely and cost in proportion."""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 1
    """Seed of the permutations; datasketch's default is 1."""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Return the scopes, each once, in the order of schemas.scopes."""
        asked = (self.scope,) if isinstance(self.scope, str) else self.scope
        return tuple(scope for scope in SCOPES if scope in asked)


def sign_conversations(frame: pl.DataFrame, config: Signatures) -> pl.DataFrame:
    """Return one signature per conversation, in the same order.

    The text of a message is its reasoning, content and tool calls. It is normalised code point by code point (NFKC
    where the result is one code point, then lower case), and cut into tokens: words of scripts that put spaces between
    words; single characters of scripts that do not (Han, kana, Thai, Lao, Khmer, Myanmar, Tibetan, ...); single symbols
    and emoji. White space, punctuation and control characters separate; combining marks stay with what they follow;
    joiners and variation selectors count for nothing (see `stages.signatures.alphabet`). No shingle border lies
    between two messages, and roles are no part of the text.

    `shingles` are the distinct 32-bit hashes of every `ngram` successive tokens, ascending. A text with fewer tokens
    has one shingle, of all of them; a text without any token has none. `exact_hash` covers the token sequence.

    `minhash` equals `datasketch.MinHash(num_perm, seed, scheme="affine32", hashfunc=int)` updated with the same
    shingles, bit for bit, so a row of it loads into datasketch, where it can be queried against any MinHashLSH:
    `MinHash(hashvalues=row, seed=seed, scheme="affine32", permutations=sketch_permutations(num_perm, seed))`.
    """
    # numba takes half a second to import and is of no use to a process that only looks at a run
    from stages.signatures.shingle_kernel import shingle_rows
    from stages.signatures.sketch_kernel import sketch_rows

    bounds, text, wanted = _messages(frame, config)
    offsets, data = string_buffers(text)
    shingles, starts, exact = shingle_rows(data, offsets, wanted, bounds, code_points(), config.ngram)
    a, b = sketch_permutations(config.num_perm, config.seed)
    minhash = sketch_rows(shingles, starts, a, b)
    units = pl.DataFrame(
        {
            "scope": pl.Series([config.scopes[0]] * frame.height, dtype=pl.String),
            "message": pl.Series([-1] * frame.height, dtype=pl.Int32),
            "exact_hash": _binaries(exact),
            "shingles": _lists(shingles, starts),
            "minhash": _lists(minhash.reshape(-1), np.arange(frame.height + 1, dtype=np.int64) * config.num_perm),
        }
    )
    has_text = pl.Series(starts[1:] > starts[:-1], dtype=pl.Boolean)
    return frame.select("id", "source", "tags", "score", "created", "n_chars").with_columns(
        content_hash=pl.Series(exact[:, 0]),
        text_hash=pl.select(pl.when(has_text).then(units["exact_hash"])).to_series(),
        prompt_hash=pl.lit(None, pl.Binary),
        units=pl.Series(
            [[] if not ok else [u] for ok, u in zip(has_text, units.to_dicts(), strict=True)],
            dtype=pl.List(pl.Struct(units.schema)),
        ),
    )


def sketch_permutations(num_perm: int, seed: int) -> NDArray[np.uint32]:
    """Return the factors (odd) and terms of h -> a * h + b mod 2^32, as datasketch draws them: (2, num_perm)."""
    generator = np.random.RandomState(seed)  # the legacy generator, whose stream numpy has frozen
    a = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return np.stack([a, generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)])


def _messages(frame: pl.DataFrame, config: Signatures) -> tuple[NDArray[np.int64], pl.Series, NDArray[np.bool_]]:
    """Return where each row's messages begin (height + 1), every message's text, and whether the scope wants it."""
    lengths = frame["messages"].list.len().fill_null(0).to_numpy()
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    messages = frame["messages"].explode(empty_as_null=False, keep_nulls=False).struct
    role, text = messages.field("role"), messages.field("content")
    parts = {name: messages.field(name) for name in ("reasoning", "tool_calls")}
    if any(part.null_count() < len(part) for part in parts.values()):
        named = pl.DataFrame({"reasoning": parts["reasoning"], "content": text, "tool_calls": parts["tool_calls"]})
        text = named.select(pl.concat_str(pl.all(), separator="\n", ignore_nulls=True)).to_series()
    if config.scopes[0] == "conversation":
        wanted = np.ones(len(text), np.bool_) if config.includes_system else (role != "system").to_numpy()
    elif config.scopes[0] == "prompt":
        wanted = _one_per_row((role == "user").to_numpy(), bounds, last=False)
    else:
        wanted = _one_per_row((role == "assistant").to_numpy(), bounds, last=True)
    return bounds, text, wanted & text.is_not_null().to_numpy()


def _one_per_row(hits: NDArray[np.bool_], bounds: NDArray[np.int64], *, last: bool) -> NDArray[np.bool_]:
    """Keep the first or last hit of each row."""
    at = np.flatnonzero(hits)
    row = np.searchsorted(bounds, at, side="right")
    edge = np.ones(len(at), np.bool_)
    if len(at):
        changes = row[1:] != row[:-1]
        edge[slice(None, -1) if last else slice(1, None)] = changes
    wanted = np.zeros_like(hits)
    wanted[at[edge]] = True
    return wanted


def _lists(values: NDArray[np.uint32], starts: NDArray[np.int64]) -> pl.Series:
    """Return a list column over the buffers, uncopied."""
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(starts), pa.array(values))))


def _binaries(words: NDArray[np.uint64]) -> pl.Series:
    """Return a binary column of 16 bytes per row from (rows, 2) words, big-endian so that hex reads like the number."""
    data = pa.py_buffer(words.astype(">u8").tobytes())
    array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(words), [None, data])
    return pl.Series(pl.from_arrow(array.cast(pa.large_binary())))
