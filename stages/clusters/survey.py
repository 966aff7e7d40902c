"""The survey: what is noted of each of the run's own rows in passing, and what it comes to when the fates are known."""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.reasons import DropReason
from schemas.scopes import SCOPES
from stages.clusters.caps import Caps
from stages.clusters.corpus import Corpus
from stages.clusters.fates import NOBODY, REASONS, STAYS, Fates
from stages.clusters.losses import SourceLosses
from stages.clusters.members import Gathered
from stages.clusters.memory import Memory
from stages.clusters.overlap import EvaluationIndex
from stages.clusters.rank import FROM_RECORDS, check_priority, check_records
from stages.clusters.settings import Clusters
from stages.clusters.split_gate import SplitGate
from stages.clusters.splits import draws, hold_out, join_groups
from stages.dedup import Dedup

_CONTAINS = pl.DataFrame(schema={"row": pl.Int64, "evaluation": pl.String, "overlap": pl.Float64})
_AGAINST = REASONS.index(DropReason.AGAINST)
_CONTAMINATED = REASONS.index(DropReason.CONTAMINATED)
_NOT_SAMPLED = REASONS.index(DropReason.NOT_SAMPLED)


class Survey:
    """All of the run's own rows: which split each one draws, where it is from, which evaluation record it contains.

    Memory: 13 bytes per row and what SourceLosses, SplitGate and Caps say.
    """

    def __init__(
        self, corpus: Corpus, config: Clusters, dedup: Dedup, index: EvaluationIndex | None, memory: Memory
    ) -> None:
        n_rows, self._scopes = corpus.n_own, corpus.scopes
        self._config, self._dedup, self._index = config, dedup, index
        self._draws: NDArray[np.uint64] = memory.zeros(n_rows, np.uint64)
        self._reason = np.full(n_rows, STAYS, np.int8)
        self._losses = SourceLosses()
        self._gate = SplitGate(dedup.split_by)
        self._caps = Caps(dedup.caps, dedup.seed)
        self._contains: list[pl.DataFrame] = []
        self._n_read = 0
        self._known: set[str] = set()

    def read(self, shard: pl.DataFrame) -> None:
        """Take note of the rows of a shard, which follow those read before."""
        first, self._n_read = self._n_read, self._n_read + shard.height
        self._draws[first : self._n_read] = draws(shard, self._dedup)
        self._losses.read(shard)
        self._caps.read(shard, first)
        self._known.update(name for name in FROM_RECORDS.values() if shard[name].null_count() < shard.height)
        if self._index is not None:
            rows, ids, overlaps = self._index.overlaps(shard)
            found = pl.DataFrame({"row": rows, "evaluation": ids, "overlap": overlaps})
            self._contains.append(found.with_columns(pl.col("row").cast(pl.Int64) + first))

    def excluded(self) -> NDArray[np.int64]:
        """Return the rows that are dropped for what they contain, ascending; they are nobody's keepers."""
        if self._config.contaminated == "report" or not self._contains:
            return np.empty(0, np.int64)
        return pl.concat(self._contains)["row"].to_numpy()

    def _name(self) -> pl.Expr:
        """Return what a row's cluster is called if it is the best of it: two that stay are never called the same."""
        text = pl.col("text_hash").bin.encode("hex")
        if "conversation" not in self._scopes:  # rows of one text may both stay: their messages differ
            text += pl.col("content_hash").cast(pl.String)
        return pl.coalesce(text, "id")

    def settle(self, gathered: Gathered, fates: Fates) -> None:
        """Take note of the fates, and decide the splits.

        Caps take from what deduplication leaves, and splits are drawn from what caps leave.

        Raises GateError if `priority` or a cap matches no source, if no row has what `keep` goes by, if a source loses more
        than the settings allow, or if more than half would be held out.
        """
        if len(self._reason):
            check_records(self._config.criteria, self._known)
        check_priority(self._config.priority, self._losses.origins())
        own = gathered.numbers < len(self._reason)
        self._reason[gathered.numbers[own]] = fates.reason[own]
        self._reason[self.excluded()] = _CONTAMINATED
        is_lost = self._reason != STAYS
        self._losses.check(
            is_lost & (self._reason != _AGAINST),  # those go because somebody has them already, as was asked
            self._config.max_source_loss,
            _keepers(gathered, fates, len(self._reason)),
            self._reason == _CONTAMINATED,
        )
        kept = np.flatnonzero(~is_lost)
        if self._config.copies > 1:
            clusters = np.arange(len(self._reason), dtype=np.int64)
            clusters[gathered.numbers[own]] = gathered.numbers[fates.cluster[own]]
            self._draws[kept] = join_groups(self._draws[kept], clusters[kept])
        self._reason[self._caps.beyond(~is_lost)] = _NOT_SAMPLED
        self._cut = hold_out(self._draws[self._reason == STAYS], self._dedup)
        # a removed row goes where its keeper goes, all those of one reference together
        of_members = draws(gathered.names.select("content_hash", "text_hash", prompt_hash="text_hash"), self._dedup)
        of_members[own] = self._draws[gathered.numbers[own]]
        removed = fates.keeper != NOBODY
        self._draws[gathered.numbers[removed]] = of_members[fates.keeper[removed]]
        self._member_of = gathered.member_of
        self._members = _table(gathered.names.select("id", cluster=self._name()), fates)

    def table(self, shard: pl.DataFrame, first: int) -> pl.DataFrame:
        """Return schemas.tables.CLUSTERED of a shard whose first row has the number `first`."""
        rows = slice(first, first + shard.height)
        member = pl.Series(self._member_of[rows])
        found = self._members.select(pl.all().gather(pl.select(pl.when(member >= 0).then(member)).to_series()))
        evidence = pl.DataFrame({"row": np.arange(rows.start, rows.stop)}).join(
            pl.concat([_CONTAINS.clear(), *self._contains]), on="row", how="left", maintain_order="left"
        )
        # dropped for itself, or without a text that is compared: whatever others say the same
        is_alone = pl.Series(self._reason[rows] == _CONTAMINATED) | (pl.col("units").list.len() == 0)
        own = pl.when(is_alone).then("id").otherwise(self._name())
        out = shard.select("id", own=own).hstack(found).hstack(evidence)
        return out.select(
            "id",
            pl.coalesce("cluster", "own").alias("cluster"),
            reason=_named([reason.value for reason in REASONS], self._reason[rows]),
            keeper="keeper",
            similarity="similarity",
            scope="scope",
            n_duplicates=pl.col("n_duplicates").fill_null(1),
            evaluation="evaluation",
            overlap="overlap",
            split=self._cut.split(self._draws[rows]),
        )

    def witness(self, shard: pl.DataFrame, table: pl.DataFrame) -> None:
        """Show the table of a shard to the gate."""
        self._gate.read(table.select("cluster", "split", "reason").hstack(shard.select("prompt_hash")))

    def check(self, shards: Iterable[pl.DataFrame]) -> None:
        """Raise GateError if a cluster, or a prompt, is in two splits; `shards` are read again only to name rows then."""
        self._gate.check(lambda numbers: _ids(shards, numbers))


