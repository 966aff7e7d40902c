"""Fates: which members are removed, in whose favour, and which rows are one cluster."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from schemas.reasons import DropReason
from schemas.scopes import SCOPES
from stages.clusters.members import Gathered
from stages.clusters.memory import Memory
from stages.clusters.settings import Clusters

if TYPE_CHECKING:
    from stages.clusters.rare_kernel import RareIndex

NOBODY = -1  # as in the kernel, which is not imported before it is needed
STAYS = -1
"""The reason of a row that is not dropped."""
REASONS = (
    DropReason.EXACT_DUPLICATE,
    DropReason.NEAR_DUPLICATE,
    DropReason.AGAINST,
    DropReason.ALL_COPIES,
    DropReason.CONTAMINATED,
    DropReason.NOT_SAMPLED,
)


@dataclass(frozen=True, kw_only=True)
class Fates:
    """What becomes of each member; members are numbered as they were gathered."""

    keeper: NDArray[np.int32]
    """The member kept in its place, NOBODY for one that is kept."""
    similarity: NDArray[np.float64]
    scope: NDArray[np.int8]
    """Index in schemas.scopes.SCOPES."""
    cluster: NDArray[np.int32]
    """The best member of its cluster."""
    n_duplicates: NDArray[np.int32]
    """The run's own rows in its cluster."""
    reason: NDArray[np.int8]
    """Index in REASONS, or STAYS."""


def decide(gathered: Gathered, config: Clusters, crowd: int, memory: Memory) -> Fates:
    """Return the fates of members: each compared with those before it, from best to worst."""
    from stages.clusters.compare_kernel import exact_rows
    from stages.clusters.greedy_kernel import keep_greedily

    members = gathered.members
    is_own = ~members.is_reference
    references = np.flatnonzero(members.is_reference).astype(np.int32)
    order = np.concatenate([references, gathered.best_first.astype(np.int32)])
    members.rank[order] = np.arange(len(order), dtype=np.int32)
    thresholds = np.array([config.threshold_of(scope) for scope in SCOPES])
    keeper, similarity, scope, cluster = keep_greedily(
        order,
        members,
        gathered.buckets,
        _rare_index(gathered, thresholds, crowd, memory),
        thresholds,
        np.array([scope == "turns" for scope in SCOPES]),
        max(config.copies, 1),
        crowd,
    )
    is_exact = exact_rows(keeper, scope, len(SCOPES), members)
    n_duplicates = np.bincount(cluster[is_own], minlength=len(cluster))[cluster].astype(np.int32)
    is_removed = keeper != NOBODY
    reason = np.where(is_removed, np.where(is_exact, 0, 1), STAYS).astype(np.int8)
    reason[is_removed & members.is_reference[keeper]] = REASONS.index(DropReason.AGAINST)
    if config.copies == 0:
        reason[~is_removed & is_own & (n_duplicates > 1)] = REASONS.index(DropReason.ALL_COPIES)
    return Fates(
        keeper=keeper, similarity=similarity, scope=scope, cluster=cluster, n_duplicates=n_duplicates, reason=reason
    )


def _rare_index(gathered: Gathered, thresholds: NDArray[np.float64], crowd: int, memory: Memory) -> "RareIndex":
    """Return an index for the units whose buckets may come to hold more than `crowd` kept ones.

    Memory: 384 bytes at most for each of them, and 8 for each shingle of their prefixes.
    """
    from stages.clusters.greedy_kernel import crowding_units
    from stages.clusters.rare_kernel import RareIndex, count_slots, index_sizes

    members = gathered.members
    is_crowding = crowding_units(gathered.buckets, len(members.sizes), crowd)
    n_slots, n_postings, longest = index_sizes(is_crowding, members.sizes, members.scope, thresholds)
    index = RareIndex(
        counts=memory.zeros(n_slots, np.int32),
        heads=memory.zeros((2, n_slots), np.int32),
        units=memory.zeros(n_postings, np.int32),
        following=memory.zeros(n_postings, np.int32),
        n_postings=np.zeros(1, np.int64),
        keys=np.empty(longest, np.uint64),
        looked_up=np.empty(3, np.int64),
    )
    count_slots(index, is_crowding, members.addresses, members.sizes)
    return index
