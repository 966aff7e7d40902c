"""One turn of a record becomes one message: everything it says is kept, and what contradicts itself is refused."""

from collections.abc import Mapping
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.calls import call_texts, calls_text
from stages.ingest.decode import LineError
from stages.ingest.line import Line, Path, where
from stages.ingest.messages import (
    ROLES,
    Message,
    agreed,
    bad_shape,
    optional_text,
    refuse_media,
    refuse_unknown,
    role,
    text,
)

MAX_WEIGHT: Final = 1e6
"""Largest loss weight: beyond any use, and far from where float32 sums lose count."""
_KNOWN: Final = frozenset(
    (
        "role",
        "from",
        "content",
        "value",
        "reasoning_content",
        "reasoning",
        "thinking",
        "tool_calls",
        "function_call",
        "tool_call_id",
        "name",
        "weight",
        "loss_weight",
        "train",
    )
)
_FLAGS: Final = ("loss", "loss_mask", "mask", "masked", "supervised", "trainable", "trained", "training", "weights")
"""Keys by which others say whether a message is trained; some mean the opposite of others, so none is guessed at."""
_THOUGHTS: Final = ("reasoning_content", "reasoning", "thinking")
_FIRST: Final = _KNOWN | {"tools"}
"""Keys of a record's first turn: some data sets keep the tools on it."""
_CALL: Final = "function_call"
_CALLS: Final = frozenset((_CALL, "tool_call"))
"""Names of speakers whose turn is a call."""
_PARTS: Final = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "reasoning": "reasoning",
    "thinking": "reasoning",
    "tool_call": "tool_call",
}
"""Types of parts, and what they are read as."""


def turns(value: list[Any], path: Path, line: Line) -> list[Message]:
    """Return the messages of a list of turns; raises LineError as `message` does."""
    return [message(turn, (*path, i), line) for i, turn in enumerate(value)]


def side(value: Any, path: Path, line: Line, speaker: str) -> list[Message]:
    """Return what one side says: a text by `speaker`, a turn, or a list of turns. Raises LineError for anything else."""
    if isinstance(value, list):
        return turns(value, path, line)
    if isinstance(value, dict):
        return [message(value, path, line)]
    return [Message(speaker, text(value, where(path)))]


def message(turn: Any, path: Path, line: Line) -> Message:
    """Return the message that `turn` says; raises LineError when there is none, or more than one."""
    if not isinstance(turn, dict):
        raise bad_shape(where(path), "an object with role and content", turn)
    known = roles_of(line)
    if len(turn) == 2:  # a speaker and a text: nearly every message
        name, said = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if type(said) is str and type(name) is str and name in known:
            return Message(known[name], said)
    at = where(path)
    speaker, is_call = _speaker(turn, at, known)
    weight = loss_weight(turn, at)
    refuse_media(turn, at)
    refuse_unknown(turn, _FIRST if _is_first(path, speaker) else _KNOWN, at)
    key = agreed({key: turn.get(key) for key in ("content", "value")}, at) or "content"
    content, thought, calls = turn.get(key), None, list[str]()
    if is_call:
        calls, content = call_texts(content, (*path, key), line), None
    elif isinstance(content, list):
        content, thought, calls = _parts(content, (*path, key), line)
    elif content is not None:  # null is right beside tool calls, and an empty message elsewhere; never the text "None"
        content = text(content, f"{at}.{key}")
    thoughts = {name: optional_text(turn, name, f"{at}.") or None for name in _THOUGHTS if name in turn}
    if thought:
        thoughts["a reasoning part"] = thought
    called = {
        "tool_calls": calls_text(turn.get("tool_calls"), (*path, "tool_calls"), line),
        _CALL: _list(call_texts(turn.get(_CALL), (*path, _CALL), line)),
        f"the calls in {key}": _list(calls),
    }
    reasoning, tool_calls = agreed(thoughts, at), agreed(called, at)
    return Message(
        speaker,
        None if tool_calls and content == "" else content,  # templates ask whether content is none beside calls
        thoughts[reasoning] if reasoning else None,
        called[tool_calls] if tool_calls else None,
        optional_text(turn, "tool_call_id", f"{at}."),
        optional_text(turn, "name", f"{at}."),
        weight,
    )


