import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DropReason
from stages.ingest.conversation import adapt_prompt
from stages.ingest.line import Line
from stages.ingest.shapes import SHAPES, recognise
from stages.ingest.shapes.names import ShapeName
from stages.ingest.shapes.pair import SPEAKING
from stages.ingest.shapes.pairs import FLAT, OF_ONE_DATA_SET
from tests.stages.reading import kept, read, refused, said

STATED = {"flan_cot"}
"""Shapes that only a config can ask for."""
UNANSWERED = {"only_asked"}


def test_the_config_knows_the_name_of_every_shape():
    assert set(get_args(ShapeName)) == {"auto", *SHAPES}


@pytest.mark.parametrize("name", SHAPES)
def test_the_example_of_every_shape_is_recognised_and_read(name):
    example = json.loads(SHAPES[name].example)
    if name not in STATED:
        assert recognise(example).name == name
    rows = read(SHAPES[name].example.encode(), shape=name)
    if name in UNANSWERED:
        assert [row["drop_reason"] for row in rows] == ["no_answer"]
    else:
        assert rows
        assert [(row["drop_reason"], row["shape"]) for row in rows] == [(None, name)] * len(rows)


@pytest.mark.parametrize(
    ("record", "shape", "expected"),
    [
        ({"instruction": "q", "input": "i", "output": "a"}, "alpaca", ["q\ni", "a"]),
        ({"instruction": "q", "input": None, "output": "a"}, "alpaca", ["q", "a"]),
        ({"instruction": "", "input": "i", "output": "a"}, "alpaca", ["i", "a"]),
        ({"instruction": "q", "output": "a", "idx": 3}, "alpaca", ["q", "a"]),
        ({"instruction": "q", "context": "", "response": "a", "category": "open_qa"}, "dolly", ["q", "a"]),
        ({"instruction": "q", "context": "c", "response": "a"}, "dolly", ["q\nc", "a"]),
        ({"prompt": "q", "response": "a", "source": "unified_chip2"}, "prompt_response", ["q", "a"]),
        ({"query": "q", "response": "a", "type": "GSM", "original_question": "q"}, "query_response", ["q", "a"]),
        ({"question": "q", "answer": "a\n#### 4"}, "question_answer", ["q", "a\n#### 4"]),
        ({"q": "q", "a": "a"}, "q_a", ["q", "a"]),
        ({"problem": "q", "solution": "a", "level": "Level 5"}, "problem_solution", ["q", "a"]),
        ({"inputs": "q", "targets": "a", "task": "anli"}, "inputs_targets", ["q", "a"]),
        ({"input": "q", "output": "a", "subset": "c4"}, "input_output", ["q", "a"]),
        ({"input": "q", "target": "a", "kind": "NER"}, "input_target", ["q", "a"]),
        ({"column_1": "who \\n (a) x (b) y", "column_2": "x"}, "columns", ["who \\n (a) x (b) y", "x"]),
        ({"text_in": "", "struct_in": "s", "seq_out": "a", "question": "x", "answer": 3}, "unified_skg", ["s", "a"]),
        (
            {"inputs": [1, 2], "inputs_pretokenized": "q", "targets": [3], "targets_pretokenized": " a ", "idx": [0, 1]},
            "p3",
            ["q", " a "],
        ),
        (
            {
                "textbox_q_instruction": "q1",
                "textbox_q_context": "q2",
                "textbox_question": "q3",
                "textbox_answer": "B",
                "textbox_answer_analysis": "",
            },
            "coig_exam",
            ["q1\nq2\nq3", "B"],
        ),
        (
            {"instruction": "x", "input": "", "output": "y", "trans_instruction": "q", "trans_input": "", "trans_output": "a"},
            "coig_translated",
            ["q", "a"],
        ),
        (
            {"problem": "q", "reannotated_assistant_content": "<think>\nt\n</think>\n\na", "solution": "s", "verified": None},
            "r1_distill",
            ["q", "<think>\nt\n</think>\n\na"],
        ),
    ],
)  # fmt: skip
def test_a_question_and_its_answer_are_read_under_the_names_they_are_published_with(record, shape, expected):
    row = kept(record)
    assert (row["shape"], said(row)) == (shape, list(zip(("user", "assistant"), expected, strict=True)))


def test_what_r1_wrote_anew_goes_before_the_messages_it_was_made_of():
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>t</think>a"}]
    record = {
        "id": "r1",
        "messages": [turns[0], {"role": "assistant", "content": "old"}],
        "reannotated_messages": turns,
        "reannotated_assistant_content": "<think>t</think>a",
        "source": "numina",
    }
    row = kept(record)
    assert (row["shape"], row["record_id"], row["tags"]) == ("r1_distill", "r1", ["source:numina"])
    assert said(row) == [("user", "q"), ("assistant", "<think>t</think>a")]


