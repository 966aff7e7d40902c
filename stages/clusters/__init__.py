"""Clusters: every row is kept, or verified against the one row kept in its place."""

from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from stages.clusters.bands import choose_bands
from stages.clusters.boilerplate import without_boilerplate
from stages.clusters.corpus import measure, share
from stages.clusters.fates import decide
from stages.clusters.members import gather
from stages.clusters.memory import Memory, Spill
from stages.clusters.overlap import EvaluationIndex
from stages.clusters.rank import Ranking
from stages.clusters.settings import Clusters
from stages.clusters.survey import Survey
from stages.dedup import Dedup

CROWD: Final = 16
"""Kept texts of a bucket that are compared one by one; more are looked up by their rare shingles."""
_BOUNDLESS: Final = 2.0**30  # GiB: inf is no number of bytes


def cluster_rows(
    shards: Sequence[pl.DataFrame],
    config: Clusters,
    *,
    dedup: Dedup,
    against: Sequence[pl.DataFrame] = (),
    evaluations: Sequence[pl.DataFrame] = (),
    spill: Spill | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield of each shard of schemas.tables.SIGNED what becomes of its rows (schemas.tables.CLUSTERED), in the same order.

    Rows are visited from best to worst, as `keep` says. A row is removed if and only if in some scope a row of `against`,
    or some row kept before it (`copies` of them), found by a shared band of MinHash values, is at least that scope's
    threshold similar, exactly, on the stored shingles; its keeper is the most similar such row, or the better of equals, and
    a row of `against` before any other. So every removed row is verified against its own survivor, a chain of similar rows
    does not collapse into one, and each cluster has one survivor. In scope "turns" a row is as similar to another as the least
    of its messages to the closest of the other's: what is removed is contained. A text without tokens is similar to none.

    Boilerplate does not make it quadratic: of a band that many kept rows share, a few are compared one by one, and the
    others are found by the rare shingles that similar sets must share, which loses no pair.

    Where rows stand in the shards changes nothing, unless `keep` speaks of their place. Similarity is float64
    |A & B| / |A | B| throughout; a pair stays when that is >= its threshold.

    Shards are read five times, one at a time. Memory: some (4 * bands + 130) bytes per row (230 at the default threshold)
    and, for each row that shares a band (a fifth of a real mix), its shingles and about 400 bytes; for rows in crowded buckets
    also up to 384 for the index of rare shingles and 8 for each shingle that may be posted there. What exceeds [clusters]
    memory is spilled, but for the 130 bytes.

    Raises GateError if a threshold is too low for the recall asked of so few MinHash values, if a source loses more than
    `max_source_loss`, or if a cluster or prompt were in two splits.
    """
    if not len(shards):
        return
    memory = Memory(int(min(config.memory, _BOUNDLESS) * 2**30), spill)
    # what is compared may be made anew at each reading; all else is told of the rows as they are
    compared = without_boilerplate(shards, against, config.ignore_common) if config.ignore_common else (shards, against)
    corpus = measure(*compared)
    index = EvaluationIndex(evaluations, config.overlap) if len(evaluations) else None
    survey = Survey(corpus, config, dedup, index, memory)
    for shard in shards:
        survey.read(shard)
    bands = {scope: choose_bands(corpus.num_perm, config.threshold_of(scope), config.recall) for scope in corpus.scopes}
    shared = [share(corpus, scope, bands[scope], survey.excluded(), memory) for scope in corpus.scopes]
    gathered = gather(corpus, shared, Ranking(config.criteria, config.priority), CROWD, memory)
    del shared
    survey.settle(gathered, decide(gathered, config, CROWD, memory))
    del gathered
    first = 0
    for shard in shards:
        table = survey.table(shard, first)
        survey.witness(shard, table)
        yield table
        first += shard.height
    survey.check(shards)


__all__ = ["CROWD", "Clusters", "cluster_rows"]
