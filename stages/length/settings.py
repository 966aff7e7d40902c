"""Which conversations are kept: bounds, scripts, noise and patterns. What is not set bounds nothing."""

from typing import Annotated, Literal

import msgspec
import polars as pl

from stages.length.scripts import ScriptName

Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Role = Literal["*", "system", "user", "assistant", "tool"]
"""Whose messages are looked at; "*": everybody's."""


def _check_order(bounds: msgspec.Struct) -> None:
    for unit in ("chars", "bytes", "turns"):
        low, high = getattr(bounds, f"min_{unit}"), getattr(bounds, f"max_{unit}")
        if high is not None and low > high:
            raise ValueError(f"min_{unit}={low} exceeds max_{unit}={high}; swap them or drop one")


class Side(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds, inclusive, on the messages of one role. A message of tool calls alone has no text, and none is asked of it."""

    min_chars: Count = 0
    """Fewest characters of each message."""
    max_chars: Count | None = None
    """Most characters of each message."""
    min_bytes: Count = 0
    """Fewest bytes of each message, in UTF-8."""
    max_bytes: Count | None = None
    """Most bytes of each message, in UTF-8."""
    min_turns: Count = 0
    """Fewest messages of the role in a conversation."""
    max_turns: Count | None = None
    """Most messages of the role in a conversation; 0: conversations in which it speaks are dropped."""

    def __post_init__(self) -> None:
        """Refuse bounds that nothing can meet."""
        _check_order(self)


class ScriptShare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on the share of a script in all that a side says in a conversation: its characters of that script by all of them.

    A side that has no message is not judged; the share of one whose messages have no character is 0.
    """

    script: ScriptName
    """han: U+4E00 to U+9FFF alone, which is what most filters count; cjk: also rarer characters, kana, hangul, and CJK's
    punctuation and full-width forms. Latin to Thai are letters and marks: spaces, digits and punctuation belong to none."""
    role: Role = "*"
    """Whose messages are looked at, all of them together; "*": everybody's."""
    more_than: Share | None = None
    """The share must be larger than this: 0.5 drops a conversation at exactly one half."""
    at_most: Share = 1.0
    """The share must not be larger than this; 0: not one such character."""

    def __post_init__(self) -> None:
        """Refuse bounds that nothing, or everything, can meet."""
        if self.more_than is not None and self.more_than >= self.at_most:
            raise ValueError(
                f"more_than={self.more_than} leaves nothing below at_most={self.at_most}; lower it, or raise at_most"
            )
        if self.more_than is None and self.at_most >= 1:
            raise ValueError("neither more_than nor at_most is set, so that every share will do; set one of them")


class Noise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what looks like noise in a message. Each message of the role is judged by itself."""

    role: Role = "*"
    """Whose messages are looked at; "*": everybody's."""
    max_symbols: Share = 1.0
    """Largest share of a message's characters that are neither letter, number, mark nor space: punctuation, signs, emoji."""
    max_run: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Longest run of one and the same character, spaces and line ends aside: 20 drops a message with 21 dots in a row."""
    max_repeated_lines: Share = 1.0
    """Largest share of a message's lines that are the same as one before, spaces around them and empty lines aside."""

    def __post_init__(self) -> None:
        """Refuse a rule that says nothing."""
        if self.max_symbols >= 1 and self.max_run is None and self.max_repeated_lines >= 1:
            raise ValueError("none of max_symbols, max_run and max_repeated_lines is set; set one of them")


class Pattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text that no message of the role may have."""

    pattern: str
    """Regular expression of Rust's regex (no look-around, no back-references; linear time): "(?i)as an ai language model"."""
    role: Role = "*"
    """Whose messages are looked at; "*": everybody's."""

    def __post_init__(self) -> None:
        """Refuse what is no regular expression, and one that matches everything."""
        try:
            is_anywhere = pl.Series([""]).str.contains(self.pattern)[0]
        except pl.exceptions.ComputeError as error:
            problem = str(error).removeprefix("regex error: ").removeprefix("regex parse error:").strip("\n")
            raise ValueError(f"pattern {self.pattern!r} is no regular expression of Rust's regex:\n{problem}") from None
        if is_anywhere:
            raise ValueError(f"pattern {self.pattern!r} matches the empty text, so that every message would be dropped")


class Length(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which conversations are kept: bounds, inclusive, and other rules of curation (docs/curation.md)."""

    min_chars: Count = 2
    """Fewest characters of all contents together."""
    max_chars: Count = 1_000_000
    """Most characters of all contents together."""
    min_bytes: Count = 0
    """Fewest bytes of all contents together, in UTF-8."""
    max_bytes: Count | None = None
    """Most bytes of all contents together, in UTF-8."""
    min_turns: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Fewest messages of the assistant."""
    max_turns: Count = 10_000
    """Most messages of the assistant."""
    system: Side = Side()
    """Bounds on system messages: the table [length.system]."""
    user: Side = Side()
    """Bounds on messages of the user: the table [length.user]."""
    assistant: Side = Side()
    """Bounds on messages of the assistant: the table [length.assistant]."""
    tool: Side = Side()
    """Bounds on results of tools: the table [length.tool]."""
    scripts: tuple[ScriptShare, ...] = ()
    """Bounds on the share of a script, e.g. of Chinese characters: tables [[length.scripts]]."""
    noise: tuple[Noise, ...] = ()
    """Bounds on symbols, runs of one character and repeated lines: tables [[length.noise]]."""
    patterns: tuple[Pattern, ...] = ()
    """Texts that drop a conversation: tables [[length.patterns]]."""

    def __post_init__(self) -> None:
        """Refuse bounds that nothing can meet."""
        _check_order(self)
