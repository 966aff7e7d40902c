import polars as pl
import pytest

from stages.mask import Mask, MaskError, label_tokens
from tests.stages.rows import tokenized

TURNS = [
    (2, "template", "", -1),
    (2, "content", "user", 0),
    (2, "template", "", -1),
    (2, "content", "assistant", 1),
    (1, "stop", "assistant", 1),
    (3, "template", "", -1),
    (1, "content", "user", 2),
    (1, "template", "", -1),
    (1, "scaffold", "assistant", 3),
    (2, "content", "assistant", 3),
    (1, "stop", "assistant", 3),
    (1, "template", "", -1),
]
"""19 tokens; the assistant's turns are tokens 6-8 and 14-17."""


def trained(out: pl.DataFrame, row: int = 0) -> list[int]:
    return [i for i, label in enumerate(out["labels"][row].to_list()) if label != -100]


def test_full_trains_every_turn_of_the_assistant_and_its_stop():
    out = label_tokens(tokenized(TURNS), Mask())
    assert trained(out) == [6, 7, 8, 14, 15, 16, 17]
    assert [label for label in out["labels"][0] if label != -100] == [6, 7, 8, 14, 15, 16, 17]  # unshifted
    assert out.select("n_tokens", "n_supervised", "drop_reason").row(0) == (19, 7, None)
    assert out["loss_weights"].to_list() == [None]


def test_last_trains_the_final_turn_only():
    assert trained(label_tokens(tokenized(TURNS), Mask(preset="last"))) == [14, 15, 16, 17]


def test_none_masks_nothing_but_the_first_token():
    # nothing comes before it, so nothing could predict it; and shifting then never crosses into another document
    assert trained(label_tokens(tokenized(TURNS), Mask(preset="none", without_stop="train"))) == list(range(1, 19))


def test_a_weight_table_changes_the_preset():
    out = label_tokens(tokenized(TURNS), Mask(weights={"user": {"content": 0.25}}))
    assert trained(out) == [2, 3, 6, 7, 8, 12, 14, 15, 16, 17]
    weights = out["loss_weights"][0].to_list()
    assert [weights[i] for i in (0, 2, 3, 6, 12, 17, 18)] == [0.0, 0.25, 0.25, 1.0, 0.25, 1.0, 0.0]


def test_the_more_specific_weight_wins():
    table = {"*": {"*": 0.5}, "assistant": {"*": 1.0, "scaffold": 0.0}}
    weights = label_tokens(tokenized(TURNS), Mask(weights=table))["loss_weights"][0].to_list()
    assert [weights[i] for i in (1, 6, 8, 14, 15)] == [0.5, 1.0, 1.0, 0.0, 1.0]


def test_a_messages_own_weight_multiplies():
    out = label_tokens(tokenized(TURNS, weight={1: 0.0, 3: 0.5}), Mask())
    assert trained(out) == [14, 15, 16, 17]
    assert out["loss_weights"][0].to_list()[14:18] == [0.5] * 4


def test_only_rows_that_need_weights_carry_them():
    plain = [(1, "template", "", -1), (1, "content", "assistant", 0), (1, "stop", "assistant", 0)]
    frame = pl.concat([tokenized(TURNS, weight={3: 0.5}), tokenized(plain)])
    assert [weights is None for weights in label_tokens(frame, Mask())["loss_weights"].to_list()] == [False, True]


def test_a_row_with_nothing_to_learn_is_dropped():
    question = [(2, "template", "", -1), (3, "content", "user", 0)]
    out = label_tokens(pl.concat([tokenized(question), tokenized(TURNS)]), Mask())
    assert out["drop_reason"].to_list() == ["nothing_to_learn", None]


def test_a_turn_without_a_trained_stop_stops_the_build_and_names_the_row():
    endless = [(1, "template", "", -1), (2, "content", "assistant", 0), (1, "template", "", -1)]
    with pytest.raises(MaskError, match=r"1 trained turn\(s\).*a:1 \(message 0\)"):
        label_tokens(tokenized(endless), Mask())
    assert trained(label_tokens(tokenized(endless), Mask(without_stop="train"))) == [1, 2]


def test_an_untrained_turn_needs_no_stop():
    endless = [
        (1, "template", "", -1),
        (2, "content", "assistant", 0),
        (1, "content", "assistant", 1),
        (1, "stop", "assistant", 1),
    ]
    assert trained(label_tokens(tokenized(endless, weight={0: 0.0}), Mask())) == [3, 4]


def test_an_empty_frame_stays_empty():
    out = label_tokens(tokenized(TURNS).clear(), Mask())
    assert out.height == 0
