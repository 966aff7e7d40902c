from typing import get_args

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.settings import ConfigError, decode_section
from stages.mask import Mask, MaskError, count_tokens, label_tokens
from stages.mask.settings import ClassName, RoleName
from stages.mask.table import CLASSES, PRESETS, ROLES, due_weights, weight_table
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

THREE = [
    part
    for message in (0, 2, 4)
    for part in (
        (1, "template", "", -1),
        (2, "content", "user", message),
        (1, "template", "", -1),
        (1, "generation_prompt", "assistant", message + 1),
        (2, "content", "assistant", message + 1),
        (1, "stop", "assistant", message + 1),
    )
]
"""Six messages, 24 tokens; the assistant's turns are tokens 5-7, 13-15 and 21-23, each with a header before it."""

TOOLS = [
    (1, "template", "", -1),
    (2, "content", "system", 0),
    (1, "template", "", -1),
    (2, "content", "user", 1),
    (1, "generation_prompt", "assistant", 2),
    (1, "scaffold", "assistant", 2),
    (2, "reasoning", "assistant", 2),
    (1, "scaffold", "assistant", 2),
    (2, "tool_call", "assistant", 2),
    (1, "stop", "assistant", 2),
    (2, "tool_result", "tool", 3),
    (1, "generation_prompt", "assistant", 4),
    (2, "content", "assistant", 4),
    (1, "stop", "assistant", 4),
]
ENDLESS = [(1, "template", "", -1), (2, "content", "assistant", 0), (1, "template", "", -1)]


def trained(out: pl.DataFrame, row: int = 0) -> list[int]:
    return [i for i, label in enumerate(out["labels"][row].to_list()) if label != -100]


def test_full_trains_every_turn_of_the_assistant_and_its_stop():
    out = label_tokens(tokenized(TURNS), Mask())
    assert trained(out) == [6, 7, 8, 14, 15, 16, 17]
    assert [label for label in out["labels"][0] if label != -100] == [6, 7, 8, 14, 15, 16, 17]  # unshifted
    assert out.select("n_tokens", "n_supervised", "drop_reason").row(0) == (19, 7, None)
    assert out["loss_weights"].to_list() == [None]


def test_full_never_trains_user_system_tool_or_a_header():
    assert trained(label_tokens(tokenized(THREE), Mask())) == [5, 6, 7, 13, 14, 15, 21, 22, 23]
    assert trained(label_tokens(tokenized(TOOLS), Mask())) == [7, 8, 9, 10, 11, 12, 13, 17, 18, 19]


def test_last_trains_the_final_turn_only():
    assert trained(label_tokens(tokenized(TURNS), Mask(preset="last"))) == [14, 15, 16, 17]
    assert trained(label_tokens(tokenized(THREE), Mask(preset="last"))) == [21, 22, 23]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ("all", [5, 6, 7, 13, 14, 15, 21, 22, 23]),
        ("first", [5, 6, 7]),
        ("last", [21, 22, 23]),
        (1, [21, 22, 23]),
        (2, [13, 14, 15, 21, 22, 23]),
        (3, [5, 6, 7, 13, 14, 15, 21, 22, 23]),
        (99, [5, 6, 7, 13, 14, 15, 21, 22, 23]),
    ],
)
def test_turns_are_chosen_by_position(turns, expected):
    assert trained(label_tokens(tokenized(THREE), Mask(turns=turns))) == expected


def test_positions_go_with_any_preset_and_concern_the_assistant_alone():
    out = label_tokens(tokenized(TURNS), Mask(preset="partial", turns="last"))
    assert out["loss_weights"][0].to_list() == pytest.approx([0, *[0.1] * 5, 0, 0, 0, *[0.1] * 5, 1, 1, 1, 1, 0.1])


def test_none_masks_nothing_but_the_first_token():
    # nothing comes before it, so nothing could predict it; and shifting then never crosses into another document
    assert trained(label_tokens(tokenized(TURNS), Mask(preset="none"))) == list(range(1, 19))


