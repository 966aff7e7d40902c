"""Fates: which members are removed, in whose favour, and which rows are one cluster."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.reasons import DropReason
from schemas.scopes import SCOPES
from stages.clusters.members import Gathered
from stages.clusters.settings import Clusters

NOBODY = -1  # as in the kernel, which is not imported before it is needed
STAYS = -1
"""The reason of a row that is not dropped."""
REASONS = (
    DropReason.EXACT_DUPLICATE,
    DropReason.NEAR_DUPLICATE,
    DropReason.AGAINST,
    DropReason.ALL_COPIES,
    DropReason.CONTAMINATED,
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


def decide(gathered: Gathered, config: Clusters, crowd: int) -> Fates:
    """Return the fates of members: each compared with those before it, from best to worst."""
    from stages.clusters.compare_kernel import exact_rows
    from stages.clusters.greedy_kernel import keep_greedily

    members = gathered.members
    is_own = ~members.is_reference
    references = np.flatnonzero(members.is_reference).astype(np.int32)
    order = np.concatenate([references, gathered.best_first.astype(np.int32)])
    members.rank[order] = np.arange(len(order), dtype=np.int32)
    keeper, similarity, scope, cluster = keep_greedily(
        order,
        members,
        gathered.buckets,
        np.array([config.threshold_of(scope) for scope in SCOPES]),
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
