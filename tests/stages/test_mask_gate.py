"""The gate is broken into on purpose: labels that the stage would never make must not pass it."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.mask import Mask, MaskError, label_tokens
from stages.mask.gate import check
from stages.mask.spans import spans_of
from tests.stages.rows import tokenized
from tests.stages.test_mask import ENDLESS, THREE, TOOLS, TURNS

FRAME = tokenized(TURNS, TOOLS)


def judge(frame: pl.DataFrame, out: pl.DataFrame, config: Mask) -> None:
    check(frame, out, spans_of(frame["spans"]), config)


def relabelled(out: pl.DataFrame, row: int, changes: dict[int, int]) -> pl.DataFrame:
    labels = out["labels"].to_list()
    for token, label in changes.items():
        labels[row][token] = label
    return out.with_columns(pl.Series("labels", labels, pl.List(pl.Int32)))


def test_sound_labels_pass():
    judge(FRAME, label_tokens(FRAME, Mask()), Mask())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({6: 7}, "a:1: the label of token 6 is neither that token nor -100"),
        ({0: 0}, "a:1: the first token is trained"),
        ({2: 2}, "a:1: token 2 is trained, but the settings give its role and class, or its message, no weight"),
        ({5: 5}, "a:1: token 4 is trained, but"),  # the span is named by its first token
        ({18: 18}, "a:1: token 18 is trained, but"),
        ({17: -100}, "a:1: the turn of message 3 does not end on a trained stop"),
        ({8: -100}, "a:1: the turn of message 1 does not end on a trained stop"),
    ],
)
def test_a_corrupted_label_does_not_pass(changes, problem):
    out = relabelled(label_tokens(FRAME, Mask()), 0, changes)
    with pytest.raises(MaskError) as refused:
        judge(FRAME, out, Mask())
    assert problem in str(refused.value)


def test_a_stop_of_several_tokens_must_be_trained_to_its_end():
    frame = tokenized([(2, "template", "", -1), (2, "content", "assistant", 0), (3, "stop", "assistant", 0)])
    out = label_tokens(frame, Mask())
    with pytest.raises(MaskError, match="a:1: token 4 is not trained, though"):
        judge(frame, relabelled(out, 0, {4: -100, 5: -100}), Mask())
    with pytest.raises(MaskError, match="does not end on a trained stop"):
        judge(frame, relabelled(out, 0, {6: -100}), Mask())


def test_a_turn_is_trained_whole_or_not_at_all():
    out = label_tokens(FRAME, Mask())
    with pytest.raises(MaskError, match="a:1: token 7 is not trained, though it has a weight"):
        judge(FRAME, relabelled(out, 0, {7: -100}), Mask())
    judge(FRAME, relabelled(out, 0, {6: -100, 7: -100, 8: -100}), Mask())


def test_what_no_turn_of_the_assistant_is_may_not_be_left_out():
    config = Mask(preset="none")
    out = label_tokens(FRAME, config)
    with pytest.raises(MaskError, match="a:1: token 2 is not trained, though it has a weight"):
        judge(FRAME, relabelled(out, 0, {2: -100}), config)


@pytest.mark.parametrize(
    "config", [Mask(preset="partial"), Mask(preset="partial", prompt_weight=0.3), Mask(preset="layered")]
)
def test_a_loss_weight_is_the_one_that_the_settings_say(config):
    frame = tokenized(TURNS, TOOLS, weight={1: 0.25})
    out = label_tokens(frame, config)
    judge(frame, out, config)
    weights = out["loss_weights"].to_list()
    assert weights[0][7] == 0.25
    weights[0][7] = 1.0
    with pytest.raises(MaskError, match="a:1: token 7 has another loss weight"):
        judge(frame, out.with_columns(pl.Series("loss_weights", weights, pl.List(pl.Float32))), config)


def test_labels_without_the_loss_weights_that_the_settings_say_do_not_pass():
    out = label_tokens(FRAME, Mask(preset="layered"))
    plain = out.with_columns(loss_weights=pl.lit(None, pl.List(pl.Float32)))
    with pytest.raises(MaskError, match="has another loss weight"):
        judge(FRAME, plain, Mask(preset="layered"))


def test_a_message_of_weight_0_may_not_be_trained():
    out = label_tokens(FRAME, Mask())
    frame = tokenized(TURNS, TOOLS, weight={1: 0.0})
    with pytest.raises(MaskError, match=r"a:1: token 6 is trained, but .* its message, no weight"):
        judge(frame, out, Mask())


@pytest.mark.parametrize(("turns", "n"), [("last", 3), ("first", 3), (2, 3), (1, 2)])
def test_turns_that_their_position_leaves_out_may_not_be_trained(turns, n):
    frame = tokenized(THREE)
    labelled = label_tokens(frame, Mask(turns=n))
    with pytest.raises(MaskError, match="other messages of the assistant are trained than turns ="):
        judge(frame, labelled, Mask(turns=turns))


def test_an_early_turn_alone_is_not_the_last():
    frame = tokenized(THREE)
    with pytest.raises(MaskError, match="other messages"):
        judge(frame, label_tokens(frame, Mask(turns="first")), Mask(turns="last"))
    with pytest.raises(MaskError, match="other messages"):
        judge(frame, label_tokens(frame, Mask(turns="last")), Mask(turns="first"))


def test_loss_weights_and_labels_must_agree():
    config = Mask(preset="partial")
    out = label_tokens(FRAME, config)
    with pytest.raises(MaskError, match="a:1: token 3 has another loss weight"):
        judge(FRAME, relabelled(out, 0, {3: -100}), config)


@pytest.mark.parametrize("edge", [(0, 3), (2, 3), (1, 1)])
def test_spans_that_are_no_partition_do_not_pass(edge):
    out = label_tokens(FRAME, Mask())
    spans = FRAME["spans"].to_list()
    spans[0][1]["start"], spans[0][1]["end"] = edge
    broken = FRAME.with_columns(pl.Series("spans", spans, FRAME.schema["spans"]))
    with pytest.raises(MaskError, match="a:1: the spans do not cover the tokens"):
        judge(broken, out, Mask())


def test_labels_of_another_length_do_not_pass():
    out = label_tokens(FRAME, Mask())
    shorter = out.with_columns(pl.col("labels").list.head(5))
    with pytest.raises(MaskError, match="more or fewer labels than tokens"):
        judge(FRAME, shorter, Mask())


def test_what_is_dropped_is_not_judged():
    frame = tokenized(ENDLESS, TURNS)
    judge(frame, label_tokens(frame, Mask(without_stop="drop")), Mask())


def test_five_rows_are_named_and_the_rest_counted():
    frame = tokenized(*[TURNS] * 9)
    out = label_tokens(frame, Mask())
    for row in range(9):
        out = relabelled(out, row, {2: 2})
    with pytest.raises(MaskError, match=r"9 row\(s\).*a:5: token 2 is trained.*no weight; \.\.\.") as refused:
        judge(frame, out, Mask())
    assert "a:6" not in str(refused.value)


@settings(max_examples=200, deadline=None)
@given(row=st.integers(0, 1), token=st.integers(0, 18), label=st.integers(-100, 30))
def test_no_single_wrong_label_passes(row, token, label):
    out = label_tokens(FRAME, Mask())
    changed = relabelled(out, row, {token: label})
    if label == out["labels"][row][token]:
        judge(FRAME, changed, Mask())
    else:
        with pytest.raises(MaskError):
            judge(FRAME, changed, Mask())
