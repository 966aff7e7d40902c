"""The proof that splits do not leak: it knows which rows belong together, and not how they were drawn."""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import GateError
from schemas.reasons import DropReason
from stages.clusters.hashes import hash_words

U64 = NDArray[np.uint64]

_SPLITS: Final = ("train", "validation", "test")
_CODE: Final = np.uint64(3)  # the last two bits of a key hold the split
_OUTSIDE: Final = (str(DropReason.AGAINST), str(DropReason.CONTAMINATED))
_SHOWN: Final = 3
_OF_CLUSTER: Final = "cluster"
_OF_PROMPT: Final = "first user message"


class SplitGate:
    """All rows' clusters, and kept rows' prompts, with their splits: read shard by shard, then compared.

    Columns: cluster, prompt_hash, split, reason (null: the row is kept). Clusters are compared over all rows, removed ones
    too, but for those that are lost to something outside of the corpus, for they are in no cluster of it; with
    split_by = "prompt", prompts over rows that are kept.

    What belongs together has equal keys of 62 bits, so no leak is missed. That strangers have equal keys as well, and so
    stop a build for nothing, has a probability below n^2 / 2^62: one in 46,000 for 10 million rows.

    Memory: 16 bytes per row, 8 with split_by = "cluster"; 16 more while it compares.
    """

    def __init__(self, split_by: Literal["prompt", "cluster"]) -> None:
        self._kinds = (_OF_CLUSTER, _OF_PROMPT) if split_by == "prompt" else (_OF_CLUSTER,)
        self._keys: dict[str, list[U64]] = {kind: [] for kind in self._kinds}

    def read(self, rows: pl.DataFrame) -> None:
        """Take note of the rows of a shard, which follow those read before.

        Raises ValueError if a split is none of train, validation and test.
        """
        splits = rows["split"].replace_strict(_SPLITS, range(len(_SPLITS)), default=None, return_dtype=pl.UInt64)
        if splits.null_count():
            wrong = rows["split"].filter(splits.is_null())[0]
            raise ValueError(f"column split: expected one of {', '.join(_SPLITS)}, got {wrong}")
        codes = splits.to_numpy()
        # a row that does not count gets the one key that names no split, and is compared with nothing
        counts = (~rows["reason"].is_in(_OUTSIDE)).fill_null(value=True).to_numpy()
        keys = rows["cluster"].hash().to_numpy() & ~_CODE | codes
        self._keys[_OF_CLUSTER].append(np.where(counts, keys, _CODE))
        if _OF_PROMPT in self._kinds:
            words = hash_words(rows["prompt_hash"])[:, 0]
            counts = (rows["reason"].is_null() & rows["prompt_hash"].is_not_null()).to_numpy()
            self._keys[_OF_PROMPT].append(np.where(counts, words & ~_CODE | codes, _CODE))

    def check(self, ids: Callable[[Sequence[int]], Sequence[str]]) -> None:
        """Raise GateError if a cluster or prompt is in two splits; `ids` says how rows of these numbers are called."""
        for kind in self._kinds:
            keys = np.concatenate([*self._keys[kind], np.empty(0, np.uint64)])
            leaking = _leaks(keys)
            if len(leaking):
                raise GateError(_refusal(kind, keys, leaking, ids))


def _leaks(keys: U64) -> U64:
    """Return the keys, split bits aside, that occur with two splits."""
    ascending = np.sort(keys[keys & _CODE != _CODE])
    groups = ascending & ~_CODE
    is_divided = (groups[1:] == groups[:-1]) & (ascending[1:] != ascending[:-1])
    return np.unique(groups[1:][is_divided])


def _refusal(kind: str, keys: U64, leaking: U64, ids: Callable[[Sequence[int]], Sequence[str]]) -> str:
    examples = []
    for group in leaking[:_SHOWN]:
        members = np.flatnonzero((keys & ~_CODE == group) & (keys & _CODE != _CODE))
        splits, first = np.unique(keys[members] & _CODE, return_index=True)
        named = zip(ids(members[first].tolist()), splits, strict=True)
        examples.append(" and ".join(f"{name} in {_SPLITS[int(split)]}" for name, split in named))
    more = f"; and {len(leaking) - _SHOWN:,} more" if len(leaking) > _SHOWN else ""
    return (
        f"clusters: {len(leaking):,} {kind}{'s' if len(leaking) > 1 else ''} in more than one split, expected none: "
        f"{'; '.join(examples)}{more}. Evaluation on such a split would measure memory. This is a defect of the program: "
        "please report it with these rows; until then set [dedup] validation = 0 and test = 0"
    )
