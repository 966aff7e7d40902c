from hypothesis import given
from hypothesis import strategies as st

from pipeline.look import printable


@given(st.text())
def test_no_text_can_move_the_cursor_or_reorder_the_line(text):
    shown = printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)


def test_ordinary_text_is_shown_as_it_is():
    assert printable("Hé 你好 👍\n\tx") == "Hé 你好 👍\n\tx"
    assert printable("\x1b[31m\u202e") == "\\x1b[31m\\x202e"