def test_partial_gives_the_rest_a_small_weight():
    weights = label_tokens(tokenized(TURNS), Mask(preset="partial"))["loss_weights"][0].to_list()
    assert weights == pytest.approx([0, *[0.1] * 5, 1, 1, 1, *[0.1] * 5, 1, 1, 1, 1, 0.1])
    weights = label_tokens(tokenized(TURNS), Mask(preset="partial", prompt_weight=0.5))["loss_weights"][0].to_list()
    assert weights == [0, *[0.5] * 5, 1, 1, 1, *[0.5] * 5, 1, 1, 1, 1, 0.5]


def test_layered_weighs_by_role_and_class():
    weights = label_tokens(tokenized(TOOLS), Mask(preset="layered"))["loss_weights"][0].to_list()
    expected = [0, 0, 0, 0, 0.1, 0.1, 0, 1, 0.5, 0.5, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    assert weights == pytest.approx(expected)


def test_a_header_may_be_trained_too():
    out = label_tokens(tokenized(THREE), Mask(weights={"assistant": {"generation_prompt": 1.0}}))
    assert trained(out) == [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23]


def test_a_weight_table_changes_the_preset():
    out = label_tokens(tokenized(TURNS), Mask(weights={"user": {"content": 0.25}}))
    assert trained(out) == [2, 3, 6, 7, 8, 12, 14, 15, 16, 17]
    weights = out["loss_weights"][0].to_list()
    assert [weights[i] for i in (0, 2, 3, 6, 12, 17, 18)] == [0.0, 0.25, 0.25, 1.0, 0.25, 1.0, 0.0]


def test_the_more_specific_weight_wins():
    table = {"*": {"*": 0.5}, "assistant": {"*": 1.0, "scaffold": 0.0}}
    weights = label_tokens(tokenized(TURNS), Mask(weights=table))["loss_weights"][0].to_list()
    assert [weights[i] for i in (1, 6, 8, 14, 15)] == [0.5, 1.0, 1.0, 0.0, 1.0]


def test_a_change_for_any_class_changes_what_the_preset_says_of_each():
    weights = label_tokens(tokenized(TURNS), Mask(weights={"assistant": {"*": 0.5}}))["loss_weights"][0].to_list()
    assert [weights[i] for i in (5, 6, 8, 14)] == [0.0, 0.5, 0.5, 0.5]


def test_weights_of_0_and_1_are_plain_masking_to_the_bit():
    full, table = Mask(), Mask(weights={"assistant": {"*": 1.0, "generation_prompt": 0.0}, "user": {"*": 0.0}})
    for rows in (TURNS, THREE, TOOLS):
        assert label_tokens(tokenized(rows), table).equals(label_tokens(tokenized(rows), full))


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


@pytest.mark.parametrize(
    ("rows", "config", "why"),
    [
        (ENDLESS, Mask(), "no stop"),
        ([*ENDLESS[:2], (0, "stop", "assistant", 0)], Mask(), "shares a token with the text before it"),
        (
            [*ENDLESS[:2], (1, "stop", "assistant", 0)],
            Mask(weights={"assistant": {"stop": 0.0}}),
            "a stop that is not trained, or not trained last",
        ),
        # a stop in the middle is none, and text that a template repeats behind the turn is another turn
        (
            [*ENDLESS[:2], (1, "stop", "assistant", 0), (1, "content", "assistant", 0)],
            Mask(),
            "a stop that is not trained, or not trained last",
        ),
        ([*ENDLESS[:2], (1, "stop", "assistant", 0), *ENDLESS], Mask(), "1 × no stop"),
    ],
)
def test_a_turn_without_a_trained_stop_stops_the_build_and_names_the_row(rows, config, why):
    with pytest.raises(MaskError, match=rf"1 trained turn\(s\).*a:1 \(message 0\).*{why}"):
        label_tokens(tokenized(rows), config)


def test_a_turn_without_a_stop_may_be_trained_masked_or_cost_the_row():
    frame = tokenized(ENDLESS, [*TURNS[:9], (2, "content", "assistant", 3), (1, "template", "", -1)])
    out = label_tokens(frame, Mask(without_stop="train"))
    assert [trained(out, 0), trained(out, 1)] == [[1, 2], [6, 7, 8, 14, 15, 16]]
    out = label_tokens(frame, Mask(without_stop="mask"))
    assert [trained(out, 0), trained(out, 1)] == [[], [6, 7, 8]]
    assert out["drop_reason"].to_list() == ["nothing_to_learn", None]
    out = label_tokens(frame, Mask(without_stop="drop"))
    assert out["drop_reason"].to_list() == ["no_stop", "no_stop"]
    assert out["detail"].to_list() == [f"message {n} does not end on a trained stop" for n in (0, 3)]


def test_an_untrained_turn_needs_no_stop():
    endless = [
        (1, "template", "", -1),
        (2, "content", "assistant", 0),
        (1, "content", "assistant", 1),
        (1, "stop", "assistant", 1),
    ]
    assert trained(label_tokens(tokenized(endless, weight={0: 0.0}), Mask())) == [3, 4]


def test_a_turn_that_says_nothing_is_not_trained():
    silent = [(2, "template", "", -1), (0, "content", "assistant", 0), (1, "stop", "assistant", 0), *TURNS]
    frame = tokenized([(n, name, role, message + 2 * (i > 2)) for i, (n, name, role, message) in enumerate(silent)])
    out = label_tokens(frame, Mask())
    assert trained(out) == [9, 10, 11, 17, 18, 19, 20]
    assert count_tokens(out, frame, Mask())["turns/masked_empty"] == 1


def test_the_report_counts_tokens_and_turns_of_kept_rows():
    question = [(2, "template", "", -1), (3, "content", "user", 0)]
    frame = tokenized(TURNS, question, ENDLESS)
    config = Mask(without_stop="mask", turns="last")
    assert count_tokens(label_tokens(frame, config), frame, config) == {
        "tokens/user/content": 3,
        "tokens/assistant/content": 4,
        "trained/assistant/content": 2,
        "tokens/assistant/stop": 2,
        "trained/assistant/stop": 1,
        "tokens/assistant/scaffold": 1,
        "trained/assistant/scaffold": 1,
        "tokens/-/template": 9,
        "turns/trained": 1,
        "turns/stopped": 1,
    }
    frame, config = tokenized([*TURNS, (2, "content", "assistant", 5)]), Mask(without_stop="mask")
    counts = count_tokens(label_tokens(frame, config), frame, config)
    assert {name: n for name, n in counts.items() if name.startswith("turns/")} == {
        "turns/trained": 2,
        "turns/stopped": 2,
        "turns/masked_without_stop": 1,
    }


def test_an_empty_frame_stays_empty():
    frame = tokenized(TURNS).clear()
    out = label_tokens(frame, Mask())
    assert out.height == 0
    assert count_tokens(out, frame, Mask()) == {"turns/trained": 0, "turns/stopped": 0}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"preset": "full", "prompt_weight": 0.2}, 'prompt_weight = 0.2 does nothing with preset = "full"'),
        ({"preset": "partial", "prompt_weight": 1.0}, "prompt_weight = 1.0: expected `float` < 1.0"),
        ({"preset": "last", "turns": 2}, 'preset = "last" trains the last turn only, turns = 2'),
        ({"turns": 0}, "turns = 0"),
        ({"turns": "middle"}, "choose one of 'all', 'first', 'last'"),
        ({"without_stop": "ignore"}, "choose one of 'refuse', 'mask', 'drop', 'train'"),
        ({"weights": {"user": {"template": 1}}}, "weights.user.template names no token"),
        ({"weights": {"user": {"stop": 1}}}, "only turns of the assistant have stop"),
        ({"weights": {"tool": {"content": 1}}}, "write weights = {tool = {tool_result = ...}}"),
        ({"weights": {"user": {"tool_result": 1}}}, "write weights = {user = {content = ...}}"),
        ({"weights": {"asistant": {}}}, "choose one of 'system', 'user', 'assistant', 'tool', '*'"),
        (
            {"weights": {"user": {"contents": 1}}},
            "choose one of 'content', 'reasoning', 'tool_call', 'tool_result', 'stop'",
        ),
        ({"weights": {"assistant": {"content": -1}}}, "weights"),
        ({"require_stop": False}, "unknown key 'require_stop'"),
    ],
)
def test_settings_that_mean_nothing_are_refused_with_what_to_write(section, problem):
    with pytest.raises(ConfigError) as refused:
        decode_section({"mask": section}, "mask", Mask, where="my.toml")
    assert problem in str(refused.value)
    assert "my.toml: [mask]" in str(refused.value)


