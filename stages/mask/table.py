"""The one table behind every preset: a weight for each role and class."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.spans import SpanClass
from stages.mask.settings import Mask, Table

ROLES: Final = ("system", "user", "assistant", "tool", "")
"""Roles in the order of the table's rows; the last is that of text of no message."""
CLASSES: Final = tuple(map(str, SpanClass))
"""Classes in the order of the table's columns."""
ASSISTANT: Final = ROLES.index("assistant")
STOP: Final = CLASSES.index(SpanClass.STOP)
GENERATION_PROMPT: Final = CLASSES.index(SpanClass.GENERATION_PROMPT)
PROMPT_WEIGHT: Final = 0.1
EVERY_TURN: Final = 1 << 30

_TURN: Final[Table] = {
    "assistant": {"content": 1.0, "reasoning": 1.0, "tool_call": 1.0, "scaffold": 1.0, "stop": 1.0},
}
PRESETS: Final[dict[str, Table]] = {
    "full": _TURN,
    "last": _TURN,
    "none": {"*": {"*": 1.0}},
    "partial": {"*": {"*": PROMPT_WEIGHT}, **_TURN},
    "layered": {"user": {"content": 0.1}, "assistant": _TURN["assistant"] | {"reasoning": 0.5}},
}
"""Role, then class, to weight; "*" stands for any, and what is not named has weight 0."""


def weight_table(config: Mask) -> NDArray[np.float32]:
    """Return the weight of each role (rows) and class (columns): the preset's, then the changes to it.

    Within each of the two the more specific entry wins, and a role counts as more specific than a class.
    """
    preset = PRESETS[config.preset]
    if config.prompt_weight is not None:
        preset = preset | {"*": {"*": config.prompt_weight}}
    weights = np.zeros((len(ROLES), len(CLASSES)), np.float32)
    for table in (preset, config.weights):
        entries = [(role, name, weight) for role, classes in table.items() for name, weight in classes.items()]
        for role, name, weight in sorted(entries, key=lambda entry: (entry[0] != "*", entry[1] != "*")):
            rows = slice(None) if role == "*" else ROLES.index(role)
            columns = slice(None) if name == "*" else CLASSES.index(name)
            weights[rows, columns] = weight
    return weights


def due_weights(config: Mask) -> NDArray[np.float32]:
    """Return the weight that each role (rows) and class (columns) is due.

    The gate's own reading of the settings: pair by pair, from the most specific entry down, without `weight_table`.
    """

    def weight(role: str, name: str) -> float:
        places = ((role, name), (role, "*"), ("*", name), ("*", "*"))
        for table in (config.weights, PRESETS[config.preset]):
            for place_role, place_name in places:
                classes: dict[str, float] = {**table.get(place_role, {})}  # type: ignore[call-overload]
                if place_name in classes:
                    is_prompt = place_role == place_name == "*" and table is not config.weights
                    return config.prompt_weight or classes[place_name] if is_prompt else classes[place_name]
        return 0.0

    return np.array([[weight(role, name) for name in CLASSES] for role in ROLES], np.float32)


def kept_turns(config: Mask) -> tuple[int, bool]:
    """Return (how many turns of the assistant are trained, whether they are counted from the end)."""
    if config.preset == "last" or config.turns == "last":
        return 1, True
    if config.turns == "first":
        return 1, False
    return (EVERY_TURN if config.turns == "all" else config.turns), True
