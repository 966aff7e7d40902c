"""How a chat template ends a turn, for errors of stages that see neither the template nor its text."""

from collections.abc import Mapping
from typing import Any

from stages.render import probe


def turn_endings(configs: Mapping[str, Any], assets: Mapping[str, Any]) -> str:
    """Return a sentence that names the template and the texts with which it ends a turn of the assistant."""
    template = assets["template"]
    stops = probe(template, configs["render"]).stops
    if not stops:
        return f"Template {template.name} ends no turn with a special token of the tokenizer"
    return f"Template {template.name} ends a turn with {' or '.join(map(repr, stops))}"
