"""The names of all shapes, as a config may give them; a test holds them to the table of shapes."""

from typing import Literal

ShapeName = Literal[
    "auto",
    "r1_distill",
    "coig_rounds",
    "natural_instructions",
    "instances",
    "coig_exam",
    "coig_translated",
    "unified_skg",
    "p3",
    "messages",
    "sharegpt",
    "alpaca",
    "dolly",
    "prompt_completion",
    "prompt_response",
    "query_response",
    "question_response",
    "question_answer",
    "q_a",
    "problem_solution",
    "inputs_targets",
    "input_output",
    "input_target",
    "source_target",
    "columns",
    "flan_cot",
    "only_asked",
]