def test_rounds_of_coig_follow_their_numbers():
    record = {f"round_{i}": {"prompt": "p", "response": json.dumps({"Q": f"q{i}", "A": f"a{i}"})} for i in (10, 2, 0)}
    assert [text for _, text in said(kept(record))] == ["q0", "a0", "q2", "a2", "q10", "a10"]
    record["round_3"] = {"response": '{"Q": "q", "A": ["a"]}'}
    assert refused(record) == ("bad_shape", "round_3.response.A: expected text, got ['a']")
    record["round_3"] = {"response": '{"Q": "q", "A'}
    assert refused(record)[0] == "bad_json"


def test_the_border_before_an_input_is_a_setting():
    border = "\n\n### Input:\n"
    record = {"instruction": "Add", "input": "1 2", "output": "3"}
    assert said(kept(record, input_border=border))[0] == ("user", "Add\n\n### Input:\n1 2")
    assert said(kept({**record, "input": ""}, input_border=border))[0] == ("user", "Add")


HISTORY = [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")]


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "q2", "input": "", "output": "a2", "history": [["q1", "a1"]]},
        {"instruction": "q2", "output": "a2", "history": [{"q": "q1", "a": "a1"}]},
        {"instruction": "q2", "output": "a2", "history": [{"instruction": "q1", "output": "a1"}]},
        {"prompt": "q2", "response": "a2", "history": [["q1", "a1"]]},
        {"q": "q2", "a": "a2", "history": [["q1", "a1"]]},
    ],
)
def test_a_history_is_what_was_said_before(record):
    assert said(kept(record)) == HISTORY
    assert said(kept({**record, "system": "s"})) == [("system", "s"), *HISTORY]
    assert said(kept({**record, "history": []})) == HISTORY[2:]


@pytest.mark.parametrize(
    ("history", "at"),
    [
        ("q1", "history:"),
        ([["q1"]], "history[0]:"),
        ([["q1", None]], "history[0][1]:"),
        ([["q1", "a1"], {"q": "q", "a": "a", "more": "b"}], "history[1]:"),
        ([{"q": 3, "a": "a"}], "history[0].q:"),
    ],
)
def test_a_history_of_another_form_is_refused_by_its_place(history, at):
    reason, detail = refused({"instruction": "q", "output": "a", "history": history})
    assert (reason, detail.split(" ")[0]) == ("bad_shape", at)


def test_tags_and_ids_come_from_the_record():
    row = kept({"instruction": "q", "response": "a", "category": "closed_qa", "source": "dolly", "uuid": "u-1"})
    assert (row["tags"], row["record_id"]) == (["category:closed_qa", "source:dolly"], "u-1")


def test_a_source_that_is_translated_is_no_tag():
    row = kept({"source": "Good morning", "target": "Bonjour"})
    assert (row["tags"], said(row)) == ([], [("user", "Good morning"), ("assistant", "Bonjour")])


@pytest.mark.parametrize("key", ["id", "_id", "conversation_id", "uuid", "idx", "example_id", "task_id", "prompt_id"])
def test_the_id_of_a_record_goes_by_many_names(key):
    assert kept({"question": "q", "answer": "a", key: 0})["record_id"] == "0"
    assert kept({"question": "q", "answer": "a", key: "x"})["record_id"] == "x"
    assert kept({"question": "q", "answer": "a", key: True})["record_id"] is None


def test_a_system_prompt_is_the_first_message():
    record = {"id": "flan.1", "system_prompt": "Be brief.", "question": "q", "response": "a"}
    assert said(kept(record)) == [("system", "Be brief."), ("user", "q"), ("assistant", "a")]
    assert refused({**record, "system": "Be long."})[0] == "bad_shape"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "rationale", "chain_of_thought", "cot"])
def test_what_was_thought_stands_beside_the_answer(key):
    row = kept({"question": "q", "answer": "a", key: "hm"})
    assert (row["messages"][1]["content"], row["messages"][1]["reasoning"]) == ("a", "hm")


def test_chains_of_thought_without_names_are_read_where_the_config_says_so():
    record = {"column_1": "q", "column_2": "a", "column_3": "hm"}
    reason, detail = refused(record)
    assert reason == "bad_shape"
    assert 'mapping = {user = "column_1", assistant = "column_2", reasoning = "column_3"}' in detail
    stated = kept(record, shape="flan_cot")
    mapped = kept(record, mapping={"user": "column_1", "assistant": "column_2", "reasoning": "column_3"})
    assert stated["messages"] == mapped["messages"]
    assert stated["messages"][1]["reasoning"] == "hm"


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "p", "completion": "c", "input": "i"},
        {"prompt": "p", "completion": "c", "response": "r"},
        {"instruction": "q", "input": "i", "output": "a", "context": "c"},
        {"instruction": "q", "input": "i", "response": "a"},
        {"question": "q", "answer": "B", "choices": ["a", "b"]},
        {"question": "q", "answer": "a", "context": "c"},
        {"question": "q", "answer": "a", "text": "a passage"},
        {"problem": "q", "solution": "s", "answer": "4"},
        {"input": "q", "output": "a", "target": "b"},
        {"query": "q", "response": "a", "prompt": "p"},
    ],
)
def test_what_may_be_part_of_it_is_never_lost_in_silence(record):
    reason, detail = refused(record)
    lost = detail.split(" beside ")[0]
    assert (reason, lost in record) == ("bad_shape", True)
    assert f'", "{lost}"], assistant = "' in detail
    said(kept({key: value for key, value in record.items() if key != lost}))
    said(kept({**record, lost: None}))
    said(kept({**record, lost: ""}))


