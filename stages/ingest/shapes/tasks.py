"""Records that hold one task and many instances of it: each instance is a conversation."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape, optional_text, text
from stages.ingest.shapes.shape import Draft, Found, Shape, all_of, keys_of

Record = dict[str, Any]
_ABSENT: Final = ("", "-")
"""What Natural Instructions write where there is nothing to say."""
_RULES: Final = ("Things to Avoid", "Emphasis & Caution", "Prompt")
"""Keys of Natural Instructions v1 that add to the definition; they are said with their names, as version 2 does."""
_TAGS: Final = {
    "Categories": "category",
    "Domains": "domain",
    "Source": "source",
    "Input_language": "language",
    "Output_language": "language",
}
_NO_CONSTRAINTS: Final = ("", "none", "none.")


def _is_task_file(record: Any) -> bool:
    return isinstance(record, dict) and "Definition" in record and isinstance(record.get("Instances"), list)


def _task_file(record: Any, line: Line) -> list[Found]:
    if not _is_task_file(record):
        raise bad_shape("record", "Definition and a list Instances", keys_of(record))
    asked = _definition(record)
    tags = tuple(
        f"{tag}:{name}"
        for key, tag in _TAGS.items()
        for name in (record[key] if isinstance(record.get(key), list) else ())
        if isinstance(name, str) and name
    )
    return all_of(_each(record["Instances"], "Instances", lambda one, at: _of_task(one, asked, tags, at, line)), line)


def _definition(record: Record) -> list[str]:
    definition = record["Definition"]
    if isinstance(definition, list):
        if len(definition) != 1:
            raise bad_shape("Definition", "one definition", definition)
        definition = definition[0]
    parts = [text(definition, "Definition")]
    rules = ((key, optional_text(record, key)) for key in _RULES)
    return parts + [f"{key}: {rule}" for key, rule in rules if rule is not None and rule.strip() not in _ABSENT]


def _of_task(instance: Any, asked: list[str], tags: tuple[str, ...], at: str, line: Line) -> Draft:
    given, answers = _member(instance, "input", at), instance.get("output")
    if not isinstance(answers, list):
        answers = [] if answers is None else [answers]
    if not answers:
        raise LineError(DropReason.NO_ANSWER, f"{at}.output: nothing is answered")
    parts = asked if given is None or given.strip() in _ABSENT else [*asked, given]
    return Draft(
        [
            Message("user", line.input_border.join(parts)),
            Message("assistant", text(answers[0], f"{at}.output[0]")),
        ],
        tags=tags,
        record_id=instance["id"] if isinstance(instance.get("id"), str) else None,
        repairs=(f"other_answers:{len(answers) - 1}",) if len(answers) > 1 else (),
    )


def _has_instances(record: Any) -> bool:
    return isinstance(record, dict) and "instruction" in record and isinstance(record.get("instances"), list)


def _instances(record: Any, line: Line) -> list[Found]:
    if not _has_instances(record):
        raise bad_shape("record", "instruction and a list instances", keys_of(record))
    reformulations = record.get("reformulations") or []
    if not isinstance(reformulations, list):
        raise bad_shape("reformulations", "a list", reformulations)
    instruction = text(record["instruction"], "instruction")
    found = (
        one
        for key, rows in (("instances", record["instances"]), ("reformulations", reformulations))
        for one in _each(rows, key, lambda one, at: _of_instruction(one, instruction, at, line))
    )
    return all_of(found, line)


def _of_instruction(instance: Any, instruction: str, at: str, line: Line) -> Draft:
    parts = [_member(instance, "instruction_with_input", at)]
    if parts == [None]:
        parts = [_member(instance, "instruction", at) or instruction, _member(instance, "input", at)]
    constraints = _member(instance, "constraints", at)
    if constraints is not None and constraints.strip().lower() not in _NO_CONSTRAINTS:
        parts.append(constraints)
    if instance.get("output") is None:
        raise LineError(DropReason.NO_ANSWER, f"{at}.output: null or absent, so nothing is answered")
    return Draft(
        [
            Message("user", line.input_border.join(part for part in parts if part)),
            Message("assistant", text(instance["output"], f"{at}.output")),
        ],
        record_id=instance["id"] if isinstance(instance.get("id"), str) else None,
    )


def _each(rows: list[Any], key: str, read: Callable[[Any, str], Draft]) -> Iterator[Found]:
    for i, one in enumerate(rows):
        try:
            yield read(one, f"{key}[{i}]")
        except LineError as error:
            yield error


def _member(instance: Any, key: str, at: str) -> str | None:
    if not isinstance(instance, dict):
        raise bad_shape(at, "an object with input and output", instance)
    return optional_text(instance, key, f"{at}.")


TASKS: Final = (
    Shape(
        name="natural_instructions",
        recognises=_is_task_file,
        read=_task_file,
        rule="`Definition` and a list `Instances`: a conversation for each instance, with the first of its outputs",
        example='{"Definition": ["Add the numbers."], "Categories": ["Mathematics"], "Instances": '
        '[{"id": "task1-a", "input": "1 and 2", "output": ["3", "three"]}, {"id": "task1-b", "input": "2, 2", "output": ["4"]}]}',
        used_by="Super-NaturalInstructions, Natural Instructions v1",
    ),
    Shape(
        name="instances",
        recognises=_has_instances,
        read=_instances,
        rule="`instruction` and a list `instances`: a conversation for each of them, and for each of `reformulations`",
        example='{"instruction": "Add.", "instances": [{"instruction_with_input": "Add. Numbers: 1 and 2", '
        '"input": "1 and 2", "constraints": "One number.", "output": "3"}]}',
        used_by="Unnatural Instructions, seed tasks of Self-Instruct and BELLE",
    ),
)
