"""The contract of the mask, checked on every row: what breaks it stops the build."""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import GateError
from stages import arrow
from stages.mask.settings import Mask
from stages.mask.spans import Spans
from stages.mask.table import ASSISTANT, EVERY_TURN, STOP, due_weights, kept_turns

_SHOWN: Final = 5
_FAULTS: Final = {
    1: "the spans do not cover the tokens one after another (at token {place})",
    2: "the label of token {place} is neither that token nor -100",
    3: "the first token is trained, though nothing comes before it",
    4: "token {place} is trained, but the settings give its role and class, or its message, no weight",
    5: "token {place} has another loss weight than its label and the settings say",
    6: "the turn of message {place} does not end on a trained stop",
    7: "token {place} is not trained, though it has a weight and all else of its turn is",
}
"""What each fault of audit_kernel.audit means."""
_CAUSES: Final = {
    2: "no stop: the template wrote none, or one that the tokenizer does not have as a special token",
    3: "a stop that shares a token with the text before it, as stops that are no special tokens may",
    4: "a stop that is not trained, or not trained last: see [mask] weights and [[render.scoped]]",
}
"""What each verdict of kernels.weigh on a turn without a stop means."""


class MaskError(GateError):
    """The mask would break its contract; the text names rows and says what to do."""


class Audit:
    """What an independent reading of labels and spans found in every row."""

    def __init__(self, frame: pl.DataFrame, labelled: pl.DataFrame, spans: Spans, config: Mask) -> None:
        from stages.mask.audit_kernel import audit  # compiled code, loaded only where it runs

        id_offsets, ids = arrow.list_buffers(frame["input_ids"])
        label_offsets, labels = arrow.list_buffers(labelled["labels"])
        if not np.array_equal(id_offsets, label_offsets):
            raise MaskError("rows have more or fewer labels than tokens: this is a defect of the mask")
        weight_offsets, loss_weights = _weights(labelled["loss_weights"])
        self.faults, self.places, self.tokens, self.trained, self.turns = audit(
            id_offsets, ids, labels, weight_offsets, loss_weights, *spans, due_weights(config), ASSISTANT, STOP
        )


def check(frame: pl.DataFrame, labelled: pl.DataFrame, spans: Spans, config: Mask) -> None:
    """Raise MaskError, naming rows, unless the labels keep the contract; dropped rows are not looked at.

    A label is its token or -100, and -100 for the first token. Trained is only what the settings permit: by role, class,
    message and position, with the weight they say. A turn of the assistant is trained whole or not at all, all other text
    with a weight always. Every trained turn ends on a trained stop, unless `without_stop` is "train".
    """
    found = Audit(frame, labelled, spans, config)
    faults = found.faults.astype(np.int64)
    if config.without_stop == "train":
        faults[faults == 6] = 0
    is_kept = labelled["drop_reason"].is_null().to_numpy()
    misplaced = _misplaced(spans, found.turns, config)
    rows = np.flatnonzero(is_kept & ((faults > 0) | misplaced))
    if len(rows):
        what = [
            f"{frame['id'][row]}: "
            + (
                _FAULTS[int(faults[row])].format(place=found.places[row])
                if faults[row]
                else f"other messages of the assistant are trained than turns = {config.turns!r} says"
            )
            for row in rows[:_SHOWN].tolist()
        ]
        raise MaskError(
            f"{len(rows)} row(s) of labels break the contract of the mask: {'; '.join(what)}"
            f"{'; ...' if len(rows) > _SHOWN else ''}. This is a defect of Chatloom, not of the data: please report it"
        )


def refuse_endless(
    frame: pl.DataFrame, spans: Spans, verdicts: NDArray[np.uint8], is_endless: NDArray[np.bool_]
) -> None:
    """Raise MaskError that names the turns which would be trained without a stop, why they have none, and what to do."""
    turns = np.flatnonzero(is_endless)
    if not len(turns):
        return
    rows = np.searchsorted(spans.offsets, turns, side="right") - 1
    named = ", ".join(
        f"{frame['id'][row]} (message {spans.messages[turn]})"
        for turn, row in zip(turns[:_SHOWN].tolist(), rows[:_SHOWN].tolist(), strict=True)
    )
    causes = [
        f"{int((verdicts == code).sum()):,} × {text}" for code, text in _CAUSES.items() if (verdicts == code).any()
    ]
    raise MaskError(
        f"{len(turns):,} trained turn(s) of the assistant do not end on a trained stop token, so the model would not learn "
        f"to stop: {named}{', ...' if len(turns) > _SHOWN else ''}. {'; '.join(causes)}. If most turns have none, template "
        "and tokenizer do not belong together: choose another. In a template of your own, declare what ends a turn "
        "({#- tokens: </turn> -#}), or write {{ eos_token }}; [render] stop names a token that was not found. If only "
        'some have none (several templates close no turn that calls a tool), [mask] without_stop = "mask" leaves just these '
        'turns untrained, "drop" drops their conversations, and "train" trains them as they are'
    )


def _weights(column: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    if column.null_count() == len(column):
        return np.zeros(len(column) + 1, np.int64), np.empty(0, np.float32)
    offsets = np.concatenate(([0], column.list.len().fill_null(0).cum_sum().to_numpy())).astype(np.int64)
    return offsets, column.explode(empty_as_null=False).drop_nulls().to_numpy()


def _misplaced(spans: Spans, turns: NDArray[np.int32], config: Mask) -> NDArray[np.bool_]:
    """Return the rows in which a message of the assistant is trained that the rule about positions leaves out."""
    n_turns, from_end = kept_turns(config)
    if from_end and n_turns == EVERY_TURN:
        return np.zeros(len(turns), np.bool_)
    rows = np.repeat(np.arange(len(turns)), np.diff(spans.offsets))
    is_turn = (spans.roles == ASSISTANT) & (spans.messages >= 0)
    pairs = np.unique(np.stack((rows, spans.messages))[:, is_turn], axis=1)
    rows, messages = pairs[0], pairs[1]
    lowest, highest = turns[rows, 2], turns[rows, 3]
    is_outside = messages >= lowest if from_end else messages < highest
    n_outside = np.bincount(rows[is_outside], minlength=len(turns))
    return np.asarray(n_outside > (n_turns if from_end else 0))
