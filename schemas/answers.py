"""What is said between whoever asks for answers and the process that writes them: one JSON object a line, both ways.

The process gets an Opening, then any number of Asks and Cancels, and ends when nothing more comes and all is answered. It
says Ready once; then, as they come, a Token of each answer that is streamed, and for every Ask an Answered or a Refused. A
Failed is the last thing that it says.
"""

import msgspec

from schemas.generation import Generation


class Opening(msgspec.Struct, frozen=True, kw_only=True, tag="opening"):
    """How all answers are written."""

    generation: Generation
    stop_ids: tuple[int, ...] = ()
    """Tokens that end an answer, besides those that the model directory names."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """A prompt."""

    key: int
    """By which its answer is known; no two open ones have the same."""
    input_ids: tuple[int, ...]
    seed: int
    """Of what is drawn for its answer."""
    is_streamed: bool = False
    """Whether each token is said as it is written."""


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """An answer that is no longer wanted; it is Answered with what there is of it."""

    key: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is in memory."""

    room: int
    """Tokens of the longest conversation, prompt and answer together."""
    device: str
    dtype: str
    """Of the weights as they are multiplied."""
    n_parameters: int


class Token(msgspec.Struct, frozen=True, kw_only=True, tag="token"):
    """One more token of an answer that is streamed."""

    key: int
    id: int


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """An answer."""

    key: int
    ids: tuple[int, ...]
    """Without the stop token."""
    is_stopped: bool
    """Whether it ended on a stop token, not at the limit."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A prompt that cannot be answered, and why."""

    key: int
    reason: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The process cannot go on: what a person should know, and the exit code."""

    text: str
    exit_code: int


Request = Opening | Ask | Cancel
Reply = Ready | Token | Answered | Refused | Failed
