"""Compiled: an audit of labels that reads them and the spans alone, and knows nothing of how they were made."""

import numba
import numpy as np

from stages.mask.kernels import IGNORED, Codes, Floats, Int32s, Ints

SOUND, BROKEN_SPANS, NOT_AN_ID, FIRST_TRAINED, NOT_PERMITTED, WEIGHT_DIFFERS, ENDLESS, HOLE = range(8)
"""Faults of a row."""
NEVER = np.iinfo(np.int32).max


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def audit(
    id_offsets: Ints,
    ids: Int32s,
    labels: Int32s,
    weight_offsets: Ints,
    loss_weights: Floats,
    offsets: Ints,
    starts: Int32s,
    ends: Int32s,
    roles: Codes,
    classes: Codes,
    messages: Int32s,
    own: Floats,
    due: Floats,
    assistant: int,
    stop: int,
) -> tuple[Codes, Int32s, Ints, Ints, Int32s]:
    """Return (fault per row, where it is, tokens per role and class, trained ones, turns).

    `due` is the weight of each role and class. Of several faults of a row the first is told. `turns` has four numbers per
    row: trained turns, those that end on a trained stop, and the lowest and the highest message of the assistant that is
    trained.
    """
    n_rows = len(offsets) - 1
    faults = np.zeros(n_rows, np.uint8)
    places = np.full(n_rows, -1, np.int32)
    tokens = np.zeros(due.shape, np.int64)
    trained = np.zeros(due.shape, np.int64)
    turns = np.zeros((n_rows, 4), np.int32)
    turns[:, 2] = NEVER
    turns[:, 3] = -1
    for row in range(n_rows):
        base, n_tokens = id_offsets[row], id_offsets[row + 1] - id_offsets[row]
        fault, place = _cover(offsets[row], offsets[row + 1], starts, ends, n_tokens)
        if fault == SOUND:
            fault, place = _compare(
                base, n_tokens, ids, labels, weight_offsets[row], weight_offsets[row + 1], loss_weights
            )
        if fault != BROKEN_SPANS:
            for span in range(offsets[row], offsets[row + 1]):
                role, name = roles[span], classes[span]
                n_trained = 0
                for token in range(base + starts[span], base + ends[span]):
                    n_trained += labels[token] != IGNORED
                tokens[role, name] += ends[span] - starts[span]
                trained[role, name] += n_trained
                if n_trained and fault == SOUND:
                    weight = due[role, name] * own[span]
                    if weight <= 0:
                        fault, place = NOT_PERMITTED, starts[span]
                    else:
                        at = _other_weight(
                            base, starts[span], ends[span], labels, weight_offsets[row], weight_offsets[row + 1],
                            loss_weights, weight,
                        )  # fmt: skip
                        if at >= 0:
                            fault, place = WEIGHT_DIFFERS, at
            endless, hole = _count_turns(
                offsets[row],
                offsets[row + 1],
                base,
                labels,
                starts,
                ends,
                roles,
                classes,
                messages,
                own,
                due,
                turns[row],
                assistant,
                stop,
            )
            if endless >= 0 and fault == SOUND:
                fault, place = ENDLESS, endless
            if hole >= 0 and fault == SOUND:
                fault, place = HOLE, hole
        faults[row], places[row] = fault, place
    return faults, places, tokens, trained, turns


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _cover(first: int, last: int, starts: Int32s, ends: Int32s, n_tokens: int) -> tuple[int, int]:
    """Return (fault, place) of spans that are no partition of a row's tokens."""
    expected = 0
    for span in range(first, last):
        if starts[span] != expected or ends[span] < expected or ends[span] > n_tokens:
            return BROKEN_SPANS, expected
        expected = ends[span]
    return (SOUND, -1) if expected == n_tokens else (BROKEN_SPANS, expected)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _compare(
    base: int, n_tokens: int, ids: Int32s, labels: Int32s, first_weight: int, end_weight: int, loss_weights: Floats
) -> tuple[int, int]:
    """Return (fault, place) of labels that are not their tokens, or do not go with the loss weights."""
    if n_tokens and labels[base] != IGNORED:
        return FIRST_TRAINED, 0
    if end_weight - first_weight not in (0, n_tokens):
        return WEIGHT_DIFFERS, min(end_weight - first_weight, n_tokens)
    for at in range(n_tokens):
        label = labels[base + at]
        if label != IGNORED and label != ids[base + at]:
            return NOT_AN_ID, at
    if end_weight > first_weight:
        for at in range(n_tokens):
            if (loss_weights[first_weight + at] > 0) != (labels[base + at] != IGNORED):
                return WEIGHT_DIFFERS, at
    return SOUND, -1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _other_weight(
    base: int,
    start: int,
    end: int,
    labels: Int32s,
    first_weight: int,
    end_weight: int,
    loss_weights: Floats,
    weight: float,
) -> int:
    """Return the first trained token of a span that does not weigh `weight`, or -1; a row without weights has 1."""
    for at in range(start, end):
        found = loss_weights[first_weight + at] if end_weight > first_weight else np.float32(1.0)
        if labels[base + at] != IGNORED and found != weight:
            return at
    return -1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _count_turns(
    first: int,
    last: int,
    base: int,
    labels: Int32s,
    starts: Int32s,
    ends: Int32s,
    roles: Codes,
    classes: Codes,
    messages: Int32s,
    own: Floats,
    due: Floats,
    turns: Int32s,
    assistant: int,
    stop: int,
) -> tuple[int, int]:
    """Add a row's turns to `turns`; return (message of the first that is endless, first hole), each -1 if there is none.

    A trained turn is endless without a trained stop at its end. A hole is a token that has a weight and is not trained,
    in a turn of the assistant of which others are, or in any other text; a row's first token is none.
    """
    endless = hole = -1
    span = first
    while span < last:
        begin = span
        message = messages[begin]
        is_trained = ends_on_stop = False
        missing = -1
        while span < last and roles[span] == roles[begin] and messages[span] == message:
            is_due = due[roles[span], classes[span]] * own[span] > 0
            for token in range(base + starts[span], base + ends[span]):
                if labels[token] != IGNORED:
                    is_trained = True
                    # the last trained token decides, and it must be its stop's last
                    ends_on_stop = classes[span] == stop and token == base + ends[span] - 1
                elif is_due and missing < 0 and token > base:
                    missing = token - base
            span += 1
        if missing >= 0 and hole < 0 and (is_trained or roles[begin] != assistant):
            hole = missing
        if is_trained and roles[begin] == assistant:
            turns[0] += 1
            turns[1] += ends_on_stop
            turns[2], turns[3] = min(turns[2], message), max(turns[3], message)
            if not ends_on_stop and endless < 0:
                endless = message
    return endless, hole
