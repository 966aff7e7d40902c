"""Conversations out of independent skills: openings, questions, follow-ups, things to remember, farewells."""

import itertools
import math
import random
from dataclasses import dataclass, replace

import small_talk
from languages import CHINESE, ENGLISH, Language
from similarity import Collection
from skills import Fact, Skill, Turn, ask, below, fill, pick, seen_facts

Message = tuple[str, str]
"""A role and a content."""

MIN_CHARS = 20
"""Length of the shortest ordinary conversation, over the pipeline's bound of 16."""
MAX_SIMILARITY = 0.7
"""Ordinary conversations are less alike than this, well under the pipeline's threshold of 0.8."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One conversation, with what a file's shape may say about it."""

    messages: tuple[Message, ...]
    language: str
    topics: tuple[str, ...] = ()
    task_input: str = ""
    """Last line of the only question, when it is the input of an instruction."""

    @property
    def text(self) -> str:
        """What was said, without the system prompt."""
        return "\n".join(content for role, content in self.messages if role != "system")


def draw_language(rng: random.Random) -> Language:
    """Draw the language so that, with the few short questions that Chinese allows, a third of the sample is Chinese."""
    return CHINESE if rng.random() < 0.35 else ENGLISH


def draw_skill(rng: random.Random, language: Language) -> Skill:
    """Draw a skill; one with more to learn comes up more often."""
    # the power 3/4 by square roots, which are exact to the last bit on every machine; pow is not
    sizes = [len(seen_facts(skill)) for skill in language.skills]
    weights = [skill.weight * math.sqrt(n * math.sqrt(n)) for skill, n in zip(language.skills, sizes, strict=True)]
    point = rng.random() * sum(weights)
    for skill, weight in zip(language.skills, weights, strict=True):
        point -= weight
        if point < 0:
            return skill
    return language.skills[-1]


def draw_topic(rng: random.Random, language: Language) -> tuple[str, list[Turn]]:
    """Draw one skill's question, and sometimes one or two follow-ups about other facts; returns the topic too."""
    skill = draw_skill(rng, language)
    known = seen_facts(skill)
    fact = pick(rng, known)
    question, answer = ask(rng, skill, fact, skill.questions)
    if rng.random() < 0.15:
        question = pick(rng, language.openers) + question
    turns, used = [(question, answer)], [fact]
    while skill.follow_ups and len(turns) < 3 and rng.random() < 0.35:
        fact = pick(rng, known)
        if fact not in used:
            turns.append(ask(rng, skill, fact, skill.follow_ups))
            used.append(fact)
    return skill.name, turns


def converse(rng: random.Random, language: Language, *, with_system: bool) -> Record:
    """Draw a conversation of two to about eight turns."""
    talk = language.talk
    topics: list[str] = []
    blocks: list[list[Turn]] = []  # a question and its follow-ups stay together
    for _ in range(2 + below(rng, 2)):
        topic, turns = draw_topic(rng, language)
        topics.append(topic)
        blocks.append(turns)
    if rng.random() < 0.12:
        blocks.insert(below(rng, len(blocks) + 1), [pick(rng, talk.chat)])
    memory = rng.random()
    if memory < 0.35:
        told, asked = small_talk.name_memory(rng, talk, small_talk.seen_names(talk))
        blocks.insert(1 + below(rng, len(blocks)), [asked])
        blocks.insert(0, [told])
        topics.append("name")
    elif memory < 0.5:
        told, asked = small_talk.favourite_memory(rng, talk)
        place = below(rng, len(blocks))
        blocks.insert(place + 1 + below(rng, len(blocks) - place), [asked])
        blocks.insert(place, [told])
        topics.append("favourite")
    elif memory < 0.7:
        blocks.insert(0, [pick(rng, talk.greetings)])
    system = None
    if with_system:
        system, asked_persona = small_talk.system_prompt(rng, talk)
        if asked_persona:
            blocks.insert(below(rng, len(blocks) + 1), [asked_persona])
    if rng.random() < 0.3:
        blocks.append([pick(rng, talk.farewells)])
    messages = [("system", system)] if system else []
    for question, answer in itertools.chain.from_iterable(blocks):
        messages += [("user", question), ("assistant", answer)]
    return Record(messages=tuple(messages), language=language.code, topics=tuple(sorted(set(topics))))


def instruct(rng: random.Random, language: Language) -> Record:
    """Draw one instruction, half of the time with an input of its own."""
    skill = draw_skill(rng, language)
    fact: Fact = pick(rng, seen_facts(skill))
    if rng.random() < 0.5:
        instruction, task_input = (fill(part, fact) for part in pick(rng, skill.tasks))
        question, answer = f"{instruction}\n{task_input}", fill(skill.answer, fact)
    else:
        task_input = ""
        question, answer = ask(rng, skill, fact, skill.questions)
        if rng.random() < 0.3:
            question = pick(rng, language.openers) + question
    messages = (("user", question), ("assistant", answer))
    return Record(messages=messages, language=language.code, topics=(skill.name,), task_input=task_input)


class Composer:
    """Draws conversations until one is unlike all that it gave before."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._given = Collection()

    def _is_new(self, record: Record) -> bool:
        return len(record.text) >= MIN_CHARS and self._given.closest(record.text) < MAX_SIMILARITY

    def conversation(self, *, system_share: float = 0.0) -> Record:
        """Return a new conversation of several turns."""
        language = draw_language(self._rng)
        while True:
            record = converse(self._rng, language, with_system=self._rng.random() < system_share)
            if self._is_new(record):
                self._given.add(record.text)
                return record

    def instruction(self) -> Record:
        """Return a new question and answer."""
        while True:
            record = instruct(self._rng, draw_language(self._rng))
            if self._is_new(record):
                self._given.add(record.text)
                return record

    def without_input(self) -> Record:
        """Return a new question and answer for shapes that have no place for an input."""
        return replace(self.instruction(), task_input="")
