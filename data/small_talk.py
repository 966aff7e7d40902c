"""What frames a conversation: greetings, names, favourite things to remember, thanks and farewells."""

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skills import Turn, below, pick


@dataclass(frozen=True, kw_only=True)
class SmallTalk:
    """The phrases of one language; `{n}` is a name, `{k}` a kind of thing and `{v}` a thing of that kind."""

    names: Sequence[str]
    introductions: Sequence[str]
    welcome: str
    ask_name: Sequence[str]
    tell_name: str
    favourites: Mapping[str, Sequence[str]]
    favourite_told: Sequence[str]
    favourite_noted: str
    ask_favourite: Sequence[str]
    tell_favourite: str
    greetings: Sequence[Turn]
    chat: Sequence[Turn]
    farewells: Sequence[Turn]
    systems: Sequence[str]
    persona_system: str
    personas: Sequence[str]
    ask_persona: Sequence[str]
    tell_persona: str


def seen_names(talk: SmallTalk) -> list[str]:
    """Return the names that occur in the sample: all but about one in eight."""
    return [name for name in talk.names if zlib.crc32(name.encode()) % 8]


def name_memory(rng: random.Random, talk: SmallTalk, names: Sequence[str]) -> tuple[Turn, Turn]:
    """Draw a turn in which the user gives a name, and one that asks for it."""
    name = pick(rng, names)
    told = (pick(rng, talk.introductions).format(n=name), talk.welcome.format(n=name))
    return told, (pick(rng, talk.ask_name), talk.tell_name.format(n=name))


def favourite_memory(rng: random.Random, talk: SmallTalk) -> tuple[Turn, Turn]:
    """Draw a turn in which the user names a favourite thing, and one that asks for it."""
    kind, values = pick(rng, list(talk.favourites.items()))
    value = pick(rng, values)
    told = (pick(rng, talk.favourite_told).format(k=kind, v=value), talk.favourite_noted.format(k=kind, v=value))
    return told, (pick(rng, talk.ask_favourite).format(k=kind), talk.tell_favourite.format(k=kind, v=value))


def system_prompt(rng: random.Random, talk: SmallTalk) -> tuple[str, Turn | None]:
    """Draw a system prompt; one that gives the assistant a name comes with the turn that asks for it."""
    if below(rng, 2):
        return pick(rng, talk.systems), None
    persona = pick(rng, talk.personas)
    return talk.persona_system.format(n=persona), (pick(rng, talk.ask_persona), talk.tell_persona.format(n=persona))
