"""A question and its answer side by side: the keys they stand under, and how such a record is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Message, agreed, bad_shape, optional_text, text
from stages.ingest.shapes.shape import Draft, Shape, keys_of
from stages.ingest.turns import message

Record = dict[str, Any]
REASONING: Final = ("reasoning_content", "reasoning", "thinking", "rationale", "chain_of_thought", "cot")
"""Keys of what was thought before the answer."""
HISTORY: Final = "history"
_HISTORY_PAIRS: Final = (("instruction", "output"), ("prompt", "response"), ("question", "answer"), ("q", "a"))
_BESIDE: Final = ("is_correct", "rejected")
"""Keys that are read beside every pair: whether its answer is right, and the answer that was not chosen."""
_WHOLE: Final = "text"
"""Key of the whole conversation as some template wrote it (Alpaca's), and of a passage elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Keys under which a question and its answer stand."""

    name: str
    question: tuple[str, ...]
    """What is asked, in this order; what a record does not have of it is left out, but for `asks`."""
    answers: tuple[str, ...]
    """The answer stands under the first of these that is there; one beside it is left out, and counted."""
    asks: str = ""
    """The part of the question without which there is none; the first, if nothing is said."""
    also: tuple[str, ...] = ()
    """Keys that a record must have besides `asks` and one of `answers`."""
    left_out: tuple[str, ...] = ()
    """Keys that hold the same, or what it was made of."""
    is_whole: bool = False
    """Whether these keys were made of all the others, which therefore say nothing more."""
    is_chat: bool = False
    """Whether each side may also be a message, or a list of messages."""
    tags: tuple[str, ...] = ()
    """Keys of texts that become tags, key:text."""
    used_by: str
    example: str

    @property
    def asked(self) -> str:
        """Return the key that a question must have."""
        return self.asks or self.question[0]

    def fits(self, record: Any) -> bool:
        """Tell whether `record` has the keys; an answer may be null."""
        return (
            isinstance(record, dict)
            and self.asked in record
            and all(key in record for key in self.also)
            and any(key in record for key in self.answers)
        )

    def shape(self) -> Shape:
        """Return the pair as a row of the table of shapes."""
        required = ", ".join(f"`{key}`" for key in (self.asked, *self.also))
        rest = [f"`{key}`" for key in self.question if key != self.asked and key not in self.also]
        rule = f"{required} and {' or '.join(f'`{key}`' for key in self.answers)}"
        if rest:
            rule += f", with or without {', '.join(rest)}"
        return Shape(
            name=self.name,
            recognises=self.fits,
            read=self.read,
            rule=f"{rule}; text, a message, or a list of messages" if self.is_chat else rule,
            example=self.example,
            used_by=self.used_by,
        )

    def read(self, record: Any, line: Line) -> list[Draft]:
        """Return the conversation in `record`. Raises LineError when part of what is said might be lost, or is no text."""
        if not isinstance(record, dict) or self.asked not in record:
            raise bad_shape("record", f"a key {self.asked}", keys_of(record))
        key = next((key for key in self.answers if record.get(key)), None) or next(
            (key for key in self.answers if record.get(key) is not None), None
        )
        if key is None:
            raise LineError(
                DropReason.NO_ANSWER, f"{' and '.join(self.answers)}: null or absent, so nothing is answered"
            )
        if record.get("is_correct") is False:
            raise LineError(DropReason.BAD_SHAPE, f"is_correct is false: {key} is one of the wrong answers")
        self._refuse_unread(record, key)
        reasoning = None if self.is_whole else _reasoning(record)
        answer = list(
            _side(record, key, "assistant", line) if self.is_chat else [Message("assistant", text(record[key], key))]
        )
        if reasoning is not None:
            if len(answer) != 1 or answer[0].reasoning not in (None, reasoning):
                raise bad_shape("record", f"the reasoning beside {key}, or in it", reasoning)
            answer = [answer[0]._replace(reasoning=reasoning)]
        question = list(
            _side(record, self.asked, "user", line) if self._is_chat(record) else [self._question(record, line)]
        )
        n_others = sum(bool(record.get(other)) for other in self.answers if other != key)
        return [
            Draft(
                [*history(record), *question, *answer],
                self.asked if self.is_chat else None,
                line.verbatim("rejected") if record.get("rejected") else None,
                read=frozenset(("source",)) if "source" in self.question else frozenset(),
                tags=tuple(
                    f"{tag}:{record[tag]}" for tag in self.tags if isinstance(record.get(tag), str) and record[tag]
                ),
                repairs=(f"other_answers:{n_others}",) if n_others else (),
            )
        ]

    def _is_chat(self, record: Record) -> bool:
        return self.is_chat and isinstance(record[self.asked], list | dict)

    def _question(self, record: Record, line: Line) -> Message:
        asked = text(record[self.asked], self.asked)
        parts = (asked if key == self.asked else optional_text(record, key) for key in self.question)
        return Message("user", line.input_border.join(part for part in parts if part))

    def _refuse_unread(self, record: Record, answer: str) -> None:
        if self.is_whole:
            return
        own = (*self.question, *self.answers, *self.left_out, *_BESIDE)
        unread = [key for key in _unread(record, own) if not self._says_the_same(record, key, answer)]
        if not unread:
            return
        read = [key for key in self.question if record.get(key)]
        raise LineError(
            DropReason.BAD_SHAPE,
            f"{', '.join(unread)} beside {', '.join((*read, answer))} may hold part of what is said, and would be lost;"
            f' say what is what, e.g. mapping = {{user = ["{self.asked}", "{unread[0]}"], assistant = "{answer}"}}',
        )

    def _says_the_same(self, record: Record, key: str, answer: str) -> bool:
        value = record[key]
        if key == _WHOLE and isinstance(value, str):
            return all(
                record[part].strip() in value for part in (*self.question, answer) if isinstance(record.get(part), str)
            )
        return any(value == record.get(read) for read in (*self.question, answer))


SPEAKING: Final = frozenset(
    (
        *("answer", "answers", "article", "background", "choices", "chosen", "completion", "completions", "context"),
        *("dialog", "dialogue", "document", "explanation", "input", "inputs", "instances", "instruction", "options"),
        *(
            "output",
            "outputs",
            "passage",
            "problem",
            "prompt",
            "query",
            "question",
            "response",
            "responses",
            "solution",
        ),
        *("reannotated_assistant_content", "struct_in", "target", "targets", "text_in", _WHOLE),
        *_BESIDE,
    )
)
"""Keys that hold part of what is said in one published data set or another; a record has none of them unread."""


def _unread(record: Record, own: tuple[str, ...]) -> Iterator[str]:
    for key in sorted(record.keys() & SPEAKING):
        if key not in own and record[key] not in (None, "", [], {}):
            yield key


def _reasoning(record: Record) -> str | None:
    thoughts: dict[str, str | None] = {key: optional_text(record, key) or None for key in REASONING if key in record}
    key = agreed(thoughts, "record")
    return thoughts[key] if key else None


def history(record: Record) -> Iterator[Message]:
    """Yield the turns before the question: pairs in a list, each a list of two texts or an object."""
    history = record.get(HISTORY) or []
    if not isinstance(history, list):
        raise bad_shape(HISTORY, "a list of pairs", history)
    for i, pair in enumerate(history):
        at = f"{HISTORY}[{i}]"
        keys: tuple[int, int] | tuple[str, str] | None = None
        if isinstance(pair, list) and len(pair) == 2:
            keys = (0, 1)
        elif isinstance(pair, dict):
            keys = next((keys for keys in _HISTORY_PAIRS if pair.keys() == set(keys)), None)
        if keys is None:
            raise bad_shape(at, "a pair [question, answer]", pair)
        for key, speaker in zip(keys, ("user", "assistant"), strict=True):
            yield Message(speaker, text(pair[key], f"{at}[{key}]" if isinstance(key, int) else f"{at}.{key}"))


def _side(record: Record, key: str, speaker: str, line: Line) -> Iterator[Message]:
    value = record[key]
    if isinstance(value, list):
        yield from (message(turn, (key, i), line) for i, turn in enumerate(value))
    elif isinstance(value, dict):
        yield message(value, (key,), line)
    else:
        yield Message(speaker, text(value, key))
