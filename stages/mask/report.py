"""What the mask left of a shard, counted from its labels."""

import numpy as np
import polars as pl

from stages.mask.gate import Audit
from stages.mask.settings import Mask
from stages.mask.spans import spans_of
from stages.mask.stage import weigh_turns
from stages.mask.table import CLASSES, ROLES


def count_tokens(out: pl.DataFrame, frame: pl.DataFrame, config: Mask) -> dict[str, int]:
    """Return counts of the kept rows of a shard.

    tokens/<role>/<class> and trained/<role>/<class>, where "-" is the role of text of no message; turns/trained, and of
    those turns/stopped, which end on a trained stop; turns/masked_without_stop and turns/masked_empty, which the settings
    would train, but which have no stop or say nothing.
    """
    from stages.mask.kernels import EMPTY, NO_STOP, STOP_UNTRAINED

    is_kept = out["drop_reason"].is_null()
    if not is_kept.all():
        out, frame = out.filter(is_kept), frame.filter(is_kept)
    spans = spans_of(frame["spans"])
    found = Audit(frame, out, spans, config)
    counts = {}
    for i, role in enumerate(ROLES):
        for j, name in enumerate(CLASSES):
            if found.tokens[i, j]:
                counts[f"tokens/{role or '-'}/{name}"] = int(found.tokens[i, j])
            if found.trained[i, j]:
                counts[f"trained/{role or '-'}/{name}"] = int(found.trained[i, j])
    n_trained, n_stopped = found.turns[:, :2].sum(axis=0, dtype=np.int64).tolist()
    counts |= {"turns/trained": n_trained, "turns/stopped": n_stopped}
    _, verdicts = weigh_turns(spans, config)
    n_endless = int(((verdicts >= NO_STOP) & (verdicts <= STOP_UNTRAINED)).sum())
    if config.without_stop == "mask" and n_endless:
        counts["turns/masked_without_stop"] = n_endless
    if n_empty := int((verdicts == EMPTY).sum()):
        counts["turns/masked_empty"] = n_empty
    return counts
