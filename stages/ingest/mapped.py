"""Records read by the mapping of the config."""

from collections.abc import Iterator
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.line import Line, Path, where
from stages.ingest.mapping import OPTIONAL, Mapping
from stages.ingest.messages import Message, bad_shape, text
from stages.ingest.shapes.shape import Draft, Shape
from stages.ingest.turns import MAX_WEIGHT, message

Record = dict[str, Any]


def find(record: Any, key: str) -> tuple[Any, Path] | None:
    """Return (what stands under the dotted `key`, its path), or None; a key that has the very dots in its name comes first."""
    if not isinstance(record, dict):
        return None
    if key in record:
        return record[key], (key,)
    first, dot, rest = key.partition(".")
    while dot:
        found = find(record.get(first), rest)
        if found is not None:
            return found[0], (first, *found[1])
        more, dot, rest = rest.partition(".")
        first = f"{first}.{more}"
    return None


def _mapped(record: Any, line: Line) -> list[Draft]:
    mapping = line.mapping
    assert mapping is not None
    if not isinstance(record, dict):
        raise bad_shape("record", "a JSON object, as the mapping reads", record)
    if mapping.turns is None:
        draft = Draft(_sides(record, mapping, line), read=_read_by(mapping))
    else:
        messages, path = _turns(record, mapping, line)
        draft = Draft(messages, path[0] if len(path) == 1 and isinstance(path[0], str) else None)
    if mapping.rejected is not None and (found := _require(record, mapping.rejected, "rejected")) and found[0]:
        draft = draft._replace(rejected=line.verbatim(*found[1]))
    return [draft]


def _sides(record: Record, mapping: Mapping, line: Line) -> list[Message]:
    asked = _said(record, mapping.asked, "user", mapping.join, line)
    if asked is None:
        raise bad_shape(" and ".join(mapping.asked), "text", None)
    answered = _said(record, mapping.answered, "assistant", mapping.join, line)
    if answered is None:
        raise LineError(
            DropReason.NO_ANSWER, f"{' and '.join(mapping.answered)}: null or absent, so nothing is answered"
        )
    thought = _require(record, mapping.reasoning, "reasoning") if mapping.reasoning else None
    weighed = _require(record, mapping.weight, "weight") if mapping.weight else None
    answer = Message(
        "assistant",
        answered,
        text(thought[0], where(thought[1])) or None if thought and thought[0] is not None else None,
        weight=_weight(*weighed) if weighed and weighed[0] is not None else None,
    )
    return [Message("user", asked), answer]


def _said(record: Record, keys: tuple[str, ...], setting: str, border: str, line: Line) -> str | None:
    """Return the texts under `keys` as one, None if all are null; a number is said as it is written.

    What is asked may be a list of texts, choices for example; of several answers, none is the answer.
    """
    parts = []
    for key in keys:
        found = _require(record, key, setting)
        if found is None or found[0] is None:
            continue
        value, path = found
        if setting == "user" and isinstance(value, list):
            parts += [text(one, where((*path, i))) for i, one in enumerate(value)]
            continue
        if isinstance(value, list):
            raise bad_shape(where(path), "text; of several answers none is the answer, so make a record of each", value)
        parts.append(line.verbatim(*path) if type(value) in (int, float) else text(value, where(path)))
    return border.join(part for part in parts if part) if parts else None


def _turns(record: Record, mapping: Mapping, line: Line) -> tuple[list[Message], Path]:
    assert mapping.turns is not None
    found = _require(record, mapping.turns, "turns")
    if found is None or found[0] is None:
        raise LineError(DropReason.NO_ANSWER, f"{mapping.turns}: null or absent, so nothing is said")
    turns, path = found
    if not isinstance(turns, list):
        raise bad_shape(where(path), "a list of turns", turns)
    return [_turn(turn, (*path, i), mapping, line) for i, turn in enumerate(turns)], path


_NAMES: Final = (("role", "role"), ("content", "content"), ("reasoning", "reasoning_content"), ("weight", "weight"))
"""Settings that name keys of turns, and the keys that turns are known to have."""


def _turn(turn: Any, path: Path, mapping: Mapping, line: Line) -> Message:
    if not isinstance(turn, dict):
        raise bad_shape(where(path), f"an object with {mapping.role} and {mapping.content}", turn)
    rest, named = dict(turn), dict[str, Any]()
    for setting, known in _NAMES:
        key = getattr(mapping, setting)
        if key is None or (key == known and setting != "role"):
            continue
        # Beside calls a turn may well have no content, and thoughts and weights stand on some turns only.
        found = (
            _require(turn, key, setting, where(path)) if setting == "role" else find(turn, key.removesuffix(OPTIONAL))
        )
        if found is not None:
            named[known] = found[0]
            line.name((*path, known), (*path, *found[1]))
            rest.pop(str(found[1][0]), None)
    for known, value in named.items():
        if rest.get(known) not in (None, "", value):
            raise bad_shape(
                f"{where(path)}.{known}", "the same as where the mapping says it stands, or nothing", rest[known]
            )
    return message(rest | named, path, line)


