import json
import tomllib

import msgspec
import pytest

from pipeline.source.settings import SourceSet
from schemas.settings import ConfigError, decode_section
from stages.ingest import Ingest, ingest_lines
from stages.ingest.conversation import adapt_prompt
from stages.ingest.line import Line
from stages.ingest.mapping import Mapping
from stages.ingest.rules import Rules, rules_of, rules_text
from tests.stages.reading import kept, read, refused, said
from tests.stages.rows import records


def test_texts_side_by_side_are_read_from_where_the_mapping_says():
    record = {
        "meta": {"id": 7, "lang": "en"},
        "task": {"text": "Add", "data": "1 2"},
        "reply.best": "3",
        "rules": "Be brief.",
        "thoughts": "hm",
        "importance": 0.5,
        "worse": ["4"],
        "api": [{"type": "function", "function": {"name": "f"}}],
        "topics": ["maths", "sums"],
        "messages": "not read",
    }
    mapping = {
        "user": ["task.text", "task.data"],
        "assistant": "reply.best",
        "join": " ",
        "system": "rules",
        "reasoning": "thoughts",
        "weight": "importance",
        "rejected": "worse",
        "tools": "api",
        "id": "meta.id",
        "tags": ["meta.lang", "topics"],
    }
    row = kept(record, mapping=mapping)
    assert said(row) == [("system", "Be brief."), ("user", "Add 1 2"), ("assistant", "3")]
    assert (row["messages"][2]["reasoning"], row["messages"][2]["weight"]) == ("hm", 0.5)
    assert (row["shape"], row["record_id"], row["rejected"]) == ("mapping", "7", '["4"]')
    assert row["tools"] == '[{"type": "function", "function": {"name": "f"}}]'
    assert row["tags"] == ["meta.lang:en", "topics:maths", "topics:sums"]


def test_turns_are_read_from_where_the_mapping_says():
    record = {
        "data": {
            "dialog": [
                {"who": {"name": "patient"}, "utterance": "It hurts.", "timestamp": 3},
                {"who": {"name": "Doctor"}, "utterance": "Where?", "why": "hm", "importance": 0},
            ]
        }
    }
    mapping = {
        "turns": "data.dialog",
        "role": "who.name",
        "content": "utterance",
        "roles": {"patient": "user", "doctor": "assistant"},
        "reasoning": "why",
        "weight": "importance",
    }
    row = kept(record, mapping=mapping)
    assert said(row) == [("user", "It hurts."), ("assistant", "Where?")]
    assert (row["messages"][1]["reasoning"], row["messages"][1]["weight"]) == ("hm", 0.0)


def test_calls_in_mapped_turns_are_kept_to_the_byte():
    line = (
        b'{"log": [{"by": "user", "text": "q"}, {"by": "assistant", "text": [{"type": "tool_call", "tool_call": '
        b'{"name": "f", "arguments": {"x": 1.50}}}]}, {"by": "tool", "text": "r"},'
        b' {"by": "assistant", "text": null, "tool_calls": [{"function": {"name":  "g"}}]}]}'
    )
    row = kept(line, mapping={"turns": "log", "role": "by", "content": "text"})
    calls = [message["tool_calls"] for message in row["messages"]]
    assert calls == [
        None,
        '[{"type": "function", "function": {"name": "f", "arguments": {"x": 1.50}}}]',
        None,
        '[{"function": {"name":  "g"}}]',
    ]


def test_a_mapping_that_reads_nothing_adds_to_the_shape_of_the_record():
    turns = [{"role": "customer", "content": "q"}, {"role": "assistant", "content": "a"}]
    mapping = {"roles": {"customer": "user"}, "tags": ["task", "level?"], "id": "key"}
    row = kept({"messages": turns, "task": "sums", "key": "k", "id": "other"}, mapping=mapping)
    assert (row["shape"], said(row)) == ("messages", [("user", "q"), ("assistant", "a")])
    assert (row["tags"], row["record_id"]) == (["task:sums"], "k")


