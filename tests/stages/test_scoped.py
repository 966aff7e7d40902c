import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.settings import ConfigError, decode_section
from stages.render import Render
from stages.render.scoped import Scoped, apply_scoped, count_scoped
from tests.stages.rows import chatml, rendered


def pieces(out: pl.DataFrame, row: int = 0) -> list[tuple[str, float | None]]:
    text = out["text"][row]
    return [(text[span["start"] : span["end"]], span["weight"]) for span in out["spans"][row].to_list()]


ASKED = chatml(("user", "What is 6 times 7?"), ("assistant", "Let me see. 6 × 7 is 42."))


def test_a_match_has_its_weight_multiplied_and_the_rest_is_left_alone():
    out = apply_scoped(rendered(ASKED), [Scoped(pattern=r"\d+", weight=0.5)])
    assert pieces(out) == [
        ("<|im_start|>user\n", None),
        ("What is 6 times 7?", None),
        ("<|im_end|>\n", None),
        ("<|im_start|>assistant\n", None),
        ("Let me see. ", None),
        ("6", 0.5),
        (" × ", None),
        ("7", 0.5),
        (" is ", None),
        ("42", 0.5),
        (".", None),
        ("<|im_end|>", None),
        ("\n", None),
    ]
    assert out["scoped"].to_list() == [[3]]


def test_pieces_keep_class_role_and_message():
    out = apply_scoped(rendered(ASKED), [Scoped(pattern="see", weight=0)])
    spans = [span for span in out["spans"][0].to_list() if span["class"] == "content"]
    assert [(span["role"], span["message"]) for span in spans] == [("user", 0)] + [("assistant", 1)] * 3


def test_a_rule_is_for_one_role_and_class():
    rules = [Scoped(pattern=r"\d", weight=3, role="user"), Scoped(pattern=".", weight=0, class_="reasoning")]
    out = apply_scoped(rendered(ASKED), rules)
    assert [piece for piece in pieces(out) if piece[1] is not None] == [("6", 3), ("7", 3)]
    assert out["scoped"].to_list() == [[2, 0]]


def test_no_rule_reaches_into_the_template_or_over_an_edge():
    out = apply_scoped(rendered(ASKED), [Scoped(pattern="(?s).*", weight=0.5, role="*", class_="*")])
    assert [weight for text, weight in pieces(out) if "<|im" in text or text == "\n"] == [None] * 5
    assert [text for text, weight in pieces(out) if weight == 0.5] == ["What is 6 times 7?", "Let me see. 6 × 7 is 42."]


def test_rules_that_overlap_multiply_and_see_the_whole_text():
    rules = [Scoped(pattern="see", weight=0.5), Scoped(pattern=r"me see\. 6", weight=0.5)]
    out = apply_scoped(rendered(ASKED), rules)
    assert pieces(out)[4:9] == [("Let ", None), ("me ", 0.5), ("see", 0.25), (". 6", 0.5), (" × 7 is 42.", None)]


def test_the_messages_own_weight_is_kept():
    frame = rendered(ASKED)
    spans = [{**span, "weight": 0.5 if span["message"] == 1 else None} for span in frame["spans"][0].to_list()]
    frame = frame.with_columns(pl.Series("spans", [spans], frame.schema["spans"]))
    out = apply_scoped(frame, [Scoped(pattern="42", weight=0.5)])
    assert pieces(out)[4:8] == [("Let me see. 6 × 7 is ", 0.5), ("42", 0.25), (".", 0.5), ("<|im_end|>", 0.5)]


def test_nothing_that_matches_changes_no_span_and_is_counted_as_none():
    frame = rendered(ASKED)
    out = apply_scoped(frame, [Scoped(pattern="xyz", weight=0), Scoped(pattern="Let", weight=1)])
    assert out["spans"].to_list() == frame["spans"].to_list()
    out = out.with_columns(drop_reason=pl.lit(None, pl.String))
    assert count_scoped(out) == {"scoped/0": 0, "scoped/1": 1}


