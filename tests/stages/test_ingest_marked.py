import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DropReason
from stages.ingest.shapes.transcript import style_of
from tests.stages.reading import kept, read, refused, said

TWO = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]


@pytest.mark.parametrize(
    "text",
    [
        "### Human: a### Assistant: b### Human: c### Assistant: d",
        "### Human: a\n### Assistant: b\n### Human: c\n### Assistant: d\n",
        "### User:\na\n\n### Assistant:\nb\n\n### User:\nc\n\n### Assistant:\nd",
        "<human>: a\n<bot>: b\n<human>: c\n<bot>: d",
        "<human>:a\r\n<bot>:b\r\n<human>:c\r\n<bot>:d\r\n",
        "[|Human|] a\n[|AI|] b\n[|Human|] c\n[|AI|] d",
        "<|Human|>: a<eoh>\n<|MOSS|>: b<eom>\n<|Human|>: c<eoh>\n<|MOSS|>: d<eom>\n",
        "[Human]: a<eoh> [MOSS]: b<eoa> [Human]: c<eoh> [MOSS]: d<eoa>",
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
        "Human: a\nAssistant: b\nHuman: c\nAssistant: d\n",
        "User: a\n\nAssistant: b\n\nUser: c\n\nAssistant: d",
    ],
)
@pytest.mark.parametrize("key", ["text", "input", "plain_text"])
def test_each_style_is_told_by_its_markers(key, text):
    row = kept({key: text})
    assert (row["shape"], said(row), row["repairs"]) == ("marked_text", TWO, [])


def test_an_open_marker_at_the_end_is_a_turn_that_nothing_answers():
    """Baize ends on one, after a sentence that says what follows."""
    text = "The conversation between human and AI assistant.\n[|Human|] a\n[|AI|] b\n[|Human|] "
    row = kept({"topic": "x", "input": text})
    assert said(row) == [("system", "The conversation between human and AI assistant."), *TWO[:2]]
    assert row["repairs"] == ["trailing:1"]
    assert refused({"text": "<human>: a\n<bot>:"})[0] == DropReason.EMPTY_MESSAGE
    assert refused({"text": "<human>: a"})[0] == DropReason.NO_ANSWER
    assert refused({"text": "### Human: a\n### Human: b\n### Assistant: c"})[0] == DropReason.SAME_ROLE


def test_what_is_said_keeps_all_but_the_blanks_around_it():
    said_by = "  indented\n\n\u3000code:\n\tx = 1  # no marker\u00a0"
    row = kept({"text": f"<human>: \t{said_by}\n \n<bot>:\n\n{said_by}\r\n"})
    assert [text for _, text in said(row)] == [said_by.strip(" \t\r\n")] * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<human>: Is <bot>: a marker?\n<bot>: It is.", ["Is <bot>: a marker?", "It is."]),
        ("<human>: Is it?\n<bot>: <human>: is one, <bot>: too.", ["Is it?", "<human>: is one, <bot>: too."]),
        ("### Human: What is ### Assistant:?\n### Assistant: It.", ["What is ### Assistant:?", "It."]),
        ("Human: Say Assistant: x\nAssistant: Human: y", ["Say Assistant: x", "Human: y"]),
        ("\n\nHuman: q\n\nAssistant: A play:\nHuman: x\nAssistant: y", ["q", "A play:\nHuman: x\nAssistant: y"]),
        ("[|Human|] a [|AI|]\n[|AI|] b", ["a [|AI|]", "b"]),
        ("<|Human|>: a <|MOSS|>: b<eoh>\n<|MOSS|>: c<eom>", ["a <|MOSS|>: b", "c"]),
    ],
)
def test_a_marker_within_a_line_is_part_of_what_is_said_where_turns_begin_lines(text, expected):
    if "too." in text:
        assert (
            refused({"text": text})[0] == DropReason.BAD_SHAPE
        )  # as four turns it would read as well: nobody can tell
        return
    assert [said_by for _, said_by in said(kept({"text": text}))] == expected


@pytest.mark.parametrize(
    "text",
    [
        "### Human: Say ### Assistant: and ### Human: please\n### Assistant: ok",
        "Human: a\n\nAssistant: b\nHuman: c\nAssistant: d",
    ],
)
def test_where_two_readings_hold_the_record_is_refused(text):
    reason, detail = refused({"text": text})
    assert (reason, "it cannot be told" in detail) == (DropReason.BAD_SHAPE, True)


