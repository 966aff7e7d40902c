"""Rows whose tokens do not spell their text byte for byte: placed by the offsets that `tokenizers` gives, and checked."""

import numpy as np
from numpy.typing import NDArray

from stages.tokenize.engine import Engine
from stages.tokenize.spelling import BYTE_CHARACTERS, METASPACE

Offsets = list[tuple[int, int]]


def misspelling(engine: Engine, text: str, ids: NDArray[np.int32], offsets: Offsets) -> str | None:
    """Return what is wrong with a row, or None: tokens must spell the text as the tokenizer's own normaliser writes it.

    Offsets have to ascend within the text. Between added tokens and unknown ones, whose place in the text is known, the
    spelled bytes must be the normalised text, white space aside: a tokenizer may drop, add or move that. So a lossy
    tokenizer is held to losing what it says it loses, and nothing else.
    """
    position = 0
    for first, last in offsets:
        if not position <= first <= last <= len(text):
            return f"the offsets of the tokens do not ascend: {first} to {last} after {position}, of {len(text)} characters"
        position = first
    is_apart = engine.is_added[ids] | (engine.spellings.lengths[ids] < 0)
    previous = done = 0
    for at in [*np.flatnonzero(is_apart).tolist(), len(ids)]:
        first, last = offsets[at] if at < len(ids) else (len(text), len(text))
        expected = _bare(_normalised(engine, text[done:first]))
        got = _bare(engine.spellings.spell(ids[previous:at]).decode(errors="replace"))
        if expected != got:
            return f"characters {done} to {first} are {_short(expected)}, but their tokens spell {_short(got)}"
        if at < len(ids) and engine.spellings.lengths[ids[at]] >= 0:
            got = _bare(engine.spellings.spell(ids[at : at + 1]).decode(errors="replace"))
            expected = text[first:last]
            if got not in (_bare(expected), _bare(_normalised(engine, expected))):
                return f"characters {first} to {last} are {_short(expected)}, but the token there is {_short(got)}"
        elif at < len(ids):
            last = _end_of_unknown(engine, text, first, last)
        previous, done = at + 1, max(done, last)
    return None


def place(offsets: Offsets, edges: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return (first token of each span, characters behind its first one that a token from before it covers).

    `edges` are the first characters of the spans.
    """
    firsts, lasts = np.asarray(offsets, np.int64).reshape(-1, 2).T
    starts = np.searchsorted(firsts, edges, side="left")
    reached = np.concatenate(([0], np.maximum.accumulate(lasts)))[starts]
    return starts.astype(np.int32), np.maximum(reached - edges, 0).astype(np.int32)


def count_straddling(offsets: Offsets, edges: NDArray[np.int32], n_characters: int) -> int:
    """Return how many tokens begin in one span and end in another."""
    firsts, lasts = np.asarray(offsets, np.int64).reshape(-1, 2).T
    ends = np.append(edges[1:], n_characters)
    return int((lasts > ends[np.searchsorted(edges, firsts, side="right") - 1]).sum()) if len(edges) else 0


def _end_of_unknown(engine: Engine, text: str, first: int, last: int) -> int:
    """Return where the text of an unknown token ends, the marks included that the normaliser joins with its last letter.

    Offsets know only the letter, and the token does not say what it stood for.
    """
    n_characters = len(_bare(_normalised(engine, text[first:last])))
    while last < len(text) and len(_bare(_normalised(engine, text[first : last + 1]))) <= n_characters:
        last += 1
    return last


def _normalised(engine: Engine, text: str) -> str:
    normalizer = engine.oracle.normalizer
    if normalizer is None:
        return text
    written = str(normalizer.normalize_str(text))
    if any(part.get("type") == "ByteLevel" for part in engine.definition.components("normalizer")):
        return bytes(BYTE_CHARACTERS[character] for character in written).decode(errors="replace")
    return written


def _bare(text: str) -> str:
    return "".join(text.replace(METASPACE, " ").split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:30]} ... {text[-25:]}")
