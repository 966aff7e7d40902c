"""Which of several similar rows is the best: a total order of the rows by what the settings say, then by their texts."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import GateError
from stages.clusters.hashes import hash_words
from stages.clusters.origins import PREFIX, origins_of
from stages.clusters.patterns import expression

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

_PLACE: Final = r"^:(\d+)(?:\.(\d+))?$"
"""What an id has behind its source: the number of the record, and of the conversation in it."""
_PARTS: Final = 1 << 20
"""Conversations of one record that are told apart."""
Criterion = Literal["longest", "shortest", "first", "newest", "oldest", "score", "source"]

FROM_RECORDS: Final[Mapping[str, str]] = {"newest": "created", "oldest": "created", "score": "score"}
"""The columns by which criteria go that a row has only if its record does, and [ingest] says where; by criterion."""
_LAST: Final = np.uint64(2**64 - 1)
_SIGN: Final = np.uint64(1 << 63)
_LOW: Final = np.uint64(2**32 - 1)
_UNLISTED: Final = np.uint32(2**32 - 1)
_SHOWN: Final = 5


def check_keep(criteria: tuple[Criterion, ...], priority: tuple[str, ...]) -> None:
    """Raise ValueError if criteria and priority do not say together which copy is the best."""
    if not criteria:
        raise ValueError(f"keep is empty: expected one or more of {', '.join(get_args(Criterion))}")
    twice = sorted({name for name in criteria if criteria.count(name) > 1})
    if twice:
        raise ValueError(f'keep names "{twice[0]}" twice; a criterion decides once, so leave one out')
    if {"longest", "shortest"} <= set(criteria) or {"newest", "oldest"} <= set(criteria):
        pair = '"longest" and "shortest"' if "longest" in criteria else '"newest" and "oldest"'
        raise ValueError(f"keep names {pair}: the second of them never decides; leave one out")
    if "source" in criteria and not priority:
        raise ValueError(
            'keep = "source" needs priority, patterns of sources from best to worst: priority = ["curated*", "*"]'
        )
    if priority and "source" not in criteria:
        raise ValueError('priority says nothing without keep = "source"; add it to keep, or drop priority')
    if "" in priority:
        raise ValueError("priority has an empty pattern, which matches no source; leave it out")
    again = sorted({pattern for pattern in priority if priority.count(pattern) > 1})
    if again:
        raise ValueError(f"priority names {again[0]!r} twice; only its first place counts, so leave one out")


def check_priority(priority: tuple[str, ...], origins: Iterable[str]) -> None:
    """Raise GateError if no pattern matches any origin of the corpus: then it decides nothing, and nobody would know."""
    names = sorted(set(origins))
    if priority and names and min(_first_match(names, priority)) == _UNLISTED:
        shown = ", ".join(name.removeprefix(PREFIX) for name in names[:_SHOWN])
        raise GateError(
            f"[clusters] priority = {list(priority)}: expected patterns of sources, but none matches any; "
            f"there are {shown}{', ...' if len(names) > _SHOWN else ''}. A pattern is matched against the whole path or "
            "name: write *name* for a part of it"
        )


def check_records(criteria: tuple[Criterion, ...], known: Container[str]) -> None:
    """Raise GateError if a criterion asks for a column of which no row has a value; `known` are those that some row has."""
    for name in criteria:
        column = FROM_RECORDS.get(name)
        if column is not None and column not in known:
            raise GateError(
                f'[clusters] keep names "{name}", but no row has a value in the column {column}, so that it decides nothing: '
                f"the key that [ingest] {column} names is in none of the records. Correct that key (names joined by dots lead "
                f'into objects: "meta.{column}"), or leave "{name}" out of keep'
            )


def best_first(rows: pl.DataFrame, criteria: tuple[Criterion, ...], priority: tuple[str, ...]) -> U32:
    """Return the numbers of the rows from best to worst; see `Ranking`."""
    ranking = Ranking(criteria, priority)
    ranking.read(rows)
    return ranking.best_first()


class Ranking:
    """The order of all rows from best to worst, from columns of schemas.tables.SIGNED, read shard by shard.

    longest and shortest: by n_chars. first: by path, then by line as a number. newest and oldest: by created, null
    last. score: the highest first, null and NaN last. source: by the first pattern of `priority` that matches the
    path of the row's file, whole, or a name in its tags ("source:NAME"); `*` stands for any text, `?` for one
    character; no match last. Each criterion decides between equals of those before it; then come n_chars (longest
    first), text_hash, content_hash, path and line. So rows are equal only if they are one, and unless a criterion
    asks where rows stand, which texts come first is a matter of the texts alone, not of the order of the input.

    Memory: 44 bytes per row, 8 more for each of newest, oldest and score, 4 for source; 40 per row while it sorts.
    """

    def __init__(self, criteria: tuple[Criterion, ...], priority: tuple[str, ...]) -> None:
        self._criteria = criteria
        self._priority = priority
        self._keys: dict[str, list[U32]] = {}
        self._paths: dict[str, int] = {}
        self._n_rows = 0

    def read(self, shard: pl.DataFrame) -> None:
        """Take note of the rows of a shard, which follow those read before."""
        self._n_rows += shard.height
        for name in dict.fromkeys((*self._criteria, "longest", "text", "content", "first")):
            for part, key in enumerate(self._keys_of(name, shard)):
                self._keys.setdefault(f"{name}/{part}", []).append(key)

    def best_first(self) -> U32:
        """Return the numbers of all rows from best to worst."""
        return _lexicographic(self._levels(), self._n_rows)

    def _levels(self) -> Iterator[U32]:
        for name, parts in self._keys.items():
            key = np.concatenate(parts)
            if name == "first/0":  # paths were numbered as they came
                rank = np.empty(len(self._paths), np.uint32)
                rank[[self._paths[path] for path in sorted(self._paths)]] = np.arange(len(rank), dtype=np.uint32)
                key = rank[key]
            yield key
        yield np.arange(self._n_rows, dtype=np.uint32)

    def _keys_of(self, name: str, shard: pl.DataFrame) -> Iterable[U32]:
        """Return keys of a criterion, which ascend from best to worst, 32 bits each, the first deciding first."""
        if name in ("longest", "shortest"):
            n_chars = shard["n_chars"].to_numpy().astype(np.uint32)
            return (np.uint32(2**32 - 1) - n_chars,) if name == "longest" else (n_chars,)
        if name == "first":
            return self._place(shard)
        if name in ("newest", "oldest"):
            return _halves(_times(shard["created"], newest=name == "newest"))
        if name == "score":
            return _halves(_scores(shard["score"]))
        if name == "source":
            return (self._priorities(shard),)
        if name == "text":
            words = hash_words(shard["text_hash"])
            return (*_halves(words[:, 0]), *_halves(words[:, 1]))
        return _halves(shard["content_hash"].to_numpy())

    def _place(self, shard: pl.DataFrame) -> tuple[U32, U32, U32]:
        behind = pl.col("id").str.strip_prefix(pl.col("source"))
        line, part = (behind.str.extract(_PLACE, group).cast(pl.UInt64, strict=False) for group in (1, 2))
        number = line * _PARTS + part.fill_null(0)
        # an id that is no place in a file is a place of its own
        place = shard.select(path=pl.when(line.is_null()).then("id").otherwise("source"), line=number.fill_null(0))
        codes = (place["path"].rank("dense") - 1).to_numpy()
        for path in place["path"].unique().sort():
            self._paths.setdefault(path, len(self._paths))
        numbers = np.array([self._paths[path] for path in place["path"].unique().sort()], np.uint32)
        high, low = _halves(place["line"].to_numpy())
        return numbers[codes], high, low

    def _priorities(self, shard: pl.DataFrame) -> U32:
        codes, sets = origins_of(shard)
        names = sorted({name for each in sets for name in each})
        best = dict(zip(names, _first_match(names, self._priority), strict=True))
        of_sets = np.array([min(best[name] for name in each) for each in sets], np.uint32)
        return of_sets[codes]


def _first_match(origins: Sequence[str], priority: Sequence[str]) -> list[int]:
    """Return of each origin the first pattern that matches it whole."""
    names = pl.Series(origins, dtype=pl.String).str.strip_prefix(PREFIX)
    found = np.full(len(names), _UNLISTED)
    for i, pattern in reversed(list(enumerate(priority))):
        hits = names.str.contains(expression(pattern)).to_numpy()
        found[hits] = i
    numbers: list[int] = found.tolist()
    return numbers


def _times(created: pl.Series, *, newest: bool) -> U64:
    microseconds = created.dt.epoch("us")
    ascending = microseconds.fill_null(0).to_numpy().view(np.uint64) ^ _SIGN
    return np.where(created.is_null().to_numpy(), _LAST, ~ascending if newest else ascending)


def _scores(score: pl.Series) -> U64:
    is_last = (score.is_null() | score.is_nan().fill_null(value=True)).to_numpy()
    bits = (score.fill_null(0.0).to_numpy() + 0.0).view(np.uint64)  # + 0.0: minus zero is zero
    # floats ascend as their bits do, the negative ones in reverse
    ascending = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return np.where(is_last, _LAST, ~ascending)


def _halves(values: U64) -> tuple[U32, U32]:
    return (values >> np.uint64(32)).astype(np.uint32), (values & _LOW).astype(np.uint32)


def _lexicographic(levels: Iterable[U32], n_rows: int) -> U32:
    """Return the numbers of the rows in ascending order of their keys, the last of which must tell all rows apart.

    Each level looks only at rows that are equal by all levels before, and hardly any are after the second.
    """
    order = np.arange(n_rows, dtype=np.uint32)
    places = np.arange(n_rows)
    group = np.zeros(n_rows, np.uint64)
    for key in levels:
        if not len(places):
            break
        packed = group << np.uint64(32) | key[order[places]]
        by = np.argsort(packed)  # not stable, and so several times faster
        order[places] = order[places][by]
        packed = packed[by]
        starts = np.ones(len(packed) + 1, np.bool_)
        starts[1:-1] = packed[1:] != packed[:-1]
        is_tied = ~(starts[:-1] & starts[1:])
        group = (np.cumsum(starts[:-1], dtype=np.uint64) - np.uint64(1))[is_tied]
        places = places[is_tied]
    return order