def test_roles_may_be_renamed_one_for_the_other():
    turns = [{"role": "assistant", "content": "q"}, {"role": "user", "content": "a"}]
    roles = {"assistant": "user", "user": "assistant"}
    for settings in ({"roles": roles}, {"roles": roles, "turns": "messages"}):
        assert said(kept({"messages": turns}, mapping=settings)) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    ("record", "mapping", "reason", "detail"),
    [
        (
            {"ask": "q", "reply": "a"},
            {"user": "quest", "assistant": "reply"},
            "bad_shape",
            'record: the mapping says user = "quest", and there is none; keys: ask, reply ("quest?" may be absent)',
        ),
        (
            {"ask": "q"},
            {"user": "ask", "assistant": "reply"},
            "bad_shape",
            'record: the mapping says assistant = "reply", and there is none; keys: ask ("reply?" may be absent)',
        ),
        (
            {"log": [{"text": "q"}]},
            {"turns": "log", "role": "who", "content": "text"},
            "bad_shape",
            'log[0]: the mapping says role = "who", and there is none; keys: text ("who?" may be absent)',
        ),
        (
            {"a": {"b": {"d": 1, "c": 2}}},
            {"turns": "a.b.log"},
            "bad_shape",
            'record: the mapping says turns = "a.b.log", and there is none; keys of a.b: c, d ("a.b.log?" may be absent)',
        ),
        (
            {"ask": "q", "all": {"replies": [{"text": "a"}]}},
            {"user": "ask", "assistant": "all.replies.text"},
            "bad_shape",
            'record: the mapping says assistant = "all.replies.text", and there is none; all.replies is a list, and keys lead '
            "through objects only",
        ),
        (
            {"ask": "q", "reply": "a"},
            {"user": "ask", "assistant": "reply.text"},
            "bad_shape",
            'record: the mapping says assistant = "reply.text", and there is none; reply is no object, and keys lead through',
        ),
        ({"ask": "q", "reply": None}, {"user": "ask", "assistant": "reply"}, "no_answer", "reply: null or absent"),
        ({"ask": "q"}, {"user": "ask", "assistant": "reply?"}, "no_answer", "reply?: null or absent"),
        ({"ask": None, "reply": "a"}, {"user": "ask", "assistant": "reply"}, "bad_shape", "ask: expected text, got None"),
        ({"ask": ["q", 3], "reply": "a"}, {"user": "ask", "assistant": "reply"}, "bad_shape", "ask[1]: expected text"),
        ({"ask": "q", "reply": ["a"]}, {"user": "ask", "assistant": "reply"}, "bad_shape", "reply: expected text; of several"),
        ({"ask": True, "reply": "a"}, {"user": "ask", "assistant": "reply"}, "bad_shape", "ask: expected text"),
        ({"log": "x"}, {"turns": "log"}, "bad_shape", "log: expected a list of turns"),
        ({"log": None}, {"turns": "log"}, "no_answer", "log: null"),
        ({"log": ["x"]}, {"turns": "log"}, "bad_shape", "log[0]: expected an object with role and content"),
        ([1], {"turns": "log"}, "bad_shape", "record: expected a JSON object"),
        (
            {"log": [{"role": "user", "text": "q", "content": "p"}]},
            {"turns": "log", "content": "text"},
            "bad_shape",
            "log[0].content: expected the same",
        ),
        (
            {"log": [{"role": "user", "text": "q", "extra": "p"}]},
            {"turns": "log", "content": "text"},
            "bad_shape",
            "log[0]: 'extra' is not read",
        ),
        ({"ask": "q", "reply": "a"}, {"user": "ask", "assistant": "reply", "weight": "ask"}, "bad_shape", "ask: expected a"),
        ({"ask": "q", "reply": "a", "t": {}}, {"user": "ask", "assistant": "reply", "tags": ["t"]}, "bad_shape", "t: expected"),
    ],
)  # fmt: skip
def test_what_the_mapping_does_not_find_is_named(record, mapping, reason, detail):
    found = refused(record, mapping=mapping)
    assert found[0] == reason
    assert found[1].startswith(detail)


def test_numbers_are_said_as_they_are_written():
    row = kept(b'{"ask": "1.5 + 0?", "reply": 1.50}', mapping={"user": "ask", "assistant": "reply"})
    assert said(row) == [("user", "1.5 + 0?"), ("assistant", "1.50")]


def test_what_is_asked_may_be_a_list_of_texts():
    record = {"question": "Which?", "choices": ["(A) x", "(B) y"], "answer": "B"}
    row = kept(record, mapping={"user": ["question", "choices"], "assistant": "answer"})
    assert said(row) == [("user", "Which?\n(A) x\n(B) y"), ("assistant", "B")]


def test_a_key_may_be_absent_where_the_mapping_says_so():
    mapping = {"user": ["ask", "context?"], "assistant": "reply"}
    assert said(kept({"ask": "q", "reply": "a"}, mapping=mapping))[0] == ("user", "q")
    assert said(kept({"ask": "q", "context": "c", "reply": "a"}, mapping=mapping))[0] == ("user", "q\nc")


def test_system_and_source_are_texts_where_the_mapping_says_so():
    record = {"system": "q", "source": "a", "tags": ["t"]}
    row = kept(record, mapping={"user": "system", "assistant": "source"})
    assert (said(row), row["tags"]) == ([("user", "q"), ("assistant", "a")], ["t"])


def test_a_key_with_the_very_dots_in_its_name_comes_first():
    mapping = {"user": "a.b", "assistant": "c"}
    assert said(kept({"a": {"b": "no"}, "a.b": "q", "c": "x"}, mapping=mapping))[0] == ("user", "q")
    assert said(kept({"a.b": {"c.d": "q"}, "c": "x"}, mapping={**mapping, "user": "a.b.c.d"}))[0] == ("user", "q")


