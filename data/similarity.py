"""How alike two conversations are: Jaccard similarity of their shingles, with an index to find the alike ones fast."""

import re
from collections import Counter, defaultdict

NGRAM = 5
"""Tokens of a shingle, as in the pipeline's `[signatures] ngram`."""

_TOKEN = re.compile(r"[一-鿿]|[^\W_一-鿿]+")


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return the distinct runs of five tokens: lower-case words, or single characters of Chinese."""
    tokens = _TOKEN.findall(text.lower())
    return frozenset(tuple(tokens[start : start + NGRAM]) for start in range(max(1, len(tokens) - NGRAM + 1)))


def jaccard(left: frozenset[tuple[str, ...]], right: frozenset[tuple[str, ...]]) -> float:
    """Return the share of shingles that both have."""
    return len(left & right) / len(left | right)


class Collection:
    """Texts seen so far, by shingle, so that a new one is compared only with those that share something with it."""

    def __init__(self) -> None:
        self._sets: list[frozenset[tuple[str, ...]]] = []
        self._holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)

    def closest(self, text: str) -> float:
        """Return the highest similarity of the text with any text added before; 0 when there is none."""
        candidate = shingles(text)
        shared = Counter(number for shingle in candidate for number in self._holders.get(shingle, ()))
        return max((n / (len(candidate) + len(self._sets[number]) - n) for number, n in shared.items()), default=0.0)

    def add(self, text: str) -> None:
        """Remember a text."""
        for shingle in shingles(text):
            self._holders[shingle].append(len(self._sets))
        self._sets.append(shingles(text))
