"""Near-duplicate texts by the cosine of their TF-IDF vectors, for files small enough to look at pair by pair.

The vectors are those of scikit-learn's TfidfVectorizer(analyzer="char", ngram_range=(1, 3)) over lower-cased text without
punctuation: counts times ln((1 + n) / (1 + df)) + 1, scaled to length 1. The pairs are all pairs above the threshold and
exact, yet no matrix of rows by rows is made: see stages.cosine.join_kernel.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import UserError

MAX_TEXTS: Final = 200_000
MAX_CHARS: Final = 32_000_000
"""Of all different texts together: a vector has at most three entries of 8 bytes for each."""
MAX_PAIRS: Final = 1_000_000
"""Of different texts; rows that hold the same text are counted, not listed."""

_PUNCTUATION: Final = re.compile(r"[^\w\s]")
_WHITE_SPACE_RUN: Final = re.compile(r"\s\s+")
Pairs: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]

_BLOCK: Final = 256
"""Texts joined between two moments at which Ctrl-C is heard."""


class TooLargeError(UserError):
    """There is more than can be compared pair by pair; the text says what to do instead."""


class Near(NamedTuple):
    """Which texts are alike."""

    groups: pl.Series
    """Of each row: the number of its text among the different ones, in order of appearance; null where it was left out."""
    pairs: pl.DataFrame
    """Every pair of different texts above the threshold: a < b (their numbers, int32) and similarity (float64)."""


def near_texts(texts: pl.Series, *, threshold: float) -> Near:
    """Group equal texts and find all pairs of groups whose cosine is greater than `threshold`, in order of (b, a).

    Texts are equal when their normalised forms are. Left out are nulls and empty texts, which also do not count as texts
    of the collection, and texts of one character and such that hold nothing but punctuation and white space, which do.
    Raises TooLargeError beyond MAX_TEXTS, MAX_CHARS or MAX_PAIRS.
    """
    assert 0 < threshold < 1
    if len(texts) > MAX_TEXTS:
        raise TooLargeError(f"{len(texts):,} texts, and at most {MAX_TEXTS:,} can be compared pair by pair")
    numbers: dict[str, int] = {}
    silent: dict[str, int] = {}
    repeats: list[int] = []
    groups: list[int | None] = []
    for text in texts:
        if not text:
            groups.append(None)
            continue
        plain = normalise(text)
        if len(text) == 1 or not plain or plain.isspace():
            silent[plain] = silent.get(plain, 0) + 1
            groups.append(None)
            continue
        number = numbers.setdefault(plain, len(numbers))
        if number == len(repeats):
            repeats.append(0)
        repeats[number] += 1
        groups.append(number)
    # what is not compared still makes its n-grams commoner, so it follows behind
    a, b, similarity = _join([*numbers, *silent], [*repeats, *silent.values()], len(numbers), threshold)
    return Near(pl.Series("group", groups, dtype=pl.Int32), pl.DataFrame({"a": a, "b": b, "similarity": similarity}))


def normalise(text: str) -> str:
    """Return `text` in lower case, without punctuation, and with each run of white space as one space.

    Punctuation is every character that is no letter, digit, underscore or white space; a single tab or line end stays,
    as it does in scikit-learn.
    """
    return _WHITE_SPACE_RUN.sub(" ", _PUNCTUATION.sub("", text.lower()))


def _join(texts: list[str], repeats: list[int], n_compared: int, threshold: float) -> Pairs:
    """Return the pairs among the first `n_compared` of these different texts."""
    if n_compared < 2:
        return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float64)
    from stages.cosine.join_kernel import join, post, profile
    from stages.cosine.vector_kernel import count_ngrams, weigh

    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=starts[1:])
    if starts[-1] > MAX_CHARS:
        raise TooLargeError(f"{starts[-1]:,} characters, and at most {MAX_CHARS:,} can be compared pair by pair")
    points = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    counts = np.array(repeats, np.int64)
    entries, ends, frequencies = count_ngrams(points, starts, counts)
    # commonest first: two texts that are similar share an n-gram among the rarest of each
    order = np.argsort(-frequencies, kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    idf = np.log((1 + counts.sum()) / (1 + frequencies[order])) + 1
    scales, cuts = weigh(entries, ends, ranks, idf, threshold)
    profiles = profile(entries, ends, idf, scales, n_compared)
    heads, rows = post(entries, ends, cuts, n_compared, len(idf))
    found = list(_blocks(join, n_compared, (entries, ends, cuts, idf, scales, profiles, heads, rows, threshold)))
    a, b, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return a, b, similarity


def _blocks(join: Callable[..., Pairs], n_compared: int, vectors: tuple[object, ...]) -> Iterator[Pairs]:
    seen = np.full(n_compared, -1, np.int32)
    n_found = 0
    for first in range(0, n_compared, _BLOCK):
        pairs = join(*vectors, seen, first, min(first + _BLOCK, n_compared), MAX_PAIRS - n_found + 1)
        n_found += len(pairs[0])
        if n_found > MAX_PAIRS:
            raise TooLargeError(f"more than {MAX_PAIRS:,} pairs of different texts")
        yield pairs


__all__ = ["MAX_CHARS", "MAX_PAIRS", "MAX_TEXTS", "Near", "TooLargeError", "near_texts", "normalise"]
