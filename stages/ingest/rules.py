"""What is particular to the rows of one set of inputs: it travels with them, so that a change costs no other rows anything."""

from functools import lru_cache

import msgspec

from stages.ingest.mapping import Mapping
from stages.ingest.shapes.names import ShapeName


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings of one set, see pipeline.source.settings.SourceSet."""

    tags: tuple[str, ...] = ()
    shape: ShapeName | None = None
    mapping: Mapping | None = None


NO_RULES = Rules()


def rules_text(rules: Rules) -> str:
    """Return `rules` as the text that stands in the column `rules`; equal rules have equal texts."""
    return msgspec.json.encode(rules, order="deterministic").decode()


@lru_cache(maxsize=64)
def rules_of(text: str | None) -> Rules:
    """Return the rules in a text of rules_text; none for null."""
    return NO_RULES if text is None else msgspec.json.decode(text, type=Rules)
