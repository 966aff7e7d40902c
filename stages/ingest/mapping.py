"""Records of no known shape: the config names the keys under which their parts stand."""

from collections.abc import Iterator
from typing import Final

import msgspec

CANONICAL: Final = ("system", "user", "assistant", "tool")
OPTIONAL: Final = "?"
"""Ends the name of a key that a record need not have."""


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where in a record its parts stand. Keys are names, joined by dots where they lead through objects, e.g. "meta.lang"; one
    that ends with "?" may be absent. With `turns`, or with `user` and `assistant`, it reads the record in place of the
    shapes; without them it adds to what the record's own shape reads."""

    turns: str | None = None
    """Key of the list of turns."""
    role: str = "role"
    """Key, in a turn, of who speaks."""
    content: str = "content"
    """Key, in a turn, of what is said."""
    roles: dict[str, str] = {}
    """Names of speakers to the roles system, user, assistant and tool, besides those that are known anyway."""
    user: str | tuple[str, ...] | None = None
    """Key of the question, for records without a list of turns; of several, e.g. ["task", "context?"], the texts are
    joined, as are those of a list of texts."""
    assistant: str | tuple[str, ...] | None = None
    """Key of the answer, or several."""
    join: str = "\n"
    """What is put between the texts of several keys."""
    system: str | None = None
    """Key of the system message, besides system and system_prompt."""
    reasoning: str | None = None
    """Key of what was thought before the answer; with `turns`, a key of the turn."""
    weight: str | None = None
    """Key of the answer's loss weight; with `turns`, a key of the turn."""
    rejected: str | None = None
    """Key of an answer that was not chosen; it is kept as JSON text."""
    tools: str | None = None
    """Key of the tool schemas, besides tools and functions."""
    id: str | None = None
    """Key of the record's own id, before those that are known."""
    tags: tuple[str, ...] = ()
    """Keys of texts, or of lists of texts, each of which becomes a tag "key:text", e.g. "task:translation"."""

    @property
    def reads(self) -> bool:
        """Tell whether it reads records in place of the shapes."""
        return self.turns is not None or self.user is not None

    @property
    def asked(self) -> tuple[str, ...]:
        """Return the keys of the question."""
        return several(self.user)

    @property
    def answered(self) -> tuple[str, ...]:
        """Return the keys of the answer."""
        return several(self.assistant)

    def __post_init__(self) -> None:
        """Refuse what says two things, or leads nowhere."""
        if self.turns is not None and (self.user is not None or self.assistant is not None):
            raise ValueError("the mapping names turns and also user or assistant: a record has the one or the others")
        if (self.user is None) != (self.assistant is None):
            named, other = ("user", "assistant") if self.assistant is None else ("assistant", "user")
            raise ValueError(f"the mapping names {named} and no {other}: name the keys of both")
        if self.user == () or self.assistant == ():
            raise ValueError("the mapping names no key at all for user or assistant")
        if not self.reads and (self.reasoning or self.weight or self.rejected):
            raise ValueError(
                "reasoning, weight and rejected of the mapping need turns, or user and assistant, beside them"
            )
        for name, role in self.roles.items():
            if role not in CANONICAL:
                raise ValueError(f"roles.{name} = {role!r}: expected one of {', '.join(CANONICAL)}")
        for setting, key in self._keys():
            if not all(key.removesuffix(OPTIONAL).split(".")):
                raise ValueError(
                    f'{setting} = {key!r}: expected the name of a key, or names joined by dots, e.g. "meta.lang"'
                )

    def _keys(self) -> Iterator[tuple[str, str]]:
        for name in ("turns", "role", "content", "system", "reasoning", "weight", "rejected", "tools", "id"):
            key = getattr(self, name)
            if key is not None:
                yield name, key
        for name, keys in (("user", self.asked), ("assistant", self.answered), ("tags", self.tags)):
            yield from ((name, key) for key in keys)


def refuse_both(shape: str | None, mapping: Mapping | None) -> None:
    """Raise ValueError where a shape and a mapping both say how records are read."""
    if shape not in (None, "auto") and mapping is not None and mapping.reads:
        raise ValueError(f"shape = {shape!r} and a mapping with turns or user both say how records are read: keep one")


def several(keys: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return `keys` as the tuple that it stands for."""
    return () if keys is None else (keys,) if isinstance(keys, str) else keys