def test_a_row_without_text_stays_so():
    frame = rendered(ASKED, ASKED)
    refused = frame.with_columns(
        text=pl.when(pl.col("id") == "a:2").then("text"), spans=pl.when(pl.col("id") == "a:2").then("spans")
    )
    out = apply_scoped(refused, [Scoped(pattern="42", weight=0)])
    assert out["spans"].is_null().to_list() == [True, False]
    assert ("42", 0.0) in pieces(out, 1)
    assert apply_scoped(frame.clear(), [Scoped(pattern="42", weight=0)]).height == 0


def test_a_slice_of_a_frame_gives_what_the_frame_gives():
    rows = [chatml(("user", f"Nr. {n}"), ("assistant", "é" * n + f" {n} 答案")) for n in range(6)]
    rules = [Scoped(pattern=r"\d+", weight=0.5), Scoped(pattern="答", weight=0)]
    whole = apply_scoped(rendered(*rows), rules)
    assert apply_scoped(rendered(*rows).slice(2, 3), rules).equals(whole.slice(2, 3))


texts = st.text(st.sampled_from("ab1 \n<é答😀\x01"), max_size=12)
patterns = st.sampled_from(
    ["a", "a+b?", "[0-9]", "é|答", "(?s).", "😀+", r"\x01", "b*", "^a", "(ab)+"]
)  # $ differs: Python's also matches before a last line end


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), max_size=4), max_size=3),
    rules=st.lists(
        st.builds(
            Scoped,
            pattern=patterns,
            weight=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
            role=st.sampled_from(["user", "assistant", "*"]),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_each_character_has_the_weight_that_pythons_own_search_gives_it(rows, rules):
    frame = rendered(*[chatml(*turns) for turns in rows])
    out = apply_scoped(frame, rules)
    for text, before, after in zip(frame["text"], frame["spans"].to_list(), out["spans"].to_list(), strict=True):
        assert [edge for span in after for edge in (span["start"], span["end"])] == sorted(
            [edge for span in after for edge in (span["start"], span["end"])]
        )
        found = [1.0] * len(text)
        for span in after:
            assert span["start"] < span["end"]
            for at in range(span["start"], span["end"]):
                found[at] = 1.0 if span["weight"] is None else span["weight"]
        expected = [1.0] * len(text)
        for span in before:
            for rule in rules:
                if span["class"] == "content" and rule.role in (span["role"], "*"):
                    for match in re.finditer(rule.pattern, text[span["start"] : span["end"]]):
                        for at in range(match.start(), match.end()):
                            expected[span["start"] + at] *= rule.weight
        assert found == expected


def test_a_pattern_that_makes_backtracking_explode_takes_no_time():
    # (a+)+$ on 5,000 letters and a b would keep Python's re busy beyond the end of the universe
    frame = rendered(chatml(("user", "x"), ("assistant", "a" * 5_000 + "b")))
    assert apply_scoped(frame, [Scoped(pattern="(a+)+$", weight=0)])["scoped"].to_list() == [[0]]


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"pattern": "(", "weight": 0}, "'(' is no regular expression of Rust's regex crate (unclosed group)"),
        ({"pattern": "a(?=b)", "weight": 0}, "look-around, including look-ahead and look-behind, is not supported"),
        ({"pattern": r"(a)\1", "weight": 0}, "backreferences are not supported"),
        ({"pattern": "(a{1000}){1000}", "weight": 0}, "Compiled regex exceeds size limit"),
        ({"pattern": "", "weight": 0}, "length >= 1"),
        ({"pattern": "a", "weight": -1}, ">= 0.0"),
        ({"pattern": "a"}, "missing required field `weight`"),
        ({"pattern": "a", "weight": 0, "class": "stop"}, "nvalid enum value 'stop'"),
        ({"pattern": "a", "weight": 0, "roles": "user"}, "unknown field `roles`"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_when_the_config_is_read(rule, problem):
    with pytest.raises(ConfigError) as refused:
        decode_section({"render": {"scoped": [rule]}}, "render", Render, where="my.toml")
    assert problem in str(refused.value)
    assert "my.toml: [render] scoped[0]" in str(refused.value)