def test_an_end_that_is_missing_is_not_repaired():
    reason, detail = refused({"text": "<|Human|>: a<eoh>\n<|MOSS|>: b"})
    assert (reason, "<eom> after what MOSS says" in detail) == (DropReason.BAD_SHAPE, True)


def test_moss_in_one_text_is_read_as_moss_in_parts():
    text = (
        "You are MOSS.\n- Web search: enabled. API: Search(query)\n<|Human|>: a<eoh>\n<|Inner Thoughts|>: hm<eot>\n"
        '<|Commands|>: Search("x")<eoc>\n<|Results|>: y<eor>\n<|MOSS|>: b<eom>'
    )
    row = kept({"text": text})
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert row["messages"][2]["tool_calls"] == (
        '[{"type": "function", "function": {"name": "Search", "arguments": {"query": "x"}}}]'
    )


def test_the_instruction_of_moss_may_stand_in_its_own_key():
    row = kept({"prefix": "You are MOSS.\n", "plain_text": "[Human]: a<eoh> [MOSS]: b<eoa>", "num_turns": 1})
    assert said(row) == [("system", "You are MOSS.\n"), *TWO[:2]]


@pytest.mark.parametrize(
    "text",
    [
        "A text about ### Human: rights.",
        "He said: Human: hello",
        "Dialogue:\nHuman: a\nAssistant: b",
        "Human: alone",
        "### Instruction:\na\n\n### Response:\nb",
        "",
    ],
)
def test_prose_is_no_conversation(text):
    assert style_of(text) is None
    assert refused({"text": text})[0] == DropReason.UNKNOWN_SHAPE


def test_a_text_that_is_all_markers_is_read_to_its_end():
    assert refused({"text": "<human>:" * 100_000})[0] == DropReason.EMPTY_MESSAGE
    assert refused({"text": "\n\nHuman: \n\nAssistant: " * 20_000})[0] == DropReason.EMPTY_MESSAGE
    assert refused({"text": "<|Human|>:" + " " * 10**6 + "<|Human|>:"})[0] == DropReason.BAD_SHAPE


said_text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0<>#[]|:"), min_size=1).filter(
    lambda text: text.strip(" \t\r\n") == text
)


@given(st.lists(st.tuples(said_text, said_text), min_size=1, max_size=4), st.sampled_from([0, 1, 2]))
def test_any_text_between_markers_comes_out_as_it_went_in(turns, style):
    human, bot, border = [
        ("### Human: ", "### Assistant: ", ""),
        ("<human>: ", "<bot>: ", "\n"),
        ("[|Human|]", "[|AI|]", "\n"),
    ][style]
    text = border.join(f"{human}{a}{border}{bot}{b}" for a, b in turns)
    assert said(kept({"text": text})) == [pair for a, b in turns for pair in (("user", a), ("assistant", b))]


markup = st.lists(
    st.sampled_from(
        [
            *("### Human:", "### Assistant:", "<human>:", "<bot>:", "[|Human|]", "[|AI|]", "<|Human|>:", "<|MOSS|>:"),
            *(
                "<|Commands|>:",
                "<|Inner Thoughts|>:",
                "<eoh>",
                "<eom>",
                "<eoc>",
                "<eot>",
                "[Human]:",
                "[MOSS]:",
                "<eoa>",
            ),
            *("Human:", "Assistant:", "\n", "\n\n", " ", "7", "7"),
        ]
    ),
    max_size=14,
).map("".join)


@given(markup)
def test_whatever_the_markers_nothing_that_is_said_is_lost_in_silence(text):
    (row,) = read({"text": text}, trailing="keep", same_role="keep")
    if row["drop_reason"] is None:
        heard = "".join(f"{message['content']} {message['reasoning']}" for message in row["messages"])
        assert heard.count("7") == text.count("7")


@given(markup, st.sampled_from(["7", "Human: 7\nAssistant: 7", "### Human: 7 ### Assistant: 7\n", "<|Human|>: 7<eoh>"]))
def test_a_text_that_begins_a_conversation_is_read_or_refused_with_a_reason(tail, head):
    (row,) = read({"text": head + tail})
    assert (row["drop_reason"] is None) == bool(row["messages"])
    assert row["drop_reason"] is None or row["detail"]
