"""What each source loses to duplicates, and the alarm when it is too much."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import GateError
from stages.clusters.origins import PREFIX, origins_of

U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
Rows = NDArray[np.integer[Any]]

_FEWEST: Final = 100
"""Rows that a source must lose before it is an alarm: a share of less is chance."""
_SHOWN: Final = 10
_OF_TEMPLATES: Final = (
    "If they share only a template's text, leave it out with [signatures] leave_out or [clusters] ignore_common, or raise "
    "[clusters] threshold"
)
_OF_RECORDS: Final = (
    "If the file that [clusters] evaluations names is part of the corpus, leave it out of one of the two; if the rows share only "
    'a template\'s text with its records, raise [clusters] overlap, or set contaminated = "report"'
)


class SourceLosses:
    """The origins of all rows, read shard by shard: paths of files, and sources that tags name.

    A row with several origins counts for each of them. Memory: 4 bytes per row, and the names.
    """

    def __init__(self) -> None:
        self._codes: list[U32] = []
        self._sets: dict[tuple[str, ...], int] = {}

    def read(self, shard: pl.DataFrame) -> None:
        """Take note of the rows of a shard (columns source and tags), which follow those read before."""
        codes, sets = origins_of(shard)
        numbers = np.array([self._sets.setdefault(each, len(self._sets)) for each in sets], np.uint32)
        self._codes.append(numbers[codes])

    def origins(self) -> set[str]:
        """Return the names of all origins."""
        return {name for each in self._sets for name in each}

    def check(
        self,
        is_lost: NDArray[np.bool_],
        limit: float,
        keepers: Rows | None = None,
        is_contaminated: NDArray[np.bool_] | None = None,
    ) -> None:
        """Raise GateError if an origin loses more than `limit` of its rows, and at least 100; never if `limit` is 1.

        `is_lost` says of all rows read whether they are dropped for what they resemble or contain. `keepers` has the row
        kept in the place of each, negative if there is none.
        `is_contaminated` says which are dropped for an evaluation record.
        """
        if limit >= 1:
            return
        codes = np.concatenate([*self._codes, np.empty(0, np.uint32)])
        names, members, of_members = self._origins()
        n_rows = _per_origin(codes, len(self._sets), members, of_members, len(names))
        n_lost = _per_origin(codes[is_lost], len(self._sets), members, of_members, len(names))
        is_alarm = (n_lost >= _FEWEST) & (n_lost / np.maximum(n_rows, 1) > limit)
        if not is_alarm.any():
            return
        worst = sorted(np.flatnonzero(is_alarm).tolist(), key=lambda k: (-n_lost[k] / n_rows[k], -n_lost[k], names[k]))
        lines = []
        for_records = False
        for origin in worst[:_SHOWN]:
            line = f"{named(names[origin])}: lost {share_of(int(n_lost[origin]), int(n_rows[origin]))}"
            if keepers is not None:
                is_its = np.isin(codes, members[of_members == origin]) & is_lost
                line += self._whose(keepers[is_its], codes, names, members, of_members, names[origin])
            if is_contaminated is not None and (
                n := int((np.isin(codes, members[of_members == origin]) & is_contaminated).sum())
            ):
                line += f"; {n:,} of them contain records of [clusters] evaluations"
                for_records |= 2 * n > n_lost[origin]
            lines.append(line)
        more = f"\n  and {len(worst) - _SHOWN:,} more" if len(worst) > _SHOWN else ""
        raise GateError(
            f"clusters: {len(worst):,} source{'s' if len(worst) > 1 else ''} would lose more than "
            f"[clusters] max_source_loss = {limit} of the rows to duplicates:\n  " + "\n  ".join(lines) + more + "\n"
            "To see the pairs, set [clusters] max_source_loss = 1, build with --until dedup and run `chatloom duplicates RUN`. "
            "If the rows should go, keep that setting. " + (_OF_RECORDS if for_records else _OF_TEMPLATES)
        )

    def _origins(self) -> tuple[list[str], I64, I64]:
        """Return the names of origins, and as pairs (set, origin) which sets have which."""
        numbers: dict[str, int] = {}
        pairs = [
            (number, numbers.setdefault(name, len(numbers))) for each, number in self._sets.items() for name in each
        ]
        members, of_members = np.array(pairs, np.int64).reshape(-1, 2).T
        return list(numbers), members, of_members

    def _whose(self, keepers: Rows, codes: U32, names: list[str], members: I64, of_members: I64, loser: str) -> str:
        """Return who has most of the keepers, as the end of a line; to a source that tags name, such a source is named."""
        known = keepers[keepers >= 0]
        n_kept = _per_origin(codes[known], len(self._sets), members, of_members, len(names))
        if loser.startswith(PREFIX):  # a file of all sources has all keepers, which says nothing
            n_of_sources = np.where([name.startswith(PREFIX) for name in names], n_kept, 0)
            n_kept = n_of_sources if n_of_sources.any() else n_kept
        most = int(n_kept.argmax())  # of equals the path, which a set names first
        if not len(known):
            return ""
        place = "the same source" if names[most] == loser else named(names[most])
        return f"; {int(n_kept[most]):,} of them have their keepers in {place}"


def named(origin: str) -> str:
    """Return an origin as people are told of it."""
    return f"source {origin.removeprefix(PREFIX)!r} (named in the tags)" if origin.startswith(PREFIX) else origin


def share_of(part: int, whole: int) -> str:
    """Return "n of m (x %)"."""
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)"


def count_origins(shard: pl.DataFrame, is_lost: NDArray[np.bool_], *, most: int) -> Mapping[str, tuple[int, int]]:
    """Return of each origin of a shard how many rows it has and loses.

    Sources of tags beyond the `most` that have most rows count together, as "source:*": in such data tags name records.
    """
    codes, sets = origins_of(shard)
    n_rows, n_lost = (np.bincount(each, minlength=len(sets)) for each in (codes, codes[is_lost]))
    counts: dict[str, list[int]] = {}
    for each, n, lost in zip(sets, n_rows.tolist(), n_lost.tolist(), strict=True):
        for name in each:
            of_name = counts.setdefault(name, [0, 0])
            of_name[0] += n
            of_name[1] += lost
    tagged = sorted((name for name in counts if name.startswith(PREFIX)), key=lambda name: (-counts[name][0], name))
    others = [counts.pop(name) for name in tagged[most:]]
    if others:
        counts[f"{PREFIX}*"] = [sum(n for n, _ in others), sum(lost for _, lost in others)]
    return {name: (n, lost) for name, (n, lost) in counts.items()}


def _per_origin(codes: U32, n_sets: int, members: I64, of_members: I64, n_origins: int) -> I64:
    """Return how many of the rows with these sets each origin has."""
    of_sets = np.bincount(codes, minlength=n_sets)
    # exact: float64 holds every number of rows
    counts: I64 = np.bincount(of_members, weights=of_sets[members], minlength=n_origins).astype(np.int64)
    return counts
