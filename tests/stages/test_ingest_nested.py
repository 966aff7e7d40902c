import pytest

from tests.stages.reading import kept, read, refused, said

TASK = {
    "Contributors": ["A. Author"],
    "Source": ["cosmosqa"],
    "Categories": ["Question Answering"],
    "Domains": ["Commonsense", "Stories"],
    "Input_language": ["English"],
    "Output_language": ["English"],
    "Definition": ["Answer the question."],
    "Positive Examples": [{"input": "never read", "output": "never read", "explanation": "x"}],
    "Negative Examples": [],
    "Instances": [
        {"id": "task024-a", "input": "Why?", "output": ["Because.", "Since.", "For."]},
        {"id": "task024-b", "input": "-", "output": ["So."]},
    ],
}


def test_each_instance_of_a_task_file_is_a_conversation():
    rows = read(TASK)
    assert [(row["id"], row["record_id"], row["shape"]) for row in rows] == [
        ("f.jsonl:1.1", "task024-a", "natural_instructions"),
        ("f.jsonl:1.2", "task024-b", "natural_instructions"),
    ]
    assert [said(row) for row in rows] == [
        [("user", "Answer the question.\nWhy?"), ("assistant", "Because.")],
        [("user", "Answer the question."), ("assistant", "So.")],
    ]
    assert [row["repairs"] for row in rows] == [["other_answers:2"], []]
    assert rows[0]["tags"] == [
        "category:Question Answering",
        "domain:Commonsense",
        "domain:Stories",
        "source:cosmosqa",
        "language:English",
    ]


def test_the_definition_of_the_first_version_has_parts():
    rows = read(
        {
            "Title": "-",
            "Prompt": "Write it.",
            "Definition": "Ask a question.",
            "Things to Avoid": "Do not repeat the text.",
            "Emphasis & Caution": "-",
            "Examples": {"Positive Examples": [], "Negative Examples": "-"},
            "Instances": [{"input": "The text.", "output": ["What?"]}],
        },
        input_border="\n\n",
    )
    assert [said(row) for row in rows] == [
        [
            (
                "user",
                "Ask a question.\n\nThings to Avoid: Do not repeat the text.\n\nPrompt: Write it.\n\nThe text.",
            ),
            ("assistant", "What?"),
        ]
    ]


@pytest.mark.parametrize(
    ("instance", "reason", "detail"),
    [
        ({"input": "x", "output": []}, "no_answer", "Instances[1].output"),
        ({"input": "x"}, "no_answer", "Instances[1].output"),
        ({"input": "x", "output": [3]}, "bad_shape", "Instances[1].output[0]: expected text, got 3"),
        ({"input": None, "output": [""]}, "empty_message", "message 1"),
        ({"input": 3, "output": ["a"]}, "bad_shape", "Instances[1].input: expected text, got 3"),
        ("x", "bad_shape", "Instances[1]: expected an object"),
    ],
)
def test_a_bad_instance_is_quarantined_alone(instance, reason, detail):
    good = TASK["Instances"][0]
    rows = read({**TASK, "Instances": [good, instance, good]})
    assert [row["drop_reason"] for row in rows] == [None, reason, None]
    assert rows[1]["detail"].startswith(detail)
    assert [row["id"] for row in rows] == ["f.jsonl:1.1", "f.jsonl:1.2", "f.jsonl:1.3"]


def test_a_task_without_instances_or_with_two_definitions_is_refused_as_a_whole():
    assert refused({**TASK, "Instances": []})[0] == "no_answer"
    assert refused({**TASK, "Definition": ["One.", "Another."]}) == (
        "bad_shape",
        "Definition: expected one definition, got ['One.', 'Another.']",
    )


UNNATURAL = {
    "instruction": "You are given {INPUT}. Answer it.",
    "instances": [
        {
            "instruction_with_input": "You are given Why?. Answer it.",
            "input": "Why?",
            "constraints": "None.",
            "output": "Because.",
        },
        {
            "instruction_with_input": "You are given How?. Answer it.",
            "input": "How?",
            "constraints": "One word.",
            "output": "So.",
        },
    ],
    "reformulations": [
        {
            "instruction": "Answer {INPUT}",
            "instruction_with_input": "Answer Why?",
            "input": "Why?",
            "output": "Because.",
        }
    ],
}


def test_instances_and_reformulations_of_an_instruction_are_conversations():
    assert [said(row) for row in read(UNNATURAL)] == [
        [("user", "You are given Why?. Answer it."), ("assistant", "Because.")],
        [("user", "You are given How?. Answer it.\nOne word."), ("assistant", "So.")],
        [("user", "Answer Why?"), ("assistant", "Because.")],
    ]
    assert len(read({**UNNATURAL, "reformulations": None})) == 2


def test_a_seed_task_joins_its_instruction_and_the_input_of_each_instance():
    record = {
        "id": "seed_task_3",
        "name": "short",
        "instruction": "Shorten it.",
        "instances": [{"input": "A long text.", "output": "Text."}, {"input": "", "output": "What?"}],
        "is_classification": False,
    }
    rows = read(record)
    assert [(row["id"], row["record_id"]) for row in rows] == [
        ("f.jsonl:1.1", "seed_task_3"),
        ("f.jsonl:1.2", "seed_task_3"),
    ]
    assert [said(row)[0][1] for row in rows] == ["Shorten it.\nA long text.", "Shorten it."]


def test_one_instance_is_one_row_without_a_number():
    record = {"instruction": "q", "instances": [{"input": "", "output": "a"}]}
    assert (kept(record)["id"], said(kept(record))) == ("f.jsonl:1", [("user", "q"), ("assistant", "a")])


def test_a_bad_instance_of_an_instruction_costs_no_other():
    instances = [{"input": "x", "output": "a"}, {"input": "y"}, 3, {"input": "z", "output": "b", "constraints": 1}]
    rows = read({"instruction": "q", "instances": instances})
    assert [(row["drop_reason"], (row["detail"] or "").split(":")[0]) for row in rows] == [
        (None, ""),
        ("no_answer", "instances[1].output"),
        ("bad_shape", "instances[2]"),
        ("bad_shape", "instances[3].constraints"),
    ]


@pytest.mark.parametrize("wrap", ["task", "instances", "tree"])
def test_a_record_that_repeats_itself_beyond_measure_is_refused_and_an_ordinary_one_is_not(wrap):
    def record(size, n):
        said = "d" * size
        if wrap == "task":
            return {"Definition": said, "Instances": [{"input": str(i), "output": "b"} for i in range(n)]}
        if wrap == "instances":
            return {"instruction": said, "instances": [{"input": str(i), "output": "b"} for i in range(n)]}
        replies = [{"text": str(i), "role": "assistant"} for i in range(n)]
        return {"prompt": {"text": said, "role": "prompter", "replies": replies}}

    assert len(read(record(1_000, 2_000))) == 2_000
    reason, detail = refused(record(100_000, 100_000))  # ten gigabytes
    assert (reason, "64 times as long as the record" in detail) == ("bad_shape", True)