def test_the_policies_hold_for_mapped_records():
    turns = [{"role": "user", "text": "q"}, {"role": "assistant", "text": "a"}, {"role": "user", "text": "more"}]
    row = kept({"log": turns}, mapping={"turns": "log", "content": "text"})
    assert (said(row), row["repairs"]) == ([("user", "q"), ("assistant", "a")], ["trailing:1"])


def test_a_prompt_is_read_by_the_mapping_where_it_has_its_keys():
    mapping = Mapping(user=("task.text", "data?"), assistant="reply", system="rules?")

    def prompt(record):
        line = Line(json.dumps(record).encode(), 64, mapping)
        return [(message.role, message.content) for message in adapt_prompt(line, "auto").messages]

    assert prompt({"task": {"text": "q"}}) == [("user", "q")]
    assert prompt({"task": {"text": "q"}, "data": "d", "reply": None}) == [("user", "q\nd")]
    assert prompt({"task": {"text": "q"}, "reply": "a", "rules": "r"}) == [
        ("system", "r"),
        ("user", "q"),
        ("assistant", "a"),
    ]
    assert prompt({"messages": [{"role": "user", "content": "q"}]}) == [("user", "q")]


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('turns = "t"\nuser = "u"\nassistant = "a"', "the mapping names turns and also user or assistant"),
        ('user = "u"', "the mapping names user and no assistant"),
        ('assistant = "u"', "the mapping names assistant and no user"),
        ('user = []\nassistant = "a"', "no key at all"),
        ('turns = "a..b"', "turns = 'a..b': expected the name of a key, or names joined by dots, e.g. \"meta.lang\""),
        ('tags = [""]', "tags = '': expected the name of a key"),
        ('[mapping.roles]\nboss = "chief"', "roles.boss = 'chief': expected one of system, user, assistant, tool"),
        ('reasoning = "r"', "need turns, or user and assistant"),
        ("user = 3", "user"),
        ('usr = "u"', "user"),
    ],
)
def test_a_mapping_that_says_two_things_or_nothing_is_refused_with_the_config(toml, problem):
    with pytest.raises(ConfigError) as error:
        decode_section({"ingest": tomllib.loads(f"[mapping]\n{toml}")}, "ingest", Ingest, where="c.toml")
    assert problem in str(error.value)
    assert str(error.value).startswith("c.toml: [ingest] mapping")


def test_a_mapping_travels_with_the_rows_of_its_set():
    mapping = Mapping(user=("a", "b"), assistant="c", roles={"x": "user"}, tags=("t",))
    assert rules_of(rules_text(Rules(mapping=mapping))).mapping == mapping
    assert msgspec.convert(msgspec.to_builtins(mapping), Mapping) == mapping


def test_the_shape_of_a_set_goes_before_the_mapping_of_all():
    own, every = Mapping(user="a", assistant="b"), Mapping(user="c", assistant="d")
    line = json.dumps({"a": "1", "b": "2", "c": "3", "d": "4", "instruction": "5", "output": "6"}).encode()

    def asked(rules):
        frame = records(line, rules=rules_text(rules))
        return ingest_lines(frame, Ingest(mapping=every)).row(0, named=True)["messages"][0]["content"]

    assert asked(Rules()) == "3"
    assert asked(Rules(mapping=own)) == "1"
    assert asked(Rules(shape="alpaca")) == "5"
    assert asked(Rules(shape="auto")) == "5"


def test_a_shape_and_a_mapping_that_reads_exclude_each_other():
    mapping = Mapping(user="a", assistant="b")
    for kind, other in ((Ingest, {}), (SourceSet, {"inputs": ("x",)})):
        with pytest.raises(ValueError, match="both say how records are read"):
            kind(shape="alpaca", mapping=mapping, **other)
        kind(shape="alpaca", mapping=Mapping(tags=("t",)), **other)
        kind(shape="auto", mapping=mapping, **other)


def test_no_row_is_read_twice():
    assert len(read({"ask": "q", "reply": "a", "messages": []}, mapping={"user": "ask", "assistant": "reply"})) == 1


@pytest.mark.parametrize("setting", ["system", "id", "tools", "tags"])
@pytest.mark.parametrize(
    "record",
    [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], [{"message": "a"}, {"message": "b"}]],
)
def test_a_record_that_is_a_list_has_not_the_keys_that_a_mapping_adds(record, setting):
    def named(key):
        return {setting: [key] if setting == "tags" else key}

    assert said(kept(record, mapping=named("x?"))) == [("user", "a"), ("assistant", "b")]
    reason, detail = refused(record, mapping=named("x"))
    assert reason == "bad_shape"
    assert detail.startswith(f'record: the mapping says {setting} = "x", and there is none; keys: (none)')
