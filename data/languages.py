"""Read what each language can talk about from data/topics/<language>.toml."""

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skills import Fact, Skill
from small_talk import SmallTalk


@dataclass(frozen=True, kw_only=True)
class Language:
    """Everything one language can talk about."""

    code: str
    skills: tuple[Skill, ...]
    openers: tuple[str, ...]
    """What may come before a question."""
    talk: SmallTalk


def read_skill(entry: Mapping[str, Any]) -> Skill:
    """Build a skill from its table; raises ValueError when a fact has not one value for each slot."""
    settings = dict(entry)
    slots = settings.pop("slots").split()
    rows = [row.split("=") for row in settings.pop("facts", ())] or itertools.product(*settings.pop("cross"))
    facts: tuple[Fact, ...] = tuple(dict(zip(slots, row, strict=True)) for row in rows)
    return Skill(
        facts=facts,
        questions=tuple(settings.pop("questions")),
        follow_ups=tuple(settings.pop("follow_ups", ())),
        tasks=tuple((instruction, task_input) for instruction, task_input in settings.pop("tasks")),
        **settings,
    )


def read_language(path: Path) -> Language:
    """Read one language."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    skills = tuple(read_skill(entry) for entry in table["skills"])
    return Language(code=path.stem, skills=skills, openers=tuple(table["openers"]), talk=SmallTalk(**table["talk"]))


_TOPICS = Path(__file__).parent / "topics"
ENGLISH: Final = read_language(_TOPICS / "en.toml")
CHINESE: Final = read_language(_TOPICS / "zh.toml")