def _weight(value: Any, path: Path) -> float:
    if type(value) not in (int, float) or not 0 <= value <= MAX_WEIGHT:
        raise bad_shape(where(path), f"a number from 0 to {MAX_WEIGHT:.0f}", value)
    return float(value)


def _require(record: Any, key: str, setting: str, at: str = "record") -> tuple[Any, Path] | None:
    """Return what stands under `key`, None for an optional key that is absent. Raises LineError for another."""
    found = find(record, key.removesuffix(OPTIONAL))
    if found is None and not key.endswith(OPTIONAL):
        raise LineError(
            DropReason.BAD_SHAPE,
            f'{at}: the mapping says {setting} = "{key}", and there is none; {_there(record, key)} ("{key}?" may be absent)',
        )
    return found


def _there(record: Any, key: str) -> str:
    """Return what there is in place of what `key` leads to, at the place where it leads no further."""
    value, path = record, list[str]()
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            break
        value = value[name]
        path.append(name)
    if path and not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "no object"
        return f"{'.'.join(path)} is {kind}, and keys lead through objects only"
    keys = (", ".join(sorted(value)[:12]) if isinstance(value, dict) else "") or "(none)"
    return f"keys of {'.'.join(path)}: {keys}" if path else f"keys: {keys}"


MAPPED: Final = Shape(
    name="mapping",
    recognises=lambda record: isinstance(record, dict),
    read=_mapped,
    rule="`[ingest.mapping]`, or the mapping of a set, names `turns`, or `user` and `assistant`",
    example='{"ask": "1 + 1?", "reply": "2"}',
)
"""No row of the table: it reads what the config says it reads."""


def prompt_of(line: Line) -> Draft | None:
    """Return what the mapping reads in a prompt, with or without an answer; None if the record has not the keys it names."""
    mapping, record = line.mapping, line.value
    if mapping is None or not mapping.reads:
        return None
    if mapping.turns is not None:
        return _mapped(record, line)[0] if find(record, mapping.turns) is not None else None
    if any(find(record, key) is None for key in mapping.asked if not key.endswith(OPTIONAL)):
        return None
    asked = _said(record, mapping.asked, "user", mapping.join, line)
    answered = None
    if all(find(record, key.removesuffix(OPTIONAL)) is not None for key in mapping.answered):
        answered = _said(record, mapping.answered, "assistant", mapping.join, line)
    answer = [] if answered is None else [Message("assistant", answered)]
    return Draft([Message("user", asked), *answer], read=_read_by(mapping))


def _read_by(mapping: Mapping) -> frozenset[str]:
    return frozenset(key.removesuffix(OPTIONAL).split(".")[0] for key in (*mapping.asked, *mapping.answered))


def tools_at(record: Any, mapping: Mapping | None) -> tuple[Any, Path] | None:
    """Return where the mapping says that the tools stand, None if it does not say."""
    if mapping is None or mapping.tools is None:
        return None
    return _require(record, mapping.tools, "tools")


def system_of(record: Any, mapping: Mapping | None) -> dict[str, Any]:
    """Return what stands under the mapping's key of the system message, by that key."""
    if mapping is None or mapping.system is None:
        return {}
    found = _require(record, mapping.system, "system")
    return {} if found is None or found[0] is None else {mapping.system: text(found[0], where(found[1]))}


def id_of(record: Any, mapping: Mapping | None) -> str | None:
    """Return the id that stands where the mapping says."""
    if mapping is None or mapping.id is None:
        return None
    found = _require(record, mapping.id, "id")
    return str(found[0]) if found is not None and type(found[0]) in (str, int) else None


def tags_of(record: Any, mapping: Mapping | None) -> Iterator[str]:
    """Yield the tags that the mapping asks for; null and empty text give none. Raises LineError for what is no text."""
    for key in mapping.tags if mapping is not None else ():
        found = _require(record, key, "tags")
        value = None if found is None else found[0]
        name = key.removesuffix(OPTIONAL)
        for one in value if isinstance(value, list) else [value]:
            if type(one) in (str, int) and one != "":
                yield f"{name}:{one}"
            elif one not in (None, ""):
                raise bad_shape(key, "text, a whole number, or a list of them, to make tags of", one)