def _keepers(gathered: Gathered, fates: Fates, n_rows: int) -> NDArray[np.int64]:
    """Return of each of the run's own rows the number of the one kept in its place, -1 if there is none among them."""
    keepers = np.full(n_rows, -1, np.int64)
    removed = (fates.keeper != NOBODY) & (gathered.numbers[fates.keeper] < n_rows)
    keepers[gathered.numbers[removed]] = gathered.numbers[fates.keeper[removed]]
    return keepers


def _ids(shards: Iterable[pl.DataFrame], numbers: Sequence[int]) -> list[str]:
    found, first = {}, 0
    for shard in shards:
        found.update({n: shard["id"][n - first] for n in numbers if first <= n < first + shard.height})
        first += shard.height
    return [found[n] for n in numbers]


def _table(names: pl.DataFrame, fates: Fates) -> pl.DataFrame:
    """Return of each member what its row of the output says beyond the row itself; `names` are its id and cluster."""
    keeper = pl.Series(fates.keeper)
    is_removed = keeper != NOBODY
    return pl.DataFrame(
        {
            "cluster": names["cluster"].gather(pl.Series(fates.cluster)),
            "keeper": names["id"].gather(pl.select(pl.when(is_removed).then(keeper)).to_series()),
            "similarity": pl.select(pl.when(is_removed).then(pl.Series(fates.similarity))).to_series(),
            "scope": _named(SCOPES, fates.scope),
            "n_duplicates": fates.n_duplicates,
        }
    )


def _named(names: Sequence[str], codes: NDArray[np.int8]) -> pl.Series:
    """Return the names that codes stand for, null for those below zero."""
    at = pl.Series(codes.astype(np.int32))
    return pl.Series(names, dtype=pl.String).gather(pl.select(pl.when(at >= 0).then(at)).to_series())
