"""Compiled: conversations to their hashes, and to the shingles of the texts that are compared."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.signatures.content_kernel import Contents, hash_content
from stages.signatures.shingle_kernel import hash_exactly, hash_shingles
from stages.signatures.sort_kernel import sort_distinct
from stages.signatures.token_kernel import Reader, tokenize_text

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]

CONVERSATION, PROMPT, ANSWER, TURNS = 0, 1, 2, 3
"""Places in schemas.scopes.SCOPES."""
NOBODY, USER, ASSISTANT = 0, 1, 2
"""Codes of the roles that scopes ask for; NOBODY is any other."""


class Spoken(NamedTuple):
    """The text of message m: sizes[part, m] bytes at addresses[part, m], part by part, if it `counts`."""

    addresses: U64
    sizes: I32
    counts: Bool


class Room(NamedTuple):
    """Addresses of memory for one row: a token, a sum and a hash for each byte of text, and SORT_ROOM hashes more."""

    tokens: np.uint64
    sums: np.uint64
    hashes: np.uint64


class Rows(NamedTuple):
    """What is found of each row."""

    content: U64
    whole: U64
    """The exact hash of the conversation: (rows, 2)."""
    prompt: U64
    """That of the first message of the user: (rows, 2)."""
    has_whole: Bool
    has_prompt: Bool
    bounds: I64
    """Row r has the units bounds[r]:bounds[r + 1]."""


class Found(NamedTuple):
    """The units of all rows, one after another; unit u has the shingles starts[u]:starts[u + 1]."""

    scope: U8
    message: I32
    exact: U64
    starts: I64
    shingles: U32


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def measure_rows(bounds: I64, spoken: Spoken) -> tuple[int, int]:
    """Return the bytes of the longest row's text, and of all rows."""
    longest = total = 0
    for row in range(len(bounds) - 1):
        n_bytes = 0
        for message in range(bounds[row], bounds[row + 1]):
            if spoken.counts[message]:
                for part in range(len(spoken.sizes)):
                    n_bytes += max(spoken.sizes[part, message], 0)
        longest = max(longest, n_bytes)
        total += n_bytes
    return longest, total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sign_units(
    bounds: I64,
    roles: U8,
    contents: Contents,
    spoken: Spoken,
    asked: I64,
    fewest: I64,
    reader: Reader,
    room: Room,
    ngram: int,
    rows: Rows,
    found: Found,
) -> tuple[int, int]:
    """Write what is found of every row and its units; return how many units and shingles there are.

    Row r has the messages bounds[r]:bounds[r + 1]; `asked` are the scopes, and `fewest` the tokens that a text of each
    needs to be one of the units. Each message is cut into tokens once: every
    text that is compared is a range of the row's tokens.
    """
    most = 0
    for row in range(len(bounds) - 1):
        most = max(most, bounds[row + 1] - bounds[row])
    ends = np.zeros(most + 1, np.int64)
    shingles = np.uint64(found.shingles.ctypes.data)
    n_units = filled = 0
    rows.bounds[0] = found.starts[0] = 0
    for row in range(len(bounds) - 1):
        first, end = bounds[row], bounds[row + 1]
        rows.content[row] = hash_content(contents, row, first, end)
        n, prompt, answer = _tokenize_row(first, end, roles, spoken, reader, ends)
        whole = hash_exactly(room.tokens, n)
        rows.whole[row, 0], rows.whole[row, 1] = whole
        rows.has_whole[row] = n > 0
        begin = ends[prompt] if prompt >= 0 else 0
        n_prompt = ends[prompt + 1] - begin if prompt >= 0 else 0
        rows.prompt[row, 0], rows.prompt[row, 1] = hash_exactly(_token(room, begin), n_prompt)
        rows.has_prompt[row] = n_prompt > 0
        for k in range(len(asked)):
            scope = asked[k]
            low, high = 0, end - first
            if scope == CONVERSATION:
                low, high = -1, 0
            elif scope != TURNS:
                low = prompt if scope == PROMPT else answer
                high = low + 1 if low >= 0 else low
            for message in range(low, high):
                begin, n_tokens = (ends[message], ends[message + 1] - ends[message]) if message >= 0 else (0, n)
                if n_tokens < fewest[k]:
                    continue
                found.scope[n_units], found.message[n_units] = scope, message
                at = _token(room, begin)
                found.exact[n_units, 0], found.exact[n_units, 1] = whole if message < 0 else hash_exactly(at, n_tokens)
                n_shingles = hash_shingles(at, n_tokens, ngram, room.sums, room.hashes)
                filled += sort_distinct(room.hashes, n_shingles, shingles + np.uint64(4 * filled))
                n_units += 1
                found.starts[n_units] = filled
        rows.bounds[row + 1] = n_units
    return n_units, filled


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _token(room: Room, i: int) -> Any:
    return room.tokens + np.uint64(8 * i)


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _tokenize_row(first: int, end: int, roles: U8, spoken: Spoken, reader: Reader, ends: I64) -> tuple[int, int, int]:
    """Write the row's tokens, and where those of each message end.

    Return how many there are, the user's first message and the assistant's last one, -1 if there is none.
    """
    n = 0
    prompt = answer = -1
    for message in range(first, end):
        if spoken.counts[message]:
            for part in range(len(spoken.sizes)):
                size = spoken.sizes[part, message]
                if size > 0:
                    n = tokenize_text(spoken.addresses[part, message], size, reader, n)
        ends[message - first + 1] = n
        if roles[message] == USER and prompt < 0:
            prompt = message - first
        if roles[message] == ASSISTANT:
            answer = message - first
    return n, prompt, answer
