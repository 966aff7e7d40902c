"""The texts of a shard that are compared, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.scopes import SCOPES, Scope
from stages.signatures.alphabet import Rules, alphabet
from stages.signatures.texts import Conversations

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Units:
    """The hashes of all rows, and their units, one after another."""

    content: U64
    """One per row."""
    whole: U64
    """Shape (rows, 2): the exact hash of the conversation, where has_whole."""
    prompt: U64
    """Shape (rows, 2): that of the first message of the user, where has_prompt."""
    has_whole: NDArray[np.bool_]
    has_prompt: NDArray[np.bool_]
    bounds: I64
    """Row r has the units bounds[r] to bounds[r + 1]."""
    scope: NDArray[np.uint8]
    """Place in SCOPES."""
    message: NDArray[np.int32]
    """-1 for the whole conversation."""
    exact: U64
    """Shape (units, 2)."""
    shingles: NDArray[np.uint32]
    starts: I64
    """Unit u has the shingles starts[u] to starts[u + 1], distinct and ascending."""


def find_units(
    rows: Conversations, scopes: Sequence[Scope], fewest: Mapping[Scope, int], rules: Rules, ngram: int
) -> Units:
    """Return the hashes of the rows, and their units of these scopes; a text needs one token, or the `fewest` of its scope."""
    from stages.signatures.content_kernel import Contents
    from stages.signatures.sort_kernel import SORT_ROOM
    from stages.signatures.token_kernel import SCRATCH, open_reader
    from stages.signatures.unit_kernel import Found, Room, Rows, Spoken, measure_rows, sign_units

    n_rows, n_messages = len(rows.bounds) - 1, len(rows.counts)
    contents = Contents(
        rows.codes, rows.fields.addresses, rows.fields.sizes, rows.tools.addresses[0], rows.tools.sizes[0]
    )
    spoken = Spoken(rows.spoken.addresses, rows.spoken.sizes, rows.counts)
    longest, total = measure_rows(rows.bounds, spoken)
    table, scratch, tokens = alphabet(rules), np.empty(SCRATCH, np.uint8), np.empty(longest + 1, np.uint64)
    sums, hashes = np.empty(longest, np.uint64), np.empty(longest + SORT_ROOM, np.uint32)
    room = Room(*(np.uint64(array.ctypes.data) for array in (tokens, sums, hashes)))
    most = n_rows * len(scopes) + n_messages * ("turns" in scopes)
    of_rows = Rows(
        content=np.empty(n_rows, np.uint64),
        whole=np.empty((n_rows, 2), np.uint64),
        prompt=np.empty((n_rows, 2), np.uint64),
        has_whole=np.empty(n_rows, np.bool_),
        has_prompt=np.empty(n_rows, np.bool_),
        bounds=np.empty(n_rows + 1, np.int64),
    )
    # no text has more tokens than bytes; memory that is never written is never taken from the machine
    found = Found(
        scope=np.empty(most, np.uint8),
        message=np.empty(most, np.int32),
        exact=np.empty((most, 2), np.uint64),
        starts=np.empty(most + 1, np.int64),
        shingles=np.empty(total * len(scopes), np.uint32),
    )
    asked = np.array([SCOPES.index(scope) for scope in scopes], np.int64)
    n_units, n_shingles = sign_units(
        rows.bounds,
        rows.roles,
        contents,
        spoken,
        asked,
        np.array([max(fewest.get(scope, 1), 1) for scope in scopes], np.int64),
        open_reader(table, scratch, tokens),
        room,
        ngram,
        of_rows,
        found,
    )
    return Units(
        **of_rows._asdict(),
        scope=found.scope[:n_units],
        message=found.message[:n_units],
        exact=found.exact[:n_units],
        shingles=found.shingles[:n_shingles],
        starts=found.starts[: n_units + 1],
    )
