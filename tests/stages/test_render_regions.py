"""Where a turn begins and ends, on texts short enough to count."""

from stages.render.regions import CLASSES, Boundaries, partition
from stages.render.traced import CONTENT, TOOL_CALL, origin

CHAT = Boundaries(header="<A>", after_user="<A>", after_tool="<R>", lead="", stops=("END",))


def cut(text: str, written: dict[str, tuple[int, int]], roles: list[str], boundaries: Boundaries = CHAT) -> list[str]:
    """Partition `text`, where `written` maps each stretch to its message and kind; return "class:message:text"."""
    spans = sorted((text.index(part), text.index(part) + len(part), origin(*who)) for part, who in written.items())
    return [
        f"{CLASSES[kind]}:{message}:{text[start:end]}"
        for start, end, kind, message in partition(text, spans, roles, boundaries)
    ]


def test_a_turn_reaches_from_the_header_to_the_stop():
    assert cut("q<A>xENDr", {"q": (0, CONTENT), "x": (1, CONTENT)}, ["user", "assistant"]) == [
        "content:0:q",
        "generation_prompt:1:<A>",
        "content:1:x",
        "stop:1:END",
        "template:-1:r",
    ]


def test_a_stop_behind_the_next_header_belongs_to_the_next_turn():
    """Message 1 has no stop of its own; message 2 is empty and has one."""
    assert cut("q<A>x<A>END", {"q": (0, CONTENT), "x": (1, CONTENT)}, ["user", "assistant", "assistant"]) == [
        "content:0:q",
        "generation_prompt:1:<A>",
        "content:1:x",
        "template:-1:<A>END",
    ]


def test_a_turn_begins_at_the_last_header_before_it():
    assert cut("q<A>END<A>y", {"q": (0, CONTENT), "y": (2, CONTENT)}, ["user", "assistant", "assistant"]) == [
        "content:0:q",
        "template:-1:<A>END",
        "generation_prompt:2:<A>",
        "content:2:y",
    ]


def test_the_templates_text_between_the_parts_of_a_turn_is_scaffold():
    written = {"q": (0, CONTENT), "x": (1, CONTENT), "call": (1, TOOL_CALL)}
    assert cut("q<A>[x](call) END", written, ["user", "assistant"]) == [
        "content:0:q",
        "generation_prompt:1:<A>",
        "scaffold:1:[",
        "content:1:x",
        "scaffold:1:](",
        "tool_call:1:call",
        "scaffold:1:) ",
        "stop:1:END",
    ]


def test_the_longest_of_the_stops_at_one_place_is_the_stop():
    boundaries = Boundaries(header="<A>", stops=("E", "END", "N"))
    assert cut("<A>xEND", {"x": (0, CONTENT)}, ["assistant"], boundaries)[-1] == "stop:0:END"


def test_stretches_of_one_author_that_touch_are_one():
    assert cut("abc", {"ab": (0, CONTENT), "c": (0, CONTENT)}, ["user"]) == ["content:0:abc"]


def test_text_that_nobody_wrote_is_the_templates():
    assert cut("abc", {}, ["user"]) == ["template:-1:abc"]
    assert cut("", {}, []) == []
