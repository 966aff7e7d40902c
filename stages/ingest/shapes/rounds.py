"""Records of single data sets whose turns stand in no common list: rounds of COIG, and what R1 wrote anew."""

import re
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError, decode_text
from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape, text
from stages.ingest.shapes.shape import Draft, Shape, keys_of
from stages.ingest.turns import message

Record = dict[str, Any]
_ROUND: Final = re.compile(r"round_(\d{1,4})\Z")
_ANNOTATED: Final = "reannotated_messages"
_ANSWER: Final = "reannotated_assistant_content"


def _has_rounds(record: Any) -> bool:
    return isinstance(record, dict) and any(_ROUND.match(key) and isinstance(record[key], dict) for key in record)


def _rounds(record: Any, line: Line) -> list[Draft]:
    if not _has_rounds(record):
        raise bad_shape("record", "round_0, round_1, ...", keys_of(record))
    numbered = sorted((int(found[1]), key) for key in record if (found := _ROUND.match(key)))
    messages = []
    for _, key in numbered:
        at = f"{key}.response"
        if not isinstance(record[key], dict):
            raise bad_shape(key, "an object with response", record[key])
        said = decode_text(text(record[key].get("response"), at), at, max_depth=line.max_depth)
        if not isinstance(said, dict):
            raise bad_shape(at, "an object with Q and A", said)
        messages += [
            Message("user", text(said.get("Q"), f"{at}.Q")),
            Message("assistant", text(said.get("A"), f"{at}.A")),
        ]
    return [Draft(messages)]


def _is_r1(record: Any) -> bool:
    return isinstance(record, dict) and (
        isinstance(record.get(_ANNOTATED), list) or ("problem" in record and _ANSWER in record)
    )


def _r1(record: Any, line: Line) -> list[Draft]:
    if not _is_r1(record):
        raise bad_shape(
            "record",
            f"{_ANNOTATED}, or problem and {_ANSWER}",
            keys_of(record),
        )
    turns = record.get(_ANNOTATED)
    if isinstance(turns, list):
        return [Draft([message(turn, (_ANNOTATED, i), line) for i, turn in enumerate(turns)], _ANNOTATED)]
    if record[_ANSWER] is None:
        raise LineError(DropReason.NO_ANSWER, f"{_ANSWER}: null, so nothing is answered")
    return [
        Draft(
            [Message("user", text(record["problem"], "problem")), Message("assistant", text(record[_ANSWER], _ANSWER))]
        )
    ]


ROUNDS: Final = (
    Shape(
        name="r1_distill",
        recognises=_is_r1,
        read=_r1,
        rule="`reannotated_messages`, or `problem` and `reannotated_assistant_content`; `messages` and `solution` are left out",
        example='{"problem": "1 + 1?", "reannotated_assistant_content": "<think>Easy.</think>2", "solution": "2"}',
        used_by="R1-Distill-SFT, v0 and v1",
    ),
    Shape(
        name="coig_rounds",
        recognises=_has_rounds,
        read=_rounds,
        rule="`round_0`, `round_1`, ...: objects whose `response` is JSON text with `Q` and `A`",
        example=r'{"round_0": {"response": "{\"Q\": \"Why?\", \"A\": \"Because.\"}"}}',
        used_by="COIG, counterfactual correction",
    ),
)
