"""Settings of the mask: a preset, changes to its table, and rules about positions and unfinished turns."""

from typing import Annotated, Final, Literal

import msgspec

Weight = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
RoleName = Literal["system", "user", "assistant", "tool", "*"]
ClassName = Literal[
    "content",
    "reasoning",
    "tool_call",
    "tool_result",
    "stop",
    "scaffold",
    "generation_prompt",
    "tools",
    "template",
    "*",
]
Table = dict[RoleName, dict[ClassName, Weight]]

_OF_NO_ROLE: Final = ("tools", "template")
_SAID: Final = ("content", "tool_result")
_IN_TURN: Final = ("stop", "scaffold", "generation_prompt")


class Mask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tokens are trained; docs/masks.md shows on an example what each preset trains."""

    preset: Literal["full", "last", "none", "partial", "layered"] = "full"
    """full: every turn of the assistant; last: the final one only; none: nothing is masked, every token is trained; partial:
    full, and everything else at prompt_weight; layered: assistant 1, its reasoning 0.5, user 0.1, system and tool 0."""
    prompt_weight: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] | None = None
    """Loss weight of all that is not the assistant's, with preset partial; 0.1 when not set."""
    turns: Literal["all", "first", "last"] | Annotated[int, msgspec.Meta(ge=1)] = "all"
    """Messages of the assistant that are trained, with any preset: all, the first, the last, or the last n."""
    weights: Table = {}
    """Changes to the preset: role, then class, to loss weight, e.g. {user = {content = 0.1}}; "*" stands for any, and the more
    specific wins. Roles are system, user, assistant, tool; classes content, reasoning, tool_call, tool_result, stop, scaffold
    (what the template writes inside a turn), generation_prompt (what it writes to let the assistant speak), tools (tool schemas)
    and template (what it writes around turns), both of no role."""
    without_stop: Literal["refuse", "mask", "drop", "train"] = "refuse"
    """What becomes of a turn that would be trained but does not end on a trained stop token, so that a model would not learn
    to stop. refuse: the build stops; mask: such turns are not trained; drop: nor is the rest of their conversation
    (no_stop); train: they are trained as they are."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, or that no token could ever meet."""
        if self.prompt_weight is not None and self.preset != "partial":
            raise ValueError(
                f'prompt_weight = {self.prompt_weight} does nothing with preset = "{self.preset}"; set preset = "partial", '
                "or drop prompt_weight"
            )
        if self.preset == "last" and self.turns not in ("all", "last"):
            raise ValueError(
                f'preset = "last" trains the last turn only, turns = {self.turns!r} says otherwise; set preset = "full"'
            )
        for role, classes in self.weights.items():
            for name in classes:
                if name in _OF_NO_ROLE and role != "*":
                    raise ValueError(
                        f"weights.{role}.{name} names no token: tool schemas and what the template writes around turns are of "
                        f'no role; write weights = {{"*" = {{{name} = ...}}}}'
                    )
                said = "tool_result" if role == "tool" else "content"
                if name in _SAID and name != said and role != "*":
                    raise ValueError(
                        f"weights.{role}.{name} names no token: what a message of role {role} says is of class {said}; "
                        f"write weights = {{{role} = {{{said} = ...}}}}"
                    )
                if name in _IN_TURN and role not in ("assistant", "*"):
                    raise ValueError(
                        f"weights.{role}.{name} names no token: only turns of the assistant have {name}; "
                        f"write weights = {{assistant = {{{name} = ...}}}}"
                    )
