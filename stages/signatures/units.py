"""The texts of a shard that are compared, as arrays."""

from collections.abc import Sequence
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
    """The units of all rows, one after another."""

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
    whole: U64
    """Shape (rows, 2): the exact hash of the conversation, where has_hash[0]."""
    prompt: U64
    """Shape (rows, 2): that of the first message of the user, where has_hash[1]."""
    has_hash: NDArray[np.bool_]


def find_units(rows: Conversations, scopes: Sequence[Scope], rules: Rules, ngram: int) -> Units:
    """Return the units of these scopes."""
    from stages.signatures.sort_kernel import SORT_ROOM
    from stages.signatures.token_kernel import SCRATCH, open_reader
    from stages.signatures.unit_kernel import Found, Spoken, Work, measure_rows, sign_units

    table = alphabet(rules)
    n_rows, n_messages = len(rows.bounds) - 1, len(rows.counts)
    spoken = Spoken(rows.spoken.addresses, rows.spoken.sizes, rows.counts)
    longest, total = measure_rows(rows.bounds, spoken)
    most = n_rows * len(scopes) + n_messages * ("turns" in scopes)
    # no text has more tokens than bytes; memory that is never written is never taken from the machine
    found = Found(
        scope=np.empty(most, np.uint8),
        message=np.empty(most, np.int32),
        exact=np.empty((most, 2), np.uint64),
        starts=np.empty(most + 1, np.int64),
        shingles=np.empty(total * len(scopes), np.uint32),
    )
    whole, prompt = np.empty((n_rows, 2), np.uint64), np.empty((n_rows, 2), np.uint64)
    has_hash, bounds = np.empty((2, n_rows), np.bool_), np.empty(n_rows + 1, np.int64)
    asked = np.array([SCOPES.index(scope) for scope in scopes], np.int64)
    chosen = np.stack([rows.first_user, rows.last_assistant])
    work = Work(
        tokens=np.empty(longest + 1, np.uint64),
        sums=np.empty(longest, np.uint64),
        hashes=np.empty(longest + SORT_ROOM, np.uint32),
    )
    scratch = np.empty(SCRATCH, np.uint8)
    reader = open_reader(table, scratch, work.tokens)
    n_units, n_shingles = sign_units(
        rows.bounds, spoken, asked, chosen, reader, work, ngram, whole, prompt, has_hash, bounds, found
    )
    return Units(
        bounds=bounds,
        scope=found.scope[:n_units],
        message=found.message[:n_units],
        exact=found.exact[:n_units],
        shingles=found.shingles[:n_shingles],
        starts=found.starts[: n_units + 1],
        whole=whole,
        prompt=prompt,
        has_hash=has_hash,
    )
