"""Compiled: weights of spans and labels of tokens.

A turn is a run of neighbouring spans of one message of the assistant, from its generation prompt to its stop. A message
that the template writes in two places has two turns.
"""

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Int32s = NDArray[np.int32]
Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]

IGNORED: Final = -100
"""The label that no loss looks at."""

# Verdicts on a turn.
UNTRAINED, STOPPED, NO_STOP, STOP_MERGED, STOP_UNTRAINED, EMPTY = range(6)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def weigh(
    offsets: Ints,
    starts: Int32s,
    ends: Int32s,
    roles: Codes,
    classes: Codes,
    messages: Int32s,
    own: Floats,
    table: NDArray[np.float32],
    n_turns: int,
    from_end: bool,
    assistant: int,
    stop: int,
    prompt: int,
) -> tuple[Floats, Codes]:
    """Return (weight of each span, verdict on each turn, at its first span).

    Weight is the table's times the message's own, and 0 for messages of the assistant other than its first or last
    `n_turns`.
    """
    n = len(starts)
    weights = np.zeros(n, np.float32)
    verdicts = np.zeros(n, np.uint8)
    highest = -1
    for span in range(n):
        highest = max(highest, messages[span])
    speaks = np.zeros(highest + 1, np.bool_)
    for row in range(len(offsets) - 1):
        first, last = offsets[row], offsets[row + 1]
        from_message, to_message = _counting(first, last, roles, messages, speaks, n_turns, from_end, assistant)
        for span in range(first, last):
            weight = table[roles[span], classes[span]] * own[span]
            if roles[span] == assistant and not from_message <= messages[span] <= to_message:
                weight = 0.0
            weights[span] = weight
        span = first
        while span < last:
            if roles[span] != assistant:
                span += 1
                continue
            begin = span
            while span < last and roles[span] == assistant and messages[span] == messages[begin]:
                span += 1
            verdicts[begin] = _verdict(begin, span, starts, ends, classes, weights, stop, prompt)
    return weights, verdicts


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _counting(
    first: int,
    last: int,
    roles: Codes,
    messages: Int32s,
    speaks: NDArray[np.bool_],
    n_turns: int,
    from_end: bool,
    assistant: int,
) -> tuple[int, int]:
    """Return the first and the last message of the assistant that counts, in the row of spans `first` to `last`.

    `speaks` is scratch, one flag per message, all off before and after.
    """
    lowest, highest = len(speaks), -1
    for span in range(first, last):
        if roles[span] == assistant and messages[span] >= 0:
            speaks[messages[span]] = True
            lowest, highest = min(lowest, messages[span]), max(highest, messages[span])
    from_message, to_message = lowest, highest if from_end else lowest
    if from_end:
        left = n_turns
        for message in range(highest, lowest - 1, -1):
            left -= speaks[message]
            if left == 0:
                from_message = message
                break
    for message in range(lowest, highest + 1):
        speaks[message] = False
    return from_message, to_message


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _verdict(
    begin: int, end: int, starts: Int32s, ends: Int32s, classes: Codes, weights: Floats, stop: int, prompt: int
) -> int:
    """Return what is to be said of the turn of spans `begin` to `end`."""
    last_trained = -1
    says_something = has_stop = False
    for span in range(begin, end):
        # the first token of a conversation is never trained
        n_tokens = ends[span] - max(starts[span], 1)
        if n_tokens > 0 and weights[span] > 0:
            last_trained = span
        if classes[span] == stop:
            has_stop = True
        elif classes[span] != prompt and ends[span] > starts[span]:
            says_something = True
    if last_trained < 0:
        return UNTRAINED
    if classes[last_trained] == stop:
        return STOPPED if says_something else EMPTY
    if not has_stop:
        return NO_STOP
    for span in range(begin, end):
        if classes[span] == stop and ends[span] > starts[span]:
            return STOP_UNTRAINED
    return STOP_MERGED


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def silence(
    offsets: Ints,
    roles: Codes,
    messages: Int32s,
    is_silent: NDArray[np.bool_],
    weights: Floats,
    assistant: int,
) -> None:
    """Set the weights of each turn to 0 whose first span `is_silent`."""
    for row in range(len(offsets) - 1):
        span, last = offsets[row], offsets[row + 1]
        while span < last:
            if not is_silent[span]:
                span += 1
                continue
            begin = span
            while span < last and roles[span] == assistant and messages[span] == messages[begin]:
                weights[span] = 0.0
                span += 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def spread(
    id_offsets: Ints, ids: Int32s, offsets: Ints, starts: Int32s, ends: Int32s, weights: Floats
) -> tuple[Int32s, Int32s, NDArray[np.bool_]]:
    """Return (label of each token, labels trained per row, whether a row has a weight other than 0 and 1)."""
    n_rows = len(offsets) - 1
    labels = np.full(len(ids), IGNORED, np.int32)
    n_supervised = np.zeros(n_rows, np.int32)
    is_weighted = np.zeros(n_rows, np.bool_)
    for row in range(n_rows):
        base = id_offsets[row]
        for span in range(offsets[row], offsets[row + 1]):
            # Nothing comes before the first token, so nothing could predict it; and a shift never crosses a border.
            first, last = base + max(starts[span], 1), base + ends[span]
            if weights[span] > 0 and first < last:
                labels[first:last] = ids[first:last]
                n_supervised[row] += last - first
                is_weighted[row] |= weights[span] != 1
    return labels, n_supervised, is_weighted


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def spread_weights(
    id_offsets: Ints,
    offsets: Ints,
    starts: Int32s,
    ends: Int32s,
    weights: Floats,
    is_weighted: NDArray[np.bool_],
) -> tuple[Ints, Floats]:
    """Return (offsets, values) of the weights of tokens; a row that is not weighted has none."""
    n_rows = len(offsets) - 1
    out_offsets = np.zeros(n_rows + 1, np.int64)
    for row in range(n_rows):
        n = id_offsets[row + 1] - id_offsets[row] if is_weighted[row] else 0
        out_offsets[row + 1] = out_offsets[row] + n
    values = np.zeros(out_offsets[n_rows], np.float32)
    for row in range(n_rows):
        if is_weighted[row]:
            base = out_offsets[row]
            for span in range(offsets[row], offsets[row + 1]):
                first, last = base + max(starts[span], 1), base + ends[span]
                if first < last:
                    values[first:last] = weights[span]
    return out_offsets, values
