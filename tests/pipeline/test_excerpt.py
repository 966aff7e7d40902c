import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pipeline.excerpt import compared, compared_line, fitted, printable, unlike_words, words_around

SAID = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "First\n question?"},
    {"role": "assistant", "reasoning": "Hm.", "content": None, "tool_calls": "[]"},
    {"role": "user", "content": "Second?"},
    {"role": "assistant", "content": "Answer."},
]


@given(st.text())
def test_no_text_can_move_the_cursor_or_reorder_the_line(text):
    shown = printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)


def test_ordinary_text_is_shown_as_it_is():
    assert printable("Hé 你好 👍\n\tx") == "Hé 你好 👍\n\tx"
    assert printable("\x1b[31m\u202e") == "\\x1b[31m\\x202e"


@given(st.text(st.sampled_from("ab 你好👍é\x1b\n")), st.integers(1, 30))
def test_a_fitted_text_is_never_wider_than_its_line(text, width):
    shown = fitted(" ".join(text.split()), width)
    assert cell_len(shown) <= width
    assert "\x1b" not in shown


def test_chinese_characters_take_two_cells():
    assert fitted("你好世界", 8) == "你好世界"
    assert fitted("你好世界", 7) == "你好世…"
    assert fitted("hello", 5) == "hello"
    assert fitted("hello you", 6) == "hello…"


@pytest.mark.parametrize(
    ("scope", "line"),
    [
        ("conversation", "First question? Hm. [] Second? Answer."),
        ("turns", "First question? Hm. [] Second? Answer."),
        ("prompt", "First question?"),
        ("answer", "Answer."),
        (None, "First question? Hm. [] Second? Answer."),
    ],
)
def test_what_a_scope_compares_stands_on_one_line(scope, line):
    assert compared_line(SAID, scope) == line


def test_a_conversation_without_what_the_scope_compares_is_shown_whole():
    assert compared(SAID[:1], "answer") == [("system", "Be kind.")]


def test_texts_that_begin_alike_are_shown_where_they_differ():
    same = "w " * 40
    left, right = unlike_words(f"{same}left one", f"{same}right one")
    assert left == f"{'w ' * 15}… {'w ' * 10}left one"
    assert right == f"{'w ' * 15}… {'w ' * 10}right one"
    assert unlike_words("short a", "short b") == ("short a", "short b")
    assert unlike_words(same, same) == (same, same)


def test_a_row_is_shown_from_where_it_says_what_the_record_says():
    text = "I was asked this. What is the capital of Peru? Lima."
    assert words_around(text, "Q: What is the Capital of Peru?") == "… What is the capital of Peru? Lima."
    assert words_around(text, "Something else entirely") == text
    assert words_around("Peru", "Peru") == "Peru"
    assert words_around(text, "") == text
