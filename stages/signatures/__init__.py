"""Signatures: text to distinct shingle hashes, a MinHash sketch and an exact hash; one row in, one row out."""

from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.scopes import SCOPES, Scope
from stages.signatures.alphabet import Rules
from stages.signatures.columns import chosen_strings, hash_column, list_of, series, struct_of
from stages.signatures.texts import read_conversations
from stages.signatures.units import find_units

LANES: Final = 16
"""MinHash values are made sixteen at a time: one AVX-512 register, two AVX2 ones."""


class Signatures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What text is compared, and how finely."""

    scope: Scope | tuple[Scope, ...] = "conversation"
    """What is compared: "conversation" (all messages but the system's), "prompt" (the first of the user), "answer" (the last of
    the assistant), "turns" (each message by itself), or a list of these."""
    min_tokens: dict[Scope, Annotated[int, msgspec.Meta(ge=1)]] = {}
    """Texts of a scope that have fewer tokens are not compared, nor looked for: {answer = 10} lets every "Yes." stay."""
    includes_system: bool = False
    """Whether system prompts count in "conversation" and "turns"; they are boilerplate that makes strangers look alike."""
    leave_out: tuple[str, ...] = ()
    """Regular expressions (Rust's); what they match in the reasoning, content or tool calls of a message counts as a space."""
    case: Literal["fold", "keep"] = "fold"
    """Whether A and a are the same."""
    width: Literal["fold", "keep"] = "fold"
    """Whether full-width, half-width, circled and other compatibility forms are the same as the plain ones (NFKC)."""
    punctuation: Literal["ignore", "keep"] = "ignore"
    """Whether each punctuation mark is a token; else it only separates."""
    white_space: Literal["ignore", "keep"] = "ignore"
    """Whether each white-space character is a token; else it only separates."""
    token: Literal["word", "character"] = "word"
    """What a shingle is made of: words, or single characters; scripts without spaces are read by character in any case."""
    ngram: Annotated[int, msgspec.Meta(ge=1, le=64)] = 5
    """Tokens per shingle."""
    num_perm: Annotated[int, msgspec.Meta(ge=LANES, le=1024, multiple_of=LANES)] = 128
    """MinHash values per text; more find candidates more surely and cost in proportion."""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 1
    """Seed of the permutations; datasketch's default is 1."""

    def __post_init__(self) -> None:
        if not self.scope:
            raise ValueError(f"scope = []: expected at least one of {', '.join(SCOPES)}")
        for scope in self.min_tokens:
            if scope not in self.scopes:
                asked = ", ".join(self.scopes)
                raise ValueError(
                    f"min_tokens.{scope}: this scope is not compared; expected one of {asked}, or add it to scope"
                )
        for i, pattern in enumerate(self.leave_out):
            try:
                matches_nothing = pl.Series([""]).str.contains(pattern)[0]
            except pl.exceptions.ComputeError as error:
                said = [line for line in str(error).splitlines() if line.startswith("error: ")]
                problem = said[-1].removeprefix("error: ") if said else str(error).partition("\n")[0]
                raise ValueError(
                    f"leave_out[{i}] = {pattern!r}: not a regular expression: {problem}; write it as Rust's regex does "
                    "(no look-around, no back-references), with every \\ doubled unless the TOML string is in single quotes"
                ) from None
            if matches_nothing:
                raise ValueError(
                    f"leave_out[{i}] = {pattern!r}: matches the empty text, so it would put a space between any two "
                    "letters; expected a pattern that matches one character at least (+ instead of *)"
                )

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Return the scopes, each once, in the order of schemas.scopes."""
        asked = (self.scope,) if isinstance(self.scope, str) else self.scope
        return tuple(scope for scope in SCOPES if scope in asked)

    @property
    def rules(self) -> Rules:
        """Return what is folded, and what is a token."""
        return Rules(
            folds_case=self.case == "fold",
            folds_width=self.width == "fold",
            keeps_punctuation=self.punctuation == "keep",
            keeps_white_space=self.white_space == "keep",
            by_character=self.token == "character",
        )


def sign_conversations(frame: pl.DataFrame, config: Signatures) -> pl.DataFrame:
    """Return one row of schemas.tables.SIGNED per conversation, in the same order.

    The text of a message is its reasoning, content and tool calls, less what `leave_out` matches in each of them. It is
    normalised code point by code point (NFKC where the result is one code point, then lower case), and cut into tokens:
    words of scripts that put spaces between words; single characters of scripts that do not (Han, kana, Thai, Lao,
    Khmer, Myanmar, Tibetan, ...); single symbols and emoji. White space, punctuation and control characters separate;
    combining marks stay with what they follow; joiners and variation selectors count for nothing. Settings change that
    (see `stages.signatures.alphabet`). No token reaches over two messages, shingles do; roles are no part of the text.

    Each text that a scope of the config compares is a unit, if it has a token: the conversation (message -1), the first
    message of the user, the last one of the assistant, every message; system prompts only if `includes_system`. Units
    stand in the order of the scopes, then of the messages.

    `shingles` are the distinct 32-bit hashes of every `ngram` successive tokens, ascending. A text with fewer tokens
    has one shingle, of all of them. `exact_hash` covers the token sequence; text_hash is that of the conversation, and
    prompt_hash that of the first message of the user, whatever the scopes are.

    `minhash` equals `datasketch.MinHash(num_perm, seed, scheme="affine32", hashfunc=int)` updated with the same
    shingles, bit for bit, so a row of it loads into datasketch, where it can be queried against any MinHashLSH:
    `MinHash(hashvalues=row, seed=seed, scheme="affine32", permutations=sketch_permutations(num_perm, seed))`.

    Nothing depends on the other rows of the frame, nor on the machine. Memory beyond the result: 40 bytes per message,
    and 40 per byte of the longest conversation.
    """
    # numba takes half a second to import and is of no use to a process that only looks at a run
    from stages.signatures.sketch_kernel import sketch_rows

    rows = read_conversations(frame, config.leave_out, includes_system=config.includes_system)
    units = find_units(rows, config.scopes, config.min_tokens, config.rules, config.ngram)
    a, b = sketch_permutations(config.num_perm, config.seed)
    minhash = sketch_rows(units.shingles, units.starts, a, b)
    n_units = len(units.scope)
    structs = struct_of(
        {
            "scope": chosen_strings(units.scope, SCOPES),
            "message": pa.array(units.message),
            "exact_hash": hash_column(units.exact),
            "shingles": list_of(units.starts, units.shingles),
            "minhash": list_of(np.arange(n_units + 1, dtype=np.int64) * config.num_perm, minhash.reshape(-1)),
        }
    )
    return frame.select("id", "source", "tags", "score", "created", "n_chars").with_columns(
        content_hash=pl.Series(units.content),
        text_hash=series(hash_column(units.whole, units.has_whole)),
        prompt_hash=series(hash_column(units.prompt, units.has_prompt)),
        units=series(list_of(units.bounds, structs)),
    )


def sketch_permutations(num_perm: int, seed: int) -> NDArray[np.uint32]:
    """Return the factors (odd) and terms of h -> a * h + b mod 2^32, as datasketch draws them: (2, num_perm)."""
    generator = np.random.RandomState(seed)  # the legacy generator, whose stream numpy has frozen
    a = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return np.stack([a, generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)])