def _is_first(path: Path, speaker: str) -> bool:
    """Tell whether a turn is the first of its conversation; what was chosen may be the whole of it, or the answer alone."""
    is_answer = path[0] == "completion" or (path[0] == "chosen" and speaker == "assistant")
    return path[-1] == 0 and len(path) <= 2 and not is_answer


def roles_of(line: Line) -> Mapping[str, str]:
    """Return the names of speakers that `line` may use: the known ones, and those of its mapping before them."""
    mapping = line.mapping
    return ROLES if mapping is None or not mapping.roles else {**ROLES, **mapping.roles}


def _speaker(turn: dict[str, Any], at: str, known: Mapping[str, str]) -> tuple[str, bool]:
    """Return (the role, whether the turn itself is a call)."""
    names = {key: turn[key] for key in ("role", "from") if turn.get(key) is not None}
    calls = {key for key, name in names.items() if isinstance(name, str) and name.strip().lower() in _CALLS}
    roles = {key: "assistant" if key in calls else role(name, f"{at}.{key}", known) for key, name in names.items()}
    key = agreed(roles, at)
    if key is None:
        keys = ", ".join(sorted(turn)[:12]) or "none"
        raise bad_shape(f"{at}.role", f"the name of a role (keys: {keys}; [ingest.mapping] role names another)", None)
    return roles[key], bool(calls)


def _parts(parts: list[Any], path: Path, line: Line) -> tuple[str | None, str | None, list[str]]:
    """Return (content, reasoning, texts of tool calls) of a content that is a list of typed parts.

    Raises LineError, with the part's place, for one that is not text, reasoning or a tool call (an image, say): leaving it
    out would change what the message says.
    """
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[str] = []
    for i, part in enumerate(parts):
        at = where((*path, i))
        if isinstance(part, str):
            content.append(part)
            continue
        if not isinstance(part, dict):
            raise bad_shape(at, "a part", part)
        kind = part.get("type")
        if type(kind) is not str:
            raise bad_shape(f"{at}.type", "text, reasoning or tool_call", kind)
        read_as = _PARTS.get(kind)
        if read_as is None:
            raise LineError(DropReason.UNSUPPORTED_PART, f"{at}: a part of type {kind!r}; only text can be trained on")
        names = ("value", "text", "content", kind)
        refuse_unknown(part, frozenset(("type", *names)), at)
        key = agreed({name: part.get(name) for name in names}, at) or kind
        value = part.get(key)
        if read_as == "tool_call":
            found = call_texts(value, (*path, i, key), line)
            if not found:
                raise bad_shape(at, "a call with a name", value)
            calls.extend(found)
        else:
            (content if read_as == "text" else reasoning).append(text(value, f"{at}.{key}"))
    return "".join(content) if content else None, "".join(reasoning) if reasoning else None, calls


def _list(calls: list[str]) -> str | None:
    return f"[{', '.join(calls)}]" if calls else None


def loss_weight(turn: dict[str, Any], at: str) -> float | None:
    """Return the loss weight: weight and loss_weight are the same, and train says whether it is above 0.

    Raises LineError for one out of bounds, and for other flags that might say the same or the opposite.
    """
    if flags := [key for key in _FLAGS if turn.get(key) is not None]:
        expected = "train (true or false) or weight (a number) to say whether it is trained"
        raise bad_shape(f"{at}.{flags[0]}", expected, turn[flags[0]])
    weights: dict[str, float] = {}
    for key in ("weight", "loss_weight"):
        value = turn.get(key)
        if value is not None:
            if type(value) not in (int, float) or not 0 <= value <= MAX_WEIGHT:
                raise bad_shape(f"{at}.{key}", f"a number from 0 to {MAX_WEIGHT:.0f}", value)
            weights[key] = float(value)
    stated = agreed(weights, at)
    train = turn.get("train")
    if train is None:
        return weights[stated] if stated else None
    if type(train) is not bool:
        raise bad_shape(f"{at}.train", "true or false", train)
    if stated is None:
        return float(train)
    agreed({stated: weights[stated] > 0, "train": train}, at)
    return weights[stated]