@pytest.mark.parametrize("extra", [{"response": "a"}, {"prompt": "q"}, {"text": "Below.\n### q\n### Response:\na"}])
def test_what_says_the_same_does_no_harm(extra):
    assert said(kept({"instruction": "q", "input": "", "output": "a", **extra})) == [("user", "q"), ("assistant", "a")]


def test_a_wrong_answer_is_not_learned():
    record = {"inputs_pretokenized": "q", "targets_pretokenized": "a", "is_correct": True}
    assert said(kept(record)) == [("user", "q"), ("assistant", "a")]
    assert refused({**record, "is_correct": False}) == (
        "bad_shape",
        "is_correct is false: targets_pretokenized is one of the wrong answers",
    )


def test_an_answer_that_another_goes_before_is_counted():
    row = kept({"textbox_question": "q", "textbox_answer": "B", "textbox_answer_analysis": "So B."})
    assert (said(row), row["repairs"]) == ([("user", "q"), ("assistant", "So B.")], ["other_answers:1"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": "q"}, DropReason.NO_ANSWER),
        ({"instruction": "q", "translation": "z"}, DropReason.NO_ANSWER),
        ({"instruction": "q", "output": None}, DropReason.NO_ANSWER),
        ({"prompt": "q"}, DropReason.NO_ANSWER),
        ({"question": "q", "choices": ["a"]}, DropReason.NO_ANSWER),
        ({"column_1": "q", "column_2": None}, DropReason.NO_ANSWER),
        ({"column_1": "q"}, DropReason.BAD_SHAPE),
        ({"problem": "q", "reannotated_assistant_content": None}, DropReason.NO_ANSWER),
        ({"instruction": "q", "output": ""}, DropReason.EMPTY_MESSAGE),
        ({"instruction": "", "input": "", "output": "a"}, DropReason.EMPTY_MESSAGE),
        ({"instruction": None, "output": "a"}, DropReason.BAD_SHAPE),
        ({"question": "q", "answer": 4}, DropReason.BAD_SHAPE),
        ({"question": "q", "answer": ["a"]}, DropReason.BAD_SHAPE),
        ({"question": ["q"], "answer": "a"}, DropReason.BAD_SHAPE),
        ({"question": "q", "answer": "a", "image": "x.png"}, DropReason.UNSUPPORTED_PART),
        ({"question": "q", "answer": "a", "reasoning": 3}, DropReason.BAD_SHAPE),
        ({"question": "q", "answer": "a", "reasoning": "x", "cot": "y"}, DropReason.BAD_SHAPE),
    ],
)
def test_what_is_no_pair_is_quarantined(record, reason):
    assert refused(record)[0] == reason.value


def test_a_question_alone_says_what_is_missing():
    _, detail = refused({"instruction": "q", "translation": "z"})
    assert detail.startswith("instruction has neither output nor response beside it")
    assert "the record has: instruction, translation" in detail


def test_contents_are_kept_to_the_byte():
    text = ' a\u2028b\r\n<|endoftext|>\t"\\n" 🙂 '
    assert said(kept({"prompt": text, "completion": text})) == [("user", text), ("assistant", text)]


@given(
    st.dictionaries(
        st.sampled_from(sorted(SPEAKING - {"text", "reannotated_assistant_content", "is_correct"})),
        st.sampled_from(["a", "b", "c", "", None]),
        max_size=5,
    )
)
def test_no_record_of_the_known_keys_loses_a_word(record):
    for row in read(record):
        if row["drop_reason"] is None:
            told = "\n".join(message["content"] for message in row["messages"]) + (row["rejected"] or "")
            lost = {key for key, text in record.items() if text and text not in told}
            assert not lost or row["shape"] == "preference"


def pairs():
    return [*FLAT, *OF_ONE_DATA_SET]


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair.name)
def test_a_prompt_is_a_record_without_its_answer(pair):
    record = {key: f"({key})" for key in (*pair.question, *pair.also)}
    with_answer = {**record, pair.answers[-1]: "a"}
    (row,) = read(with_answer)
    for prompt in (record, {**record, pair.answers[-1]: None}, {**record, pair.answers[-1]: ""}):
        found = adapt_prompt(Line(json.dumps(prompt).encode(), 64), "auto")
        assert [(said.role, said.content) for said in found.messages] == said(row)[:1]
    found = adapt_prompt(Line(json.dumps(with_answer).encode(), 64), "auto")
    assert [(said.role, said.content) for said in found.messages] == said(row)
