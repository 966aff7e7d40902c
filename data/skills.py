"""What a skill is: questions, one rule for the answer, facts to fill in, and what is held out of the sample."""

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Fact = Mapping[str, str]
Turn = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, kw_only=True)
class Skill:
    """One thing to learn. `{x}` in a template is a slot of the fact, `{X}` the same with a capital letter."""

    name: str
    questions: tuple[str, ...]
    answer: str
    facts: tuple[Fact, ...]
    follow_ups: tuple[str, ...] = ()
    """How to ask for another fact just after a question of the same skill."""
    tasks: tuple[Turn, ...] = ()
    """The question as an instruction and its input."""
    has_rule: bool = False
    """The answer follows from the value by a rule, so that whole values can be held out."""
    weight: float = 1.0
    """How much more often than other facts these are drawn."""


def below(rng: random.Random, limit: int) -> int:
    """Draw an integer in [0, limit).

    Only `Random.random` is promised to give the same numbers in every version of Python, so all draws go through it.
    """
    return int(rng.random() * limit)


def pick(rng: random.Random, items: Sequence[Item]) -> Item:
    """Draw one of the items, each with the same probability."""
    return items[below(rng, len(items))]


def shuffled(rng: random.Random, items: Sequence[Item]) -> list[Item]:
    """Return the items in a drawn order."""
    return [item for _, _, item in sorted((rng.random(), position, item) for position, item in enumerate(items))]


def fill(template: str, fact: Fact) -> str:
    """Put the values of a fact into a template."""
    capitals = {name.upper(): value[:1].upper() + value[1:] for name, value in fact.items()}
    return template.format_map({**fact, **capitals})


def is_held_out_question(question: str) -> bool:
    """Tell whether a wording of a question is kept out of the sample: about one in twelve."""
    return zlib.crc32(question.encode()) % 12 == 0


def is_held_out_value(skill: Skill, fact: Fact) -> bool:
    """Tell whether a value never occurs in the sample: about one in eight, of skills that follow a rule."""
    return skill.has_rule and zlib.crc32("|".join(fact.values()).encode()) % 8 == 0


def seen_facts(skill: Skill) -> tuple[Fact, ...]:
    """Return the facts that the sample may contain."""
    return tuple(fact for fact in skill.facts if not is_held_out_value(skill, fact))


def ask(rng: random.Random, skill: Skill, fact: Fact, templates: tuple[str, ...]) -> Turn:
    """Draw a wording that is not held out, and answer it."""
    questions = [fill(template, fact) for template in templates]
    allowed = [question for question in questions if not is_held_out_question(question)]
    return pick(rng, allowed or questions[:1]), fill(skill.answer, fact)


def held_out_turns(skill: Skill) -> Iterator[tuple[str, Turn]]:
    """Yield every question the sample never asks, as ("value" or "wording", turn)."""
    for fact in skill.facts:
        questions = [fill(template, fact) for template in skill.questions]
        answer = fill(skill.answer, fact)
        if is_held_out_value(skill, fact):
            yield "value", (questions[0], answer)
        elif not all(is_held_out_question(question) for question in questions):
            yield from (("wording", (question, answer)) for question in questions if is_held_out_question(question))
