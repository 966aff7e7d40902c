"""Where a turn begins and ends, on texts short enough to count."""

from stages.render.regions import CLASSES, Boundaries, overruns, partition
from stages.render.traced import CONTENT, REASONING, TOOL_CALL, TOOL_RESULT, TOOLS, origin

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


def test_a_name_that_stands_again_behind_its_turn_is_no_messages():
    text = "q<A>f(x)ENDf:r"
    written = [
        (0, 1, origin(0, CONTENT)),
        (4, 5, origin(1, TOOL_CALL)),
        (11, 12, origin(1, TOOL_CALL)),
        (13, 14, origin(2, TOOL_RESULT)),
    ]
    found = partition(text, written, ["user", "assistant", "tool"], CHAT)
    assert [(CLASSES[kind], message, text[start:end]) for start, end, kind, message in found] == [
        ("content", 0, "q"),
        ("generation_prompt", 1, "<A>"),
        ("tool_call", 1, "f"),
        ("scaffold", 1, "(x)"),
        ("stop", 1, "END"),
        ("tool_call", -1, "f"),
        ("template", -1, ":"),
        ("tool_result", 2, "r"),
    ]


def test_a_stop_that_a_user_spells_ends_no_turn():
    written = [(0, 3, origin(0, CONTENT)), (3, 8, origin(1, CONTENT)), (8, 11, origin(0, CONTENT))]
    assert partition("YesnoENDYes", written, ["assistant", "user"], CHAT) == [(0, 3, 0, 0), (3, 8, 0, 1), (8, 11, 0, 0)]


def test_what_a_turn_says_for_the_first_time_behind_its_stop_goes_on_with_it():
    text = "q<A>fENDrg"
    written = [
        (0, 1, origin(0, CONTENT)),
        (4, 5, origin(1, TOOL_CALL)),
        (8, 9, origin(2, TOOL_RESULT)),
        (9, 10, origin(1, CONTENT)),
    ]
    found = partition(text, written, ["user", "assistant", "tool"], CHAT)
    assert [(CLASSES[kind], message) for _, _, kind, message in found][-2:] == [("tool_result", 2), ("content", 1)]


def test_thinking_and_answer_behind_two_prompts_are_one_turn():
    text = "q<A>tEND<A>tEND"
    written = [(0, 1, origin(0, CONTENT)), (4, 5, origin(1, REASONING)), (11, 12, origin(1, CONTENT))]
    found = partition(text, written, ["user", "assistant"], CHAT)
    assert [(CLASSES[kind], message, text[start:end]) for start, end, kind, message in found][1:] == [
        ("generation_prompt", 1, "<A>"),
        ("reasoning", 1, "t"),
        ("scaffold", 1, "END<A>"),
        ("content", 1, "t"),
        ("stop", 1, "END"),
    ]


def test_tool_schemas_are_of_no_message():
    assert partition("ab", [(0, 1, TOOLS), (1, 2, origin(0, CONTENT))], ["user"], CHAT) == [
        (0, 1, CLASSES.index("tools"), -1),
        (1, 2, CLASSES.index("content"), 0),
    ]


def test_what_a_template_writes_on_behind_the_stop_is_of_no_turn():
    """As DeepSeek V3's does, which closes a turn after two calls and goes on with the third."""
    text = "q<A>fENDg"
    written = [(0, 1, origin(0, CONTENT)), (4, 5, origin(1, TOOL_CALL)), (8, 9, origin(1, TOOL_CALL))]
    roles = ["user", "assistant"]
    found = partition(text, written, roles, CHAT)
    assert [(CLASSES[kind], message) for _, _, kind, message in found][2:] == [
        ("tool_call", 1),
        ("stop", 1),
        ("tool_call", -1),
    ]
    assert overruns(text, written, roles, CHAT) == [1]
    assert overruns(text[:-1], written[:-1], roles, CHAT) == []
