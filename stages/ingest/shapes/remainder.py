"""Records of no other shape: columns without names, and questions that nothing answers."""

from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape, text
from stages.ingest.shapes.pairs import FLAT
from stages.ingest.shapes.shape import Draft, Shape, keys_of

_FIRST, _SECOND, _THIRD, _FOURTH = (f"column_{i}" for i in range(1, 5))
_ANSWERS: Final = {asked: [a for p in FLAT if p.asked == asked for a in p.answers] for asked in (p.asked for p in FLAT)}
"""Keys of questions, and of what may answer them."""


def _has_columns(record: Any) -> bool:
    return isinstance(record, dict) and _FIRST in record


def _columns(record: Any, _: Line) -> list[Draft]:
    if not _has_columns(record) or _SECOND not in record or _THIRD in record:
        n = sum(key.startswith("column_") for key in record) if isinstance(record, dict) else 0
        raise LineError(
            DropReason.BAD_SHAPE,
            f"{n} columns without names: only of two is it plain that they ask and answer; say what is what, e.g."
            f' mapping = {{user = "{_FIRST}", assistant = "{_SECOND}", reasoning = "{_THIRD}"}}',
        )
    return [_asked(record, _SECOND)]


def _is_flan_cot(_: Any) -> bool:
    return False


def _flan_cot(record: Any, _: Line) -> list[Draft]:
    if not isinstance(record, dict) or _THIRD not in record or _FOURTH in record:
        raise bad_shape("record", "three columns: question, answer, chain of thought", keys_of(record))
    draft = _asked(record, _SECOND)
    thought = text(record[_THIRD], _THIRD)
    return [draft._replace(messages=[draft.messages[0], draft.messages[1]._replace(reasoning=thought or None)])]


def _asked(record: dict[str, Any], answer: str) -> Draft:
    if record.get(answer) is None:
        raise LineError(DropReason.NO_ANSWER, f"{answer}: null or absent, so nothing is answered")
    return Draft([Message("user", text(record[_FIRST], _FIRST)), Message("assistant", text(record[answer], answer))])


def _is_asked(record: Any) -> bool:
    return isinstance(record, dict) and any(key in record for key in _ANSWERS)


def _only_asked(record: Any, _: Line) -> list[Draft]:
    asked = next((key for key in _ANSWERS if isinstance(record, dict) and key in record), "a question")
    answers = " nor ".join(_ANSWERS.get(asked, ()))
    keys = ", ".join(sorted(record)[:12]) if isinstance(record, dict) else type(record).__name__
    raise LineError(
        DropReason.NO_ANSWER,
        f"{asked} has neither {answers} beside it, so nothing is answered; the record has: {keys}"
        " (mapping says what is what, where the answer has another name)",
    )


REMAINDER: Final = (
    Shape(
        name="columns",
        recognises=_has_columns,
        read=_columns,
        rule="`column_1` and `column_2` and no more: a table of two columns without names",
        example='{"column_1": "1 + 1?", "column_2": "2"}',
        used_by="UnifiedQA",
    ),
    Shape(
        name="flan_cot",
        recognises=_is_flan_cot,
        read=_flan_cot,
        rule="only where the config says so: `column_1` the question, `column_2` the answer, `column_3` the reasoning",
        example='{"column_1": "1 + 1?", "column_2": "2", "column_3": "One more than one."}',
        used_by="chains of thought of Flan 2022 (flan/v2/cot_data)",
    ),
    Shape(
        name="only_asked",
        recognises=_is_asked,
        read=_only_asked,
        rule="a question of the pairs above and no answer: quarantined (`no_answer`)",
        example='{"instruction": "Write a poem."}',
        used_by="seeds of InstructionWild",
    ),
)
"""Tried last."""