spans = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(CLASSES),
        st.sampled_from(ROLES),
        st.integers(-1, 5),
    ),
    max_size=12,
)
tables = st.fixed_dictionaries(
    {},
    optional={
        role: st.dictionaries(st.sampled_from([*said, "reasoning", "tool_call", "*"]), st.sampled_from([0.0, 0.5, 1.0]))
        for role, said in (
            ("user", ["content"]),
            ("assistant", ["content"]),
            ("tool", ["tool_result"]),
            ("*", ["content", "tool_result"]),
        )
    },
)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(spans, max_size=4),
    preset=st.sampled_from(list(PRESETS)),
    weights=tables,
    turns=st.sampled_from(["all", "first", "last", 1, 2]),
    policy=st.sampled_from(["mask", "drop", "train"]),
    own=st.dictionaries(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0]), max_size=3),
)
@example(
    rows=[[(0, "content", "assistant", -1), (1, "content", "assistant", 0), (1, "stop", "assistant", 0)]],
    preset="full",
    weights={},
    turns="first",
    policy="mask",
    own={},
)
def test_whatever_the_spans_labels_are_ids_and_weights_are_the_tables(rows, preset, weights, turns, policy, own):
    if preset == "last":
        turns = "all"
    config = Mask(preset=preset, weights=weights, turns=turns, without_stop=policy)
    frame = tokenized(*rows, weight=own)
    out = label_tokens(frame, config)
    table = weight_table(config)
    for row in out.iter_rows(named=True):
        (spans_of_row,) = frame.filter(pl.col("id") == row["id"])["spans"].to_list()
        labels, ids = row["labels"], row["input_ids"]
        assert len(labels) == len(ids)
        assert all(label in (-100, id_) for label, id_ in zip(labels, ids, strict=True))
        assert row["n_supervised"] == sum(label != -100 for label in labels)
        expected = np.zeros(len(ids), np.float32)
        for span in spans_of_row:
            expected[span["start"] : span["end"]] = table[
                ROLES.index(span["role"]), CLASSES.index(span["class"])
            ] * np.float32(1 if span["weight"] is None else span["weight"])
        # position and policy only ever take away
        weights_of_row = row["loss_weights"] or [float(label != -100) for label in labels]
        assert all(found in (0, wanted) for found, wanted in zip(weights_of_row, expected.tolist(), strict=True))
        assert labels[:1] in ([], [-100])


@given(preset=st.sampled_from(list(PRESETS)), weights=tables)
def test_both_readings_of_the_settings_agree(preset, weights):
    config = Mask(preset=preset, weights=weights)
    assert np.array_equal(weight_table(config), due_weights(config))


def test_the_settings_name_every_class_and_role():
    assert set(get_args(ClassName)) == {*CLASSES, "*"}
    assert set(get_args(RoleName)) == {*ROLES, "*"} - {""}


def test_settings_survive_their_own_file():
    config = Mask(
        preset="partial", prompt_weight=0.25, turns=3, weights={"user": {"content": 0.5}}, without_stop="mask"
    )
    assert msgspec.convert(msgspec.to_builtins(config), Mask) == config
