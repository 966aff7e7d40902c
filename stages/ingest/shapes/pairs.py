"""All pairs of keys that questions and answers are published under, in the order in which they are tried."""

from typing import Any, Final

from stages.ingest.shapes.pair import Pair

OF_ONE_DATA_SET: Final = (
    Pair(
        name="coig_exam",
        question=("textbox_q_instruction", "textbox_q_context", "textbox_question"),
        asks="textbox_question",
        answers=("textbox_answer_analysis", "textbox_answer"),
        tags=("subject",),
        example='{"textbox_q_instruction": "Choose.", "textbox_question": "1 + 1 = ? A. 1 B. 2", "textbox_answer": "B"}',
        used_by="COIG, exams and human values",
    ),
    Pair(
        name="coig_translated",
        question=("trans_instruction", "trans_input"),
        answers=("trans_output",),
        is_whole=True,
        example='{"instruction": "Add", "output": "3", "trans_instruction": "相加", "trans_input": "1, 2", "trans_output": "3"}',
        used_by="COIG, translated instructions",
    ),
    Pair(
        name="unified_skg",
        question=("text_in", "struct_in"),
        answers=("seq_out",),
        also=("struct_in",),
        is_whole=True,
        example='{"text_in": "how many singers?", "struct_in": "singer: id, name", "seq_out": "select count(*) from singer"}',
        used_by="UnifiedSKG",
    ),
    Pair(
        name="p3",
        question=("inputs_pretokenized",),
        answers=("targets_pretokenized",),
        is_whole=True,
        example='{"inputs": [571, 1], "inputs_pretokenized": "True?", "targets": [10747, 1], "targets_pretokenized": "Yes"}',
        used_by="P3 as bigscience/P3 has it",
    ),
)
"""Keys that one published data set has, and that tell it from all others; tried before lists of turns."""

FLAT: Final = (
    Pair(
        name="alpaca",
        question=("instruction", "input"),
        answers=("output",),
        example='{"instruction": "Add", "input": "1 and 2", "output": "3", "history": [["q", "a"]]}',
        used_by="Stanford Alpaca, GPT-4-LLM, Evol-Instruct, InstructionWild, BELLE, LogiCoT, deepctrl-sft",
    ),
    Pair(
        name="dolly",
        question=("instruction", "context"),
        answers=("response",),
        tags=("category",),
        example='{"instruction": "Who?", "context": "Ada wrote it.", "response": "Ada.", "category": "closed_qa"}',
        used_by="Dolly",
    ),
    Pair(
        name="prompt_completion",
        question=("prompt",),
        answers=("completion",),
        is_chat=True,
        example='{"prompt": "Hi", "completion": "Hello!"}',
        used_by="OpenAI, TRL, Self-Instruct",
    ),
    Pair(
        name="prompt_response",
        question=("prompt",),
        answers=("response",),
        is_chat=True,
        example='{"prompt": "Hi", "response": "Hello!"}',
        used_by="GPT4All, ChatGLM",
    ),
    Pair(
        name="query_response",
        question=("query",),
        answers=("response",),
        example='{"query": "1 + 1?", "response": "2"}',
        used_by="MetaMathQA",
    ),
    Pair(
        name="question_response",
        question=("question",),
        answers=("response",),
        example='{"system_prompt": "Be brief.", "question": "1 + 1?", "response": "2"}',
        used_by="OpenOrca",
    ),
    Pair(
        name="question_answer",
        question=("question",),
        answers=("answer",),
        example='{"question": "1 + 1?", "answer": "2"}',
        used_by="GSM8K, Orca-Math, UnifiedQA with a header",
    ),
    Pair(
        name="q_a",
        question=("q",),
        answers=("a",),
        example='{"q": "1 + 1?", "a": "2"}',
        used_by="deepctrl-sft, older",
    ),
    Pair(
        name="problem_solution",
        question=("problem",),
        answers=("solution",),
        example='{"problem": "1 + 1?", "solution": "2"}',
        used_by="MATH, NuminaMath",
    ),
    Pair(
        name="inputs_targets",
        question=("inputs",),
        answers=("targets",),
        example='{"inputs": "1 + 1?", "targets": "2"}',
        used_by="xP3, Flan 2021, Flan 2022, P3",
    ),
    Pair(
        name="input_output",
        question=("input",),
        answers=("output",),
        example='{"input": "1 + 1?", "output": "2", "source": "C4"}',
        used_by="TinyLlama, LongForm, tables of two columns",
    ),
    Pair(
        name="input_target",
        question=("input",),
        answers=("target",),
        tags=("kind",),
        example='{"kind": "Addition", "input": "1 + 1?", "target": "2"}',
        used_by="Firefly",
    ),
    Pair(
        name="source_target",
        question=("source",),
        answers=("target",),
        example='{"source": "Good morning", "target": "Bonjour"}',
        used_by="parallel texts",
    ),
)
"""A question and its answer under names that many data sets share."""
ANSWERS: Final = frozenset(
    (*(key for pair in FLAT for key in pair.answers), "answers", "completions", "outputs", "responses", "targets")
)
"""Keys of answers, in one data set or another."""


def with_room(record: Any) -> Any:
    """Return `record` with an empty answer where it has a question and no answer: so a prompt is a record like any other."""
    if not isinstance(record, dict):
        return record
    pairs = (*OF_ONE_DATA_SET, *FLAT)
    said = {key: value for key, value in record.items() if value is not None}
    if any(pair.fits(said) for pair in pairs):
        return said
    asking = [pair for pair in pairs if all(key in said for key in (pair.asked, *pair.also))]
    if not asking:
        return record
    pair = max(asking, key=lambda pair: sum(key in said for key in pair.question))  # of equals, the first
    return said | {pair.answers[-1]: ""}


PAIRS: Final = tuple(pair.shape() for pair in FLAT)
PAIRS_FIRST: Final = tuple(pair.shape() for pair in OF_ONE_DATA_SET)
